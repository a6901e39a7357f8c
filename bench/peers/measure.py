"""Systems take turns: every system under every load, one at a time, round by round."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter, sleep
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from bench.closed_loop import run_http
from bench.peers.loads import Load, Size
from bench.peers.systems import Bare, Running, Server, Setting
from bench.pictures import Picture
from server.artifact.artifact import Artifact
from server.errors import TwinlensError
from server.preprocessing import media

Vectors = NDArray[np.float32]
Sent = Mapping[Size, Sequence[Picture]]

_FIRST_LIMIT = 240
"""Seconds for a first answer: the legacy service loads its model for it."""
_IDLE = 2.0
_MAX_PIXELS = 10**8


@dataclass(slots=True)
class Likeness:
    """How a system's vectors lie to the reference's."""

    lowest: dict[int, float] = field(default_factory=dict)
    """Of each picture, the lowest cosine to its own."""
    mismatched: set[int] = field(default_factory=set)
    """Pictures that came back nearer to another's vector than to their own."""

    def add(self, answers: Mapping[int, NDArray[np.float64]], reference: Vectors) -> None:
        for number, vector in answers.items():
            cosines = reference.astype(np.float64) @ (vector / np.linalg.norm(vector))
            self.lowest[number] = min(self.lowest.get(number, 1.0), float(cosines[number]))
            if int(np.argmax(cosines)) != number:
                self.mismatched.add(number)

    def figures(self) -> dict[str, float | int]:
        return {
            "pictures": len(self.lowest),
            "minCosine": round(min(self.lowest.values()), 6),
            "meanCosine": round(float(np.mean(list(self.lowest.values()))), 6),
            "ownFirst": len(self.lowest) - len(self.mismatched),
        }


