"""A run: the server, its callers and the faults, side by side, and the audit at its end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import psycopg

from bench.crash.audit import audit
from bench.crash.change import change
from bench.crash.checks import AWAY
from bench.crash.disk import Disk
from bench.crash.faults import Blow, schedule, space_changes
from bench.crash.feeder import Feeder
from bench.crash.keeper import Keeper
from bench.crash.lanes import Lane
from bench.crash.operations import CLIENTS, operations
from bench.crash.probe import Probe
from bench.crash.report import Report, Struck
from bench.crash.stage import NothingToBreak, Stage, strike
from bench.crash.waiting import until
from bench.crash.world import World
from bench.serving import free_port
from tests.support.artifacts import another_space

# So that the write-ahead log fits on the small disk.
_SETTINGS = ("ALTER SYSTEM SET max_wal_size = '128MB'", "ALTER SYSTEM SET min_wal_size = '64MB'")


# Each has a model of its own to open.
_INGESTS_AT_ONCE = 2


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked for. `deadline`: of the server, in seconds; `spaces`: whether the space is changed meanwhile."""

    seed: int
    minutes: float
    kinds: Sequence[str]
    workers: int = 2
    lanes: int = 2
    deadline: float = 5.0
    spaces: bool = True

    @property
    def seconds(self) -> float:
        return self.minutes * 60


async def run(plan: Plan, home: Path, disk: Disk | None, model: Path, journal: Path | None = None) -> Report:
    """Start all that is needed, break it, and look at what is left. Raises RuntimeError, psycopg.Error."""
    began = perf_counter()
    models = [model, await asyncio.to_thread(another_space, home / "other-model")]
    port = free_port()
    flags = ("--workers", str(plan.workers), "--threads", "1", "--batch", "8", "--deadline", str(plan.deadline))
    keeper = Keeper(home, (disk.folder if disk else home) / "data", port, models, flags)
    await keeper.start()
    try:
        await asyncio.to_thread(_settings, keeper.url)
        world = World(port, plan.deadline, journal)
        report = Report(plan.seed, plan.minutes, plan.workers, world.tally)
        probe = Probe(world)
        await probe.prepare()
        await _all_at_once(plan, Stage(keeper, world, disk), probe, report)
        await probe.again()
        try:
            report.looked_up = await audit(keeper, world)
        except RuntimeError as exc:
            world.fault(AWAY, f"at the end: {exc}")
        report.starts, report.refusals = keeper.starts, keeper.refusals
        world.close()
    finally:
        await keeper.stop()
    report.seconds = perf_counter() - began
    return report


async def _all_at_once(plan: Plan, stage: Stage, probe: Probe, report: Report) -> None:
    world, keeper = stage.world, stage.keeper
    turns = asyncio.Semaphore(_INGESTS_AT_ONCE)
    lanes = [
        Lane(
            world,
            operations(plan.seed, client, lane, plan.lanes),
            keeper.url,
            feeder=Feeder(world, keeper.feeds / f"{client}-{lane}", keeper.command, keeper.environment, turns),
        )
        for client in CLIENTS
        for lane in range(plan.lanes)
    ]
    async with asyncio.TaskGroup() as group:
        for lane in lanes:
            group.create_task(lane.run())
        if plan.spaces:
            group.create_task(_change_spaces(plan, stage, report))
        await _break(schedule(plan.seed, plan.kinds, plan.seconds), stage, probe, report)
        await asyncio.sleep(max(0.0, plan.seconds - world.now))
        world.ended = True


async def _break(blows: Sequence[Blow], stage: Stage, probe: Probe, report: Report) -> None:
    for blow in blows:
        await asyncio.sleep(max(0.0, blow.at - stage.world.now))
        at, failed = stage.world.now, None
        stage.world.breaking()
        stage.world.note("broken", kind=blow.kind, length=blow.length, beside=blow.beside and blow.beside.kind)
        other = asyncio.create_task(_beside(stage, blow.beside)) if blow.beside else None
        try:
            await strike(stage, blow)
        except NothingToBreak:
            failed = "there was nothing to break"
        except (RuntimeError, OSError, psycopg.Error) as exc:
            failed = f"{type(exc).__name__}: {exc}"
        if other is not None:
            await other
        stage.world.mended()
        stage.world.note("mended", kind=blow.kind, failed=failed)
        again = await probe.again()
        stage.world.note("again", seconds=again)
        beside = blow.beside.kind if blow.beside else None
        report.struck.append(Struck(round(at, 2), blow.kind, blow.length, beside, None if failed else again, failed))


async def _beside(stage: Stage, blow: Blow) -> None:
    await asyncio.sleep(blow.at)
    with contextlib.suppress(NothingToBreak):
        await strike(stage, blow)


async def _change_spaces(plan: Plan, stage: Stage, report: Report) -> None:
    for at, kill_after in space_changes(plan.seed, plan.seconds):
        await until(lambda at=at: stage.world.now >= at or stage.world.ended, plan.seconds * 10, "the run did not end")
        if stage.world.ended:
            return
        try:
            await change(stage.keeper, stage.world, kill_after, report.changes)
        except RuntimeError as exc:
            stage.world.fault(AWAY, f"while the space was changed: {exc}")


def _settings(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in _SETTINGS:
            connection.execute(statement.encode())
        connection.execute("SELECT pg_reload_conf()")
