"""python -m bench servers: which HTTP server serves us best.

The same app, with a database and a model, behind granian (as `python -m server` runs it), granian on uvloop, uvicorn
and hypercorn, one worker each. All of them stand beside one another and are asked in turn. Besides speed it is tried
what they do on SIGTERM, when a caller leaves, and when their worker is killed. What is no
dependency of ours is installed into `.bench/servers`, once.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from itertools import count
from pathlib import Path
from statistics import median
from time import perf_counter, sleep
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from bench import cpu, machine, pictures
from bench.closed_loop import request, run_http
from bench.serving import Serving, serving
from server.artifact.artifact import Artifact
from server.errors import TwinlensError

PACKAGES = ("uvicorn", "hypercorn", "httptools", "uvloop")
_FOLDER = pictures.ROOT / ".bench" / "servers"

_OURS = (sys.executable, "-m", "server")
_FRESH_A_SECOND = 200
_FORM = {"Content-Type": pictures.FORM_TYPE}
_PATIENCE = 30.0
_MANY = 48


@dataclass(frozen=True, slots=True)
class Candidate:
    """How a server is started; `extras`: with what is in `.bench/servers`."""

    program: Sequence[str]
    extras: bool = True


CANDIDATES: Mapping[str, Candidate] = {
    "granian": Candidate(_OURS, extras=False),
    "granian, uvloop": Candidate(_OURS),
    "uvicorn, uvloop": Candidate((sys.executable, "-m", "bench.servers.launch", "uvicorn")),
    "hypercorn, uvloop": Candidate((sys.executable, "-m", "bench.servers.launch", "hypercorn")),
}


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked. `fresh`: each picture for the first time; else one picture again and again, from the cache."""

    about: str
    method: str
    path: str
    callers: int
    fresh: bool = False


LOADS: Mapping[str, Load] = {
    "live": Load("GET /health/live, 8 callers", "GET", "/health/live", 8),
    "cached": Load("/embed-image, the same picture, 8 callers", "POST", "/embed-image", 8),
    "cachedAlone": Load("/embed-image, the same picture, alone", "POST", "/embed-image", 1),
    "search": Load("/v1/search, new pictures, 8 callers", "POST", "/v1/search", 8, fresh=True),
    "alone": Load("/embed-image, new pictures, alone", "POST", "/embed-image", 1, fresh=True),
}


# --- speed -----------------------------------------------------------------------------------------------------------


class Asker:
    """Makes requests; a number behind a picture's last byte makes it new to a cache and changes nothing else."""

    def __init__(self) -> None:
        self._photographs = [one.data for one in pictures.photographs(32)]
        self._numbers = count(1)

    def requests(self, load: Load, port: int, seconds: float) -> list[bytes]:
        if load.method == "GET":
            return [request(port, load.path, method="GET")]
        if not load.fresh:
            return [request(port, load.path, pictures.form(self._photographs[0]), headers=_FORM)]
        fresh = (self.fresh() for _ in range(int(_FRESH_A_SECOND * (seconds + 1))))
        return [request(port, load.path, pictures.form(data), headers=_FORM) for data in fresh]

    def fresh(self) -> bytes:
        number = next(self._numbers)
        return self._photographs[number % len(self._photographs)] + number.to_bytes(8, "big")


def ask(server: Serving, load: Load, asker: Asker, seconds: float) -> dict[str, float]:
    """One round of a load: answers a second, latencies in milliseconds, core-microseconds an answer."""
    used: list[float] = []

    def sample() -> None:
        used.append(server.cpu_seconds())

    requests = asker.requests(load, server.port, seconds)
    http, _ = asyncio.run(run_http(server.port, requests, seconds, load.callers, on_begin=sample, on_end=sample))
    return {
        "perSecond": http.pictures_per_second,
        "p50": http.p50,
        "p99": http.p99,
        "coreMicroseconds": (used[1] - used[0]) / (http.pictures_per_second * seconds) * 1e6,
        "generatorCores": http.generator_cpu * len(os.sched_getaffinity(0)),
    }


def idle(server: Serving, seconds: float) -> float:
    """Core-milliseconds a second of a server that nobody asks."""
    before = server.cpu_seconds()
    sleep(seconds)
    return (server.cpu_seconds() - before) / seconds * 1000