@dataclass(slots=True)
class Kept:
    """What is known of one system."""

    system: Server | Bare
    why: str = ""
    """Why it could not be measured; empty when it was."""
    idle_cores: float | None = None
    rounds: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Load -> what each round gave, or its `error`."""
    likeness: dict[Size, Likeness] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.system.name,
            "title": self.system.title,
            "about": self.system.about,
            "installed": list(self.system.requirements) if isinstance(self.system, Server) else [],
            "why": self.why or None,
            "idleCores": self.idle_cores,
            "likeness": {size: found.figures() for size, found in self.likeness.items() if found.lowest},
            "figures": {load: summary(rounds) for load, rounds in self.rounds.items()},
        }


def measure(
    systems: Sequence[Server | Bare],
    setting: Setting,
    sent: Sent,
    references: Mapping[Size, Vectors],
    rounds: int,
    seconds: float,
) -> list[dict[str, Any]]:
    """Start them all, ask them in turn, stop them; one that does not start is left out, with the reason."""
    kept = [Kept(system) for system in systems]
    running: dict[str, Running] = {}
    with contextlib.ExitStack() as stack:
        for one in kept:
            if isinstance(one.system, Server) and (started := _start(stack, one, setting, sent)):
                running[one.system.name] = started
        for number in range(rounds):
            for load in _loads(systems):
                asked = [one for one in kept if load in one.system.loads and not one.why]
                # Another one begins each time, so that a machine that grows warm or busy slows all alike.
                for one in (*asked[number % len(asked) :], *asked[: number % len(asked)]) if asked else ():
                    found = _turn(one, running.get(one.system.name), setting, load, sent, references, seconds)
                    one.rounds.setdefault(load.name, []).append(found)
                    print(f"round {number + 1}: {load.title}: {one.system.title}: {_line(found)}", flush=True)
        print("stopping them", flush=True)
    return [one.as_json() for one in kept]


def _loads(systems: Sequence[Server | Bare]) -> list[Load]:
    return list(dict.fromkeys(load for system in systems for load in system.loads))


def _start(stack: contextlib.ExitStack, one: Kept, setting: Setting, sent: Sent) -> Running | None:
    """Start it, send it one picture of each size, measure what it costs when idle, and pause it."""
    system = one.system
    assert isinstance(system, Server)  # noqa: S101 - for mypy
    began = perf_counter()
    try:
        running = stack.enter_context(system.start(setting))
        for size in dict.fromkeys(load.size for load in system.loads):
            _check_first_answer(system, running, sent[size][0].data)
    except (RuntimeError, TwinlensError, OSError) as exc:
        one.why = " ".join(str(exc).split())[-300:]
        print(f"{system.title}: left out: {one.why}", flush=True)
        return None
    took = perf_counter() - began
    sleep(_IDLE)  # whatever the first requests left to do
    before = running.cpu_seconds()
    sleep(_IDLE)
    one.idle_cores = round((running.cpu_seconds() - before) / _IDLE, 3)
    running.pause()
    print(f"{system.title}: started in {took:.0f} s; {one.idle_cores:.2f} cores busy when idle", flush=True)
    return running


def _check_first_answer(system: Server, running: Running, picture: bytes) -> None:
    """One request by an ordinary client. Raises RuntimeError, with the answer, when it is not right."""
    head, _, body = system.ask(running.port, picture).partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    request = Request(f"http://127.0.0.1:{running.port}{first.split()[1]}", body, headers)
    try:
        with urlopen(request, timeout=_FIRST_LIMIT) as answer:  # noqa: S310 - loopback
            system.vector(json.load(answer))
    except URLError as exc:
        reason = exc.read().decode(errors="replace") if hasattr(exc, "read") else exc
        raise RuntimeError(f"it does not embed a picture: {reason}") from exc
    except (ValueError, KeyError, TypeError) as exc:
        raise RuntimeError(f"its answer has no vector: {exc!r}") from exc


def _turn(
    one: Kept,
    running: Running | None,
    setting: Setting,
    load: Load,
    sent: Sent,
    references: Mapping[Size, Vectors],
    seconds: float,
) -> dict[str, Any]:
    some = sent[load.size][: load.pictures]
    system = one.system
    try:
        if isinstance(system, Bare):
            found, answers = _bare(setting.artifact, system.precision, some, load.callers, seconds)
        else:
            assert running is not None  # noqa: S101 - for mypy: those that did not start take no turns
            found, answers = _http(system, running, some, load.callers, seconds)
    except RuntimeError as exc:
        return {"error": " ".join(str(exc).split())[:300]}
    one.likeness.setdefault(load.size, Likeness()).add(answers, references[load.size])
    return found


Turn = tuple[dict[str, Any], dict[int, NDArray[np.float64]]]


def _http(system: Server, running: Running, sent: Sequence[Picture], callers: int, seconds: float) -> Turn:
    requests = [system.ask(running.port, one.data) for one in sent]
    spent = []

    def note() -> None:
        spent.append(running.cpu_seconds())

    running.resume()
    try:
        http, bodies = asyncio.run(
            run_http(running.port, requests, seconds, callers, on_begin=note, on_end=note),
        )
    finally:
        running.pause()
    answers = {number: np.asarray(system.vector(json.loads(body)), np.float64) for number, body in bodies.items()}
    return {
        "picturesPerSecond": http.pictures_per_second,
        "p50": http.p50,
        "p95": http.p95,
        "generatorCpu": http.generator_cpu,
        "serverCores": (spent[1] - spent[0]) / seconds,
    }, answers


def _bare(artifact: Artifact, precision: str, sent: Sequence[Picture], batch: int, seconds: float) -> Turn:
    """A session of its own each time: one that waits for its turn would spin."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    graph = artifact.folder / artifact.manifest.precisions[precision].image  # type: ignore[index]
    session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0].name
    pixels = np.stack([media.read_pixels(one.data, artifact.spec, max_pixels=_MAX_PIXELS) for one in sent])
    answers: dict[int, NDArray[np.float64]] = {}
    times: list[float] = []
    session.run(None, {entry: pixels[:batch]})
    began = perf_counter()
    for start in _starts(len(sent), batch):
        if perf_counter() - began > seconds:
            break
        asked = perf_counter()
        vectors = session.run(None, {entry: pixels[start : start + batch]})[0]
        times.append((perf_counter() - asked) / len(vectors))
        answers.update(enumerate(vectors.astype(np.float64), start))
    return {
        "picturesPerSecond": 1 / float(np.mean(times)),
        "p50": float(np.percentile(times, 50)) * batch * 1000,
        "p95": float(np.percentile(times, 95)) * batch * 1000,
        "generatorCpu": None,
        "serverCores": None,
    }, answers


def _starts(count: int, batch: int) -> Iterator[int]:
    """Where batches begin that are full, for ever."""
    while True:
        yield from range(0, count - batch + 1, batch)


def summary(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Median, lowest and highest of each figure over the rounds that went well; how many failed, and why the first."""
    well = [one for one in rounds if "error" not in one]
    failed = [one["error"] for one in rounds if "error" in one]
    names = [name for name in (well[0] if well else {}) if well[0][name] is not None]
    return {
        **{name: _spread([one[name] for one in well]) for name in names},
        "failedRounds": len(failed),
        "error": failed[0] if failed else None,
        "rounds": list(rounds),
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": round(median(values), 4), "min": round(min(values), 4), "max": round(max(values), 4)}


def _line(found: Mapping[str, Any]) -> str:
    if "error" in found:
        return f"failed: {found['error']}"
    line = f"{found['picturesPerSecond']:.1f} pictures/s, p50 {found['p50']:.0f} ms, p95 {found['p95']:.0f} ms"
    if found["generatorCpu"] is not None:
        line += f"; the load generator took {found['generatorCpu']:.0%} of the cores"
    return line
