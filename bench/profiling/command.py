"""python -m bench profile: where a request's time goes, and what a picture costs in core-seconds.

A server of its own is asked by 1, 8 and 32 callers, for embeddings and for searches. Its `Server-Timing` says where
the time of each request went; the kernel counts what each process and thread used of the cores. Between the loads the
model runs alone in this process, laid out as the server lays it out: that is the floor, and what a picture costs over
HTTP beyond it is the overhead.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shlex
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from statistics import mean, median
from time import process_time
from typing import Any

import msgspec
import numpy as np

from bench import machine, pictures
from bench.closed_loop import Answer, Http, request, run_http
from bench.profiling.drawing import draw, table
from bench.profiling.floor import BATCHES, Bare, best_batch, run_bare
from bench.profiling.shares import SHARES, STAGES, core_seconds, split
from bench.serving import UNCACHED, Serving, serving
from server.artifact.artifact import Artifact
from server.commands.flags import add_flags, flags_of
from server.errors import TwinlensError
from server.inference.cores import Layout, plain
from server.inference.encoder import Encoder
from server.inference.runner import Runner
from server.preprocessing import media
from server.settings import Settings

PATHS = ("/embed-image", "/v1/search")

_WARM_UP = 1.0
_NAMED = Path(__file__).parent / "named_threads"


@dataclass(slots=True)
class Load:
    """What was measured of one path at one number of callers, a value for each round."""

    path: str
    callers: int
    http: list[Http] = field(default_factory=list)
    stages: list[dict[str, float]] = field(default_factory=list)
    """Mean milliseconds of a request."""
    cores: list[dict[str, float]] = field(default_factory=list)
    """Core-milliseconds a picture, by SHARES; the load generator's as `generator`."""
    overheads: list[float] = field(default_factory=list)


# --- over HTTP -------------------------------------------------------------------------------------------------------


def measure_load(load: Load, server: Serving, requests: Sequence[bytes], seconds: float) -> None:
    """Ask for that long and add what was seen to the load."""
    sums: Counter[str] = Counter()
    count = 0
    samples: list[dict[str, float]] = []

    def on_answer(answer: Answer, milliseconds: float) -> None:
        nonlocal count
        count += 1
        sums.update(split(answer.headers.get(b"server-timing", b"").decode(), milliseconds))

    def sample() -> None:
        samples.append({**core_seconds(server.pid), "generator": process_time()})

    http, _ = asyncio.run(
        run_http(server.port, requests, seconds, load.callers, on_answer=on_answer, on_begin=sample, on_end=sample)
    )
    before, after = samples
    load.http.append(http)
    load.stages.append({stage: sums[stage] / count for stage in STAGES if stage in sums})
    done = http.pictures_per_second * seconds
    load.cores.append({share: (after[share] - before[share]) / done * 1000 for share in after})