# --- behaviour -------------------------------------------------------------------------------------------------------


def leaving(server: Serving, asker: Asker) -> float:
    """How much of a long request's core-seconds is still spent when its caller leaves at the start; 1 is all."""

    def spent(stay: bool) -> float:
        _settle(server)
        before = server.cpu_seconds()
        asyncio.run(_ask_for_many(server.port, [asker.fresh() for _ in range(_MANY)], stay=stay))
        _settle(server)
        return server.cpu_seconds() - before

    everything = spent(stay=True)
    return spent(stay=False) / everything


def _settle(server: Serving) -> None:
    """Wait until it is idle."""
    deadline = perf_counter() + _PATIENCE
    while perf_counter() < deadline and idle(server, 0.5) > 100:
        pass


async def _ask_for_many(port: int, many: Sequence[bytes], *, stay: bool) -> bool:
    """Ask for the vectors of many pictures at once; whether all of them came."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    end = f"--{pictures.BOUNDARY}--\r\n".encode()
    body = b"".join(pictures.form(data).removesuffix(end) for data in many) + end
    writer.write(request(port, "/v1/embeddings", body, headers=_FORM))
    try:
        await writer.drain()
        if not stay:
            await asyncio.sleep(0.05)
            return False
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(int(length.partition(b":")[2]))
        return b" 200 " in head.split(b"\r\n")[0]
    except (OSError, asyncio.IncompleteReadError):
        return False
    finally:
        writer.close()


def drain(server: Serving, asker: Asker) -> tuple[int, float]:
    """SIGTERM with eight long requests in flight: how many were answered, and the seconds until it had ended."""

    async def answers() -> list[bool]:
        asked = [
            asyncio.create_task(_ask_for_many(server.port, [asker.fresh() for _ in range(8)], stay=True))
            for _ in range(8)
        ]
        await asyncio.sleep(0.1)
        os.kill(server.pid, signal.SIGTERM)
        return await asyncio.gather(*asked)

    began = perf_counter()
    answered = sum(asyncio.run(answers()))
    deadline = perf_counter() + _PATIENCE
    while perf_counter() < deadline and len(cpu.tree(server.pid)) > 1:
        sleep(0.02)
    return answered, perf_counter() - began


def killed(server: Serving) -> float | None:
    """Seconds until it answers again after its worker was killed; None when it does not."""
    worker = max(
        (pid for pid in cpu.tree(server.pid)[1:] if cpu.name(pid) != "postgres"),
        key=cpu.process_seconds,
    )
    os.kill(worker, signal.SIGKILL)
    began = perf_counter()
    while perf_counter() - began < _PATIENCE and cpu.tree(server.pid):
        ready = f"{server.url}/health/ready"
        with contextlib.suppress(URLError, OSError), urlopen(ready, timeout=2):  # noqa: S310 - our own server
            return perf_counter() - began
        sleep(0.05)
    return None


# --- the command -----------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write down."""
    parser = argparse.ArgumentParser("python -m bench servers", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--model", type=Path, default=Path("models/starter"), help="artifact folder (models/starter)")
    parser.add_argument("--precision", default="fp32", help="variant to run (fp32)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of everything (3)")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of each load in a round (3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything here as well")
    asked = parser.parse_args(arguments)
    try:
        install()
        report = measure(asked, shlex.join(["python", "-m", "bench", "servers", *(arguments or sys.argv[1:])]))
    except (TwinlensError, RuntimeError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    print("\n".join(table(report)))
    if asked.json is not None:
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        asked.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


def install() -> None:
    """Install the servers that are no dependencies of ours, in a folder of their own. Raises RuntimeError."""
    if all(_version(name) for name in PACKAGES):
        return
    done = subprocess.run(  # noqa: S603 - names from above
        [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(_FOLDER), "--upgrade", *PACKAGES],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{', '.join(PACKAGES)} could not be installed into {_FOLDER}:\n{done.stderr[-1000:]}")


def _version(package: str) -> str | None:
    found = next(iter(metadata.distributions(name=package, path=[str(_FOLDER)])), None)
    return found.version if found else None


@contextlib.contextmanager
def started(name: str, asked: argparse.Namespace) -> Iterator[Serving]:
    one = CANDIDATES[name]
    extras = [str(_FOLDER)] if one.extras else []
    path = os.pathsep.join(filter(None, [*extras, os.environ.get("PYTHONPATH")]))
    environment = {"PYTHONPATH": path} if path else {}
    with serving(asked.model, asked.precision, program=one.program, environment=environment, demo=True) as server:
        yield server


def measure(asked: argparse.Namespace, command: str) -> dict[str, Any]:
    """The report. Raises TwinlensError's kinds, RuntimeError."""
    artifact = Artifact.read(asked.model)
    asker = Asker()
    began = datetime.now().astimezone().isoformat(timespec="seconds")
    print(machine.sentence())
    rounds: dict[str, dict[str, list[dict[str, float]]]] = {name: {key: [] for key in LOADS} for name in CANDIDATES}
    behaviour: dict[str, dict[str, Any]] = {}
    with contextlib.ExitStack() as stack:
        servers = {name: stack.enter_context(started(name, asked)) for name in CANDIDATES}
        for name, server in servers.items():
            behaviour[name] = {"idleCoreMilliseconds": round(idle(server, asked.seconds), 2)}
            for load in LOADS.values():
                ask(server, load, asker, 0.5)  # warm
        for number in range(asked.rounds):
            for key, load in LOADS.items():
                # In alternating order, so that a machine that grows warm or busy slows none alone.
                for name in list(servers)[:: -1 if number % 2 else 1]:
                    rounds[name][key].append(ask(servers[name], load, asker, asked.seconds))
            print(f"round {number + 1} of {asked.rounds} done", file=sys.stderr, flush=True)
        for name, server in servers.items():
            behaviour[name]["stillSpentWhenTheCallerLeft"] = round(leaving(server, asker), 3)
        for name, server in servers.items():
            back = killed(server)
            behaviour[name]["secondsUntilBackWhenKilled"] = None if back is None else round(back, 2)
    for name in CANDIDATES:
        with started(name, asked) as server:
            answered, seconds = drain(server, asker)
        behaviour[name] |= {"answeredOfEightOnSigterm": answered, "secondsToEnd": round(seconds, 2)}
    return {
        "machine": machine.describe() | {name: _version(name) or "" for name in PACKAGES},
        "command": command,
        "artifact": {
            "name": asked.model.resolve().name,
            "model": artifact.manifest.model,
            "precision": asked.precision,
            "device": "cpu",
            "space": artifact.space(asked.precision).id,
        },
        "started": began,
        "rounds": asked.rounds,
        "seconds": asked.seconds,
        "servers": {
            name: {
                **behaviour[name],
                "loads": {
                    load: {key: round(median(one[key] for one in every), 3) for key in every[0]}
                    for load, every in rounds[name].items()
                },
            }
            for name in CANDIDATES
        },
    }


def table(report: Mapping[str, Any]) -> Iterator[str]:
    """The figures as lines of text: medians of the rounds."""
    servers: Mapping[str, Any] = report["servers"]
    wide = max(map(len, servers)) + 4
    for key, load in LOADS.items():
        yield f"\n{load.about}"
        yield f"  {'':{wide}}{'a second':>10}{'p50 ms':>10}{'p99 ms':>10}{'core-us each':>14}{'generator cores':>17}"
        for name, server in servers.items():
            one = server["loads"][key]
            yield (
                f"  {name:{wide}}{one['perSecond']:10.1f}{one['p50']:10.2f}{one['p99']:10.2f}"
                f"{one['coreMicroseconds']:14.0f}{one['generatorCores']:17.2f}"
            )
    heads = f"{'idle, core-ms/s':>17}{'caller left: spent':>20}{'killed: back after':>20}{'SIGTERM: answered':>19}"
    yield f"\n  {'':{wide}}{heads}"
    for name, server in servers.items():
        back = server["secondsUntilBackWhenKilled"]
        yield (
            f"  {name:{wide}}{server['idleCoreMilliseconds']:17.2f}{server['stillSpentWhenTheCallerLeft']:20.0%}"
            f"{'never' if back is None else f'{back:.1f} s':>20}"
            f"{server['answeredOfEightOnSigterm']:10d} of 8, {server['secondsToEnd']:.1f} s"
        )
