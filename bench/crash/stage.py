"""Carrying out the faults: each function breaks a part, keeps it broken, and gives it back."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from time import perf_counter

import psycopg

from bench import cpu
from bench.crash.checks import SERVER_ERROR
from bench.crash.disk import Disk
from bench.crash.faults import Blow
from bench.crash.keeper import Keeper
from bench.crash.operations import CLIENTS, PRODUCTS, product_id
from bench.crash.talk import ask
from bench.crash.waiting import until
from bench.crash.world import World

_CROWD = 80
_MOST_CONNECTIONS = 150
_LEFT_BYTES = 256 << 10
_CONNECT_SECONDS = 3
_STOP_SECONDS = 60.0
_LOG_FILES = 12


class NothingToBreak(Exception):
    """The part is not there at this moment: what broke before has not come back yet."""


@dataclass(frozen=True, slots=True)
class Stage:
    """What is broken. `disk`: None where none of the run's own could be made."""

    keeper: Keeper
    world: World
    disk: Disk | None


async def strike(stage: Stage, blow: Blow) -> None:
    """Break, and mend what does not mend itself. Raises NothingToBreak, RuntimeError."""
    await _KINDS[blow.kind](stage, blow)


async def _worker(stage: Stage, blow: Blow) -> None:
    _kill(stage, stage.keeper.workers(), blow.pick)


async def _parent(stage: Stage, blow: Blow) -> None:
    _kill(stage, [stage.keeper.parent] if stage.keeper.parent else [], blow.pick)


async def _stop(stage: Stage, blow: Blow) -> None:
    pid = stage.keeper.parent
    if pid is None or not stage.keeper.signal(pid, signal.SIGTERM):
        raise NothingToBreak
    await until(lambda: stage.keeper.parent != pid, _STOP_SECONDS, "the server did not stop")


async def _backend(stage: Stage, blow: Blow) -> None:
    _kill(stage, stage.keeper.backends(), blow.pick)


async def _postmaster(stage: Stage, blow: Blow) -> None:
    pid = stage.keeper.postmaster()
    _kill(stage, [pid] if pid else [], blow.pick)


def _kill(stage: Stage, pids: list[int], pick: float) -> None:
    if not pids or not stage.keeper.signal(pids[int(pick * len(pids))], signal.SIGKILL):
        raise NothingToBreak


async def _pause(stage: Stage, blow: Blow) -> None:
    first = stage.keeper.postmaster()
    if first is None:
        raise NothingToBreak
    stopped = cpu.tree(first)
    for pid in stopped:
        stage.keeper.signal(pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(blow.length)
    finally:
        for pid in reversed(stopped):
            stage.keeper.signal(pid, signal.SIGCONT)


async def _disk(stage: Stage, blow: Blow) -> None:
    if stage.disk is None:
        raise NothingToBreak
    await asyncio.to_thread(stage.disk.fill, int(blow.pick * _LEFT_BYTES))
    try:
        began = perf_counter()
        if blow.pick >= 0.5:
            await asyncio.to_thread(_use_up_log, stage.keeper.url)
        await asyncio.sleep(max(0.0, blow.length - (perf_counter() - began)))
    finally:
        await asyncio.to_thread(stage.disk.free)


def _use_up_log(url: str) -> None:
    """Write until PostgreSQL needs a new file for its log: it ends then, and cannot start while there is no room."""
    with contextlib.suppress(psycopg.Error), psycopg.connect(url, autocommit=True, connect_timeout=3) as connection:
        for _ in range(_LOG_FILES):
            connection.execute("SELECT pg_logical_emit_message(true, 'crash', 'a full disk')")
            connection.execute("SELECT pg_switch_wal()")


async def _store(stage: Stage, blow: Blow) -> None:
    there, away = stage.keeper.data / "media", stage.keeper.data / "media.away"
    there.rename(away)
    try:
        await asyncio.sleep(blow.length)
    finally:
        if there.exists():  # whatever was made in its place must not be in the way
            there.rename(stage.keeper.data / f"media.wrong.{perf_counter():.3f}")
        away.rename(there)


async def _pool(stage: Stage, blow: Blow) -> None:
    """Every connection of the server waits for a lock, and more callers come than it has connections."""
    async with _held(lambda: _locked(stage.keeper.url)):
        began = perf_counter()
        port, world = stage.world.port, stage.world
        paths = [f"/v1/products/{product_id(n % PRODUCTS)}?clientId={CLIENTS[n % 3]}" for n in range(_CROWD)]
        answers = await asyncio.gather(*(ask(port, "GET", path) for path in paths))
        for answer in answers:
            world.tally.answers[answer.label] += 1
            if answer.status >= 500 and answer.status != 503:
                world.fault(SERVER_ERROR, f"{answer.label} in a crowd: {answer.sentence}")
        await asyncio.sleep(max(0.0, blow.length - (perf_counter() - began)))


async def _connections(stage: Stage, blow: Blow) -> None:
    """Others hold every connection that PostgreSQL has, and the server's own are ended."""
    async with _held(lambda: _taken(stage.keeper.url)):
        await asyncio.sleep(blow.length)


_KINDS: dict[str, Callable[[Stage, Blow], Awaitable[None]]] = {
    "worker": _worker,
    "parent": _parent,
    "stop": _stop,
    "backend": _backend,
    "postmaster": _postmaster,
    "pause": _pause,
    "disk": _disk,
    "pool": _pool,
    "connections": _connections,
    "store": _store,
}


@contextlib.contextmanager
def _locked(url: str) -> Iterator[None]:
    with psycopg.connect(url, connect_timeout=_CONNECT_SECONDS) as connection:
        connection.execute("SET lock_timeout = '5s'")
        connection.execute("LOCK TABLE products IN ACCESS EXCLUSIVE MODE")
        yield
        connection.rollback()


@contextlib.contextmanager
def _taken(url: str) -> Iterator[None]:
    with contextlib.ExitStack() as stack:

        def take() -> None:
            with contextlib.suppress(psycopg.OperationalError):
                for _ in range(_MOST_CONNECTIONS):
                    one = psycopg.connect(
                        url, autocommit=True, application_name="crash", connect_timeout=_CONNECT_SECONDS
                    )
                    stack.callback(one.close)
                    held.append(one)

        held: list[psycopg.Connection[psycopg.rows.TupleRow]] = []
        take()
        others = "FROM pg_stat_activity WHERE backend_type = 'client backend' AND application_name <> 'crash'"
        if held:
            held[0].execute(f"SELECT pg_terminate_backend(pid) {others}".encode())
        take()
        yield


@contextlib.asynccontextmanager
async def _held(block: Callable[[], contextlib.AbstractContextManager[None]]):  # type: ignore[no-untyped-def]
    """Hold a block of blocking code open in a thread. Raises NothingToBreak where the database does not answer."""
    entered, leave = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def hold() -> None:
        with block():
            loop.call_soon_threadsafe(entered.set)
            leave.wait()

    held = asyncio.create_task(asyncio.to_thread(hold))
    entering = asyncio.create_task(entered.wait())
    try:
        await asyncio.wait([held, entering], return_when=asyncio.FIRST_COMPLETED)
        if not entered.is_set():
            raise NothingToBreak
        yield
    finally:
        entering.cancel()
        leave.set()
        with contextlib.suppress(psycopg.Error):
            await held
