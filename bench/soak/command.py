"""python -m bench soak: a server at half load for half an hour; its memory, handles, connections and tasks stay flat.

First the callers of `bench crash` send their operations as fast as they are answered, for some seconds: that is the
full load. Then they send half as many a second, evenly spaced, and what the server's processes hold is written down
again and again. Each answer is held against the model, as there. After the first quarter, which warms up, nothing may
grow: the last quarter is compared with the second one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from bench import machine
from bench.crash import document
from bench.crash.lanes import Lane
from bench.crash.operations import CLIENTS, Operation, operations
from bench.crash.talk import ask
from bench.crash.world import World
from bench.serving import Serving, serving
from bench.soak.document import record
from bench.soak.drawing import svg
from bench.soak.samples import QUANTITIES, judge, sample
from server.postgres.server import EmbeddedPostgres

# Little, so that the cache of vectors is full before the warm-up ends: what fills later would look like a leak.
_FLAGS = ("--workers", "1", "--cache", "2000000", "--deadline", "10")
_DEADLINE = 10.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print and write down. The exit code: 0 all is flat and right, 1 it is not, 2 it could not be tried."""
    parser = argparse.ArgumentParser("python -m bench soak", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--minutes", type=float, default=30.0, help="at half load (30)")
    parser.add_argument("--seed", type=int, default=1, help="the same seed draws the same operations (1)")
    parser.add_argument("--model", type=Path, default=Path("models/starter"), help="artifact folder (models/starter)")
    parser.add_argument("--lanes", type=int, default=4, help="callers of each of the three clients (4)")
    parser.add_argument("--full", type=float, default=20.0, help="seconds at full load, to know what half is (20)")
    parser.add_argument("--every", type=float, default=10.0, help="seconds between two looks (10)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures here")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw the series here")
    parser.add_argument(
        "--read", type=Path, metavar="FILE", help="run nothing: write such a file to docs/reliability.md"
    )
    asked = parser.parse_args(arguments)
    if asked.read is not None:
        report = json.loads(asked.read.read_text())
        document.write("soak", record(report))
        (document.PAGE.parent / "soak.svg").write_text(_drawn(report))
        return 0
    print(machine.sentence(), flush=True)
    try:
        with serving(asked.model, arguments=_FLAGS) as server:
            report = asyncio.run(_soak(server, asked))
            traces = server.log().count("Traceback (most recent call last)")
    except RuntimeError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    faults = report["faults"] + ([f"{traces} tracebacks in the log"] if traces else [])
    for fault in faults[:40]:
        print(f"  {fault}")
    print(
        f"{report['operations']:,} operations, {report['rate']:.1f} a second of {report['full_rate']:.1f}; "
        f"answers {', '.join(f'{count:,} x {label}' for label, count in report['answers'].items())}"
    )
    flat = True
    for name, quantity in QUANTITIES.items():
        verdict = judge(name, report["series"][name])
        flat = flat and verdict.flat
        print(
            f"{quantity.title:54}{verdict.early:9.1f} -> {verdict.late:8.1f} {quantity.unit:3}"
            f"{'flat' if verdict.flat else 'GROWS'}"
        )
    for file, text in ((asked.json, json.dumps(report, indent=1) + "\n"), (asked.svg, _drawn(report))):
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
    return 0 if flat and not faults else 1


def _drawn(report: dict[str, Any]) -> str:
    return svg(report["at_minutes"], report["series"])


async def _soak(server: Serving, asked: argparse.Namespace) -> dict[str, Any]:
    world = World(server.port, _DEADLINE)
    url = EmbeddedPostgres(server.data).url
    pace = _Pace()
    lanes = [
        Lane(world, operations(asked.seed, client, lane, asked.lanes), url, pace.wait)
        for client in CLIENTS
        for lane in range(asked.lanes)
    ]
    at: list[float] = []
    series: dict[str, list[float]] = {name: [] for name in QUANTITIES}
    async with asyncio.TaskGroup() as group:
        for lane in lanes:
            group.create_task(lane.run())
        await asyncio.sleep(asked.full / 4)  # until the catalogue has something in it
        before, began = world.tally.operations.total(), perf_counter()
        await asyncio.sleep(asked.full)
        full = (world.tally.operations.total() - before) / (perf_counter() - began)
        pace.set(full / 2)
        before, began = world.tally.operations.total(), perf_counter()
        while (since := perf_counter() - began) < asked.minutes * 60:
            scraped = await ask(server.port, "GET", "/metrics")
            at.append(since / 60)
            for name, value in sample(server.pid, scraped.body).items():
                series[name].append(value)
            await asyncio.sleep(asked.every)
        done = world.tally.operations.total() - before
        world.ended = True
    return {
        "machine": machine.describe(),
        "seed": asked.seed,
        "minutes": asked.minutes,
        "full_rate": full,
        "rate": done / (perf_counter() - began),
        "operations": done,
        "answers": dict(sorted(world.tally.answers.items())),
        "faults": [f"{fault.at} s: {fault.kind}: {fault.text}" for fault in world.tally.faults],
        "at_minutes": at,
        "series": series,
    }


class _Pace:
    """So many operations a second, evenly spaced, of all callers together; as fast as they are answered until set."""

    def __init__(self) -> None:
        self._interval = 0.0
        self._due = 0.0

    def set(self, rate: float) -> None:
        self._interval, self._due = 1.0 / max(rate, 0.1), perf_counter()

    async def wait(self, _: Operation) -> None:
        if self._interval == 0.0:
            await asyncio.sleep(0)
            return
        # A pace that was not kept is not made up for: what comes late would come all at once.
        self._due = max(self._due + self._interval, perf_counter() - self._interval)
        await asyncio.sleep(max(0.0, self._due - perf_counter()))


if __name__ == "__main__":
    sys.exit(main())
