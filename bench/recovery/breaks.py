"""What is broken: each function breaks a part, and returns the moment from which an answer was possible again."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter

import psycopg

from bench import cpu
from bench.serving import Serving
from server.postgres.server import EmbeddedPostgres
from tests.support.standby import Standby, kill

_HANG_SECONDS = 3.0  # that PostgreSQL does not answer, and that the store is away
_PATIENCE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Stage:
    """What is broken."""

    server: Serving
    primary: EmbeddedPostgres
    standby: Standby
    url: str
    """Of whichever of the two takes writes."""


def _postmaster(how: signal.Signals) -> Callable[[Stage], float]:
    def end(stage: Stage) -> float:
        pid = stage.primary.pid or 0
        os.kill(pid, how)
        _await(lambda: stage.primary.pid not in (pid, None))
        return _answering(stage)

    return end


def _connections(stage: Stage) -> float:
    with psycopg.connect(stage.url, autocommit=True) as connection:
        others = "FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        connection.execute(f"SELECT pg_terminate_backend(pid) {others}".encode())
    return perf_counter()


def _hang(stage: Stage) -> float:
    processes = cpu.tree(stage.primary.pid or 0)
    for pid in processes:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(_HANG_SECONDS)
    for pid in reversed(processes):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    return _answering(stage)


def _worker(stage: Stage) -> float:
    os.kill(_worker_of(stage.server), signal.SIGKILL)
    return perf_counter()


def _worker_twice(stage: Stage) -> float:
    killed = _worker_of(stage.server)
    os.kill(killed, signal.SIGKILL)
    _await(lambda: _worker_of(stage.server) not in (killed, 0))
    time.sleep(0.5)  # it is starting
    return _worker(stage)


def _failover(stage: Stage) -> float:
    # Nothing is acknowledged that the standby does not have: what is lost by a failover of another kind is not ours.
    with psycopg.connect(stage.primary.url, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        connection.execute("SELECT pg_reload_conf()")
        in_step = b"SELECT FROM pg_stat_replication WHERE sync_state = 'sync'"
        _await(lambda: connection.execute(in_step).rowcount == 1)
    time.sleep(1.0)
    kill(stage.primary)
    stage.standby.promote()
    return _answering(stage)


def _store(stage: Stage) -> float:
    there, away = stage.server.data / "media", stage.server.data / "media.away"
    there.rename(away)
    time.sleep(_HANG_SECONDS)
    # Whatever was made in its place must not be in the way.
    if there.exists():
        there.rename(stage.server.data / "media.wrong")
    away.rename(there)
    return perf_counter()


KINDS: dict[str, tuple[str, Callable[[Stage], float]]] = {
    "restart": ("PostgreSQL restarted", _postmaster(signal.SIGINT)),
    "kill-postgres": ("PostgreSQL killed (-9)", _postmaster(signal.SIGKILL)),
    "connections": ("all connections ended by the database", _connections),
    "hang": (f"PostgreSQL stopped for {_HANG_SECONDS:g} s", _hang),
    "worker": ("worker killed (-9)", _worker),
    "worker-twice": ("worker killed twice", _worker_twice),
    "store": (f"store away for {_HANG_SECONDS:g} s", _store),
    "failover": ("failover to a standby", _failover),
}


def _answering(stage: Stage) -> float:
    """Wait until a plain connection is answered by the server that takes writes."""
    while True:
        with suppress(psycopg.Error), psycopg.connect(stage.url, autocommit=True, connect_timeout=2) as connection:
            connection.execute("SELECT 1")
            return perf_counter()
        time.sleep(0.005)


def _worker_of(server: Serving) -> int:
    return next((pid for pid in cpu.tree(server.pid) if "spawn_main" in cpu.title(pid)), 0)


def _await(condition: Callable[[], bool]) -> None:
    deadline = perf_counter() + _PATIENCE_SECONDS
    while not condition():
        if perf_counter() > deadline:
            raise RuntimeError("what should have happened then did not happen")
        time.sleep(0.005)