# --- the command -----------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, draw and write down; the exit code is 1 when the overhead is above `--most`."""
    parser = argparse.ArgumentParser("python -m bench profile", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--model", type=Path, default=Path("models/starter"), help="artifact folder (models/starter)")
    parser.add_argument("--precision", default="fp32", help="variant to run (fp32)")
    parser.add_argument("--device", default="cpu", choices=["auto", "cpu", "cuda"], help="for both (cpu)")
    parser.add_argument("--server", default="", metavar="FLAGS", help='more flags of the server, such as "--threads 1"')
    parser.add_argument(
        "--callers", type=_callers, default=[1, 8, 32], metavar="N,...", help="callers at once (1,8,32)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="rounds of everything (3)")
    parser.add_argument("--seconds", type=float, default=6.0, help="length of each load in a round (6)")
    parser.add_argument("--pictures", type=int, default=64, help="distinct pictures (64)")
    parser.add_argument(
        "--most", type=float, help="fail when the overhead at the last load is above this, such as 0.12"
    )
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw it")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything here as well")
    asked = parser.parse_args(arguments)
    if asked.pictures < max(BATCHES):
        parser.error(f"--pictures: at least {max(BATCHES)}, to fill a batch")
    try:
        report = measure(asked, shlex.join(["python", "-m", "bench", "profile", *(arguments or sys.argv[1:])]))
    except (TwinlensError, RuntimeError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    for file, text in ((asked.json, json.dumps(report, indent=2) + "\n"), (asked.svg, draw(report))):
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
    return 1 if asked.most is not None and report["overhead"] > asked.most else 0


def _callers(text: str) -> list[int]:
    numbers = [int(one) for one in text.split(",")]
    if min(numbers) < 1:
        raise ValueError
    return numbers


def measure(asked: argparse.Namespace, command: str) -> dict[str, Any]:
    """The report. Raises TwinlensError's kinds, RuntimeError."""
    sent = [one.data for one in pictures.photographs(asked.pictures)]
    artifact = Artifact.read(asked.model)
    pixels = np.stack([media.read_pixels(data, artifact.spec, max_pixels=10**7) for data in sent])
    loads = [Load(path, callers) for path in PATHS for callers in asked.callers]
    started = datetime.now().astimezone().isoformat(timespec="seconds")
    bare: list[Bare] = []
    warm_up = min(_WARM_UP, asked.seconds)
    with profiled(asked) as server, runners(artifact, asked, server) as (runs, device):
        batch = best_batch(runs, pixels, warm_up)
        print(machine.sentence())
        print(f"{artifact.manifest.model} ({asked.precision}) on {device}, {len(sent)} JPEGs of 640 x 480,", end=" ")
        print(f"{asked.rounds} rounds of {asked.seconds:g} s a load", flush=True)
        requests = {
            path: [
                request(server.port, path, pictures.form(data), headers={"Content-Type": pictures.FORM_TYPE})
                for data in sent
            ]
            for path in PATHS
        }
        for path in PATHS:
            asyncio.run(run_http(server.port, requests[path], warm_up, max(asked.callers), settle=0.0))
        for number in range(asked.rounds):
            bare.append(run_bare(runs, pixels, batch, asked.seconds))
            # In alternating order, so that a machine that grows warm or busy slows no load alone.
            for load in loads if number % 2 == 0 else loads[::-1]:
                measure_load(load, server, requests[load.path], asked.seconds)
                load.overheads.append(_server_cores(load.cores[-1]) / bare[-1].core_milliseconds - 1)
            print(f"round {number + 1} of {asked.rounds} done", file=sys.stderr, flush=True)
    report = {
        "machine": machine.describe(),
        "command": command,
        "artifact": {
            "name": asked.model.resolve().name,
            "model": artifact.manifest.model,
            "precision": asked.precision,
            "device": device.partition(",")[0],
            "space": artifact.space(asked.precision).id,
        },
        "started": started,
        "pictures": len(sent),
        "rounds": asked.rounds,
        "seconds": asked.seconds,
        "bare": {
            "layout": device,
            "batch": batch,
            "picturesPerSecond": round(median(one.pictures_per_second for one in bare), 3),
            "coreMilliseconds": round(median(one.core_milliseconds for one in bare), 3),
            "byRound": [round(one.core_milliseconds, 3) for one in bare],
        },
        "loads": [_figures(load) for load in loads],
    }
    report["overhead"] = report["loads"][len(asked.callers) - 1]["overhead"]
    print("\n".join(table(report)))
    return report


@contextlib.contextmanager
def runners(artifact: Artifact, asked: argparse.Namespace, server: Serving) -> Iterator[tuple[Sequence[Runner], str]]:
    """What the server runs batches with side by side, but here; and a sentence of it."""
    parser = argparse.ArgumentParser()
    add_flags(parser)
    settings = Settings.read({}, flags_of(parser.parse_args(shlex.split(asked.server))))
    with Encoder(artifact, asked.precision, asked.device, threads=settings.threads or 0) as encoder:
        if encoder.device != "cpu":
            yield encoder.runners, encoder.device
            return
        # What the server measured at its start; two that measure may choose differently.
        found = next((server.data / "cache").glob("layout-*.json"), None)
        layout = (
            msgspec.json.decode(found.read_bytes(), type=Layout)
            if found is not None
            else plain(encoder.threads, settings.batch or BATCHES[-1])
        )
        yield encoder.on_cpu(layout.count, layout.width, BATCHES[-1]), f"{encoder.device}, {layout}"


@contextlib.contextmanager
def profiled(asked: argparse.Namespace) -> Iterator[Serving]:
    """A server with the demo's products to search in, whose threads bear their names."""
    path = os.pathsep.join(filter(None, [str(_NAMED), os.environ.get("PYTHONPATH")]))
    flags = [*UNCACHED, *shlex.split(asked.server)]
    with serving(
        asked.model, asked.precision, asked.device, arguments=flags, environment={"PYTHONPATH": path}, demo=True
    ) as server:
        yield server


def _server_cores(cores: Mapping[str, float]) -> float:
    return sum(cores.get(share, 0.0) for share in SHARES)


def _figures(load: Load) -> dict[str, Any]:
    """Medians of the rounds; the means of stages are means over the rounds, so that they still add up."""

    def medians(values: Sequence[Mapping[str, float]], names: Sequence[str]) -> dict[str, float]:
        return {name: round(median(one.get(name, 0.0) for one in values), 3) for name in names if name in values[0]}

    return {
        "path": load.path,
        "callers": load.callers,
        "picturesPerSecond": round(median(one.pictures_per_second for one in load.http), 3),
        "latency": {name: round(median(getattr(one, name) for one in load.http), 3) for name in ("p50", "p95", "p99")},
        "stages": {
            stage: round(mean(one.get(stage, 0.0) for one in load.stages), 3)
            for stage in STAGES
            if any(stage in one for one in load.stages)
        },
        "coreMilliseconds": medians(load.cores, SHARES),
        "coreMillisecondsOfServer": round(median(map(_server_cores, load.cores)), 3),
        "generatorCoreMilliseconds": round(median(one["generator"] for one in load.cores), 3),
        "overhead": round(median(load.overheads), 4),
        "overheadByRound": [round(one, 4) for one in load.overheads],
    }
