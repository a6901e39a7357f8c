"""The catalogue is embedded with the other model beside all else, and served with it from then on."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from bench import pictures
from bench.crash.checks import WRONG
from bench.crash.database import Connection
from bench.crash.keeper import Keeper
from bench.crash.waiting import until
from bench.crash.world import World

_MOST_TRIES = 40
_LONGEST_TRY = 240.0
_PAUSE = 1.0
_LONGEST_FILLING = 120.0

_LIVE = "SELECT number FROM twinlens_spaces WHERE live"
_MISSING = """
SELECT count(*) FROM media m WHERE m.kind = 'image' AND NOT EXISTS (
    SELECT FROM twinlens_space_{number} v WHERE v."mediaId" = m.id
)
"""


@dataclass(slots=True)
class Changes:
    """What became of the changes of the space. Times in seconds."""

    done: int = 0
    tries: int = 0
    killed: int = 0
    given_up: int = 0
    seconds: float = 0.0
    """Of all changes, from the first try until the new servers had every vector."""


async def change(keeper: Keeper, world: World, kill_after: float | None, changes: Changes) -> None:
    """Embed with the other model until that has succeeded, and serve it. `kill_after`: when the first try is killed."""
    began, wanted, code = perf_counter(), keeper.other, -1
    world.changing_space = True
    try:
        for attempt in range(_MOST_TRIES):
            # The first try begins whatever runs: where the server is away just then, reembed runs PostgreSQL itself.
            if attempt:
                await until(keeper.ready, _LONGEST_TRY, "the server did not become ready")
            changes.tries += 1
            code = await _reembed(keeper, world, wanted, kill_after if attempt == 0 else None, changes)
            if code == 0 or world.ended:
                break
            await asyncio.sleep(_PAUSE)
        if code != 0:
            changes.given_up += 1
            if not world.ended:
                world.fault(WRONG, f"reembed did not succeed in {_MOST_TRIES} tries")
            return
        await _serve(keeper, wanted)
        changes.done += 1
    finally:
        await _await_vectors(keeper, world)
        world.changing_space = False
        for catalogue in world.catalogues.values():
            catalogue.late.clear()
        changes.seconds += perf_counter() - began
        world.note("space", served=keeper.served.name)


async def _reembed(keeper: Keeper, world: World, wanted: Path, kill_after: float | None, changes: Changes) -> int:
    with keeper.log.open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *keeper.command("reembed", "--artifact", wanted),
            cwd=pictures.ROOT,
            env=keeper.environment,
            stdout=log,
            stderr=log,
        )
    try:
        return await asyncio.wait_for(process.wait(), kill_after or _LONGEST_TRY)
    except TimeoutError:
        changes.killed += 1
        return -1
    finally:
        if process.returncode is None:
            keeper.signal(process.pid, signal.SIGKILL)
            await process.wait()
        world.note("reembed", code=process.returncode)


async def _serve(keeper: Keeper, wanted: Path) -> None:
    """Have the server started with that model, unless it was already, after a death."""
    pid = keeper.parent
    if keeper.served != wanted:
        keeper.serve_other_model()
        if pid is not None:
            keeper.signal(pid, signal.SIGTERM)
        await until(lambda: keeper.parent != pid, _LONGEST_TRY, "the server did not stop")
    await until(keeper.ready, _LONGEST_TRY, "the server did not become ready")


async def _await_vectors(keeper: Keeper, world: World) -> None:
    """Wait until every picture has a vector in the live space, as the servers promise to see to."""
    database = Connection(keeper.url)
    deadline = perf_counter() + _LONGEST_FILLING
    missing = None
    try:
        while perf_counter() < deadline:
            live = await database.ask(_LIVE)
            rows = await database.ask(_MISSING.format(number=live[0][0])) if live else None
            missing = rows[0][0] if rows else None
            if missing == 0:
                return
            await asyncio.sleep(0.5)
    finally:
        await database.close()
    world.fault(WRONG, f"{missing} pictures have no vector in the live space after {_LONGEST_FILLING:g} s")
