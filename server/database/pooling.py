"""Whether a pooler stands between us and PostgreSQL, and whether it gives each transaction another session."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import psycopg
from psycopg import AsyncConnection, ConnectionInfo
from psycopg.rows import TupleRow

from server.database.connecting import connected
from server.database.queries import Queries
from server.settings import Pooling

_log = logging.getLogger(__name__)

# In which order two connections ask which process of PostgreSQL answers them. With a session for each transaction they
# get one that is free: most often the one that the other has just used, or each in turn. In this order neither gives
# each connection always the same.
_ASKED = "abbabaabbaababba"
_ANSWERED_WITHIN_SECONDS = 3.0

_found: dict[str, bool] = {}
"""What was found out, by the address, since each connection asks."""


def forget() -> None:
    """Find it out anew for the next connection: a pooler that was away may have come back with another mode."""
    _found.clear()


def known(info: ConnectionInfo, pid: int, pooling: Pooling) -> bool | None:
    """Whether each transaction of this connection may run in another session of PostgreSQL; None: not known yet.

    `pid`: the process that PostgreSQL says the connection runs in. A pooler told the connection another one, since that
    is its key for cancelling; so where they are equal, no pooler is in between.
    """
    if pooling != "auto":
        return pooling == "transaction"
    if pid == info.backend_pid:
        return False
    return _found.get(info.dsn)


async def find_out(info: ConnectionInfo) -> bool:
    """The same with two more connections, through a pooler that is in between.

    Where it cannot be told how the pooler works, the answer is yes: our statements then work in either case.
    """
    try:
        found = await asyncio.wait_for(_shares_sessions(_parameters(info)), _ANSWERED_WITHIN_SECONDS)
    except (TimeoutError, psycopg.Error) as exc:
        _log.warning(
            "A pooler is in front of the database, and how it pools could not be found out (%s); it is taken to pool "
            "transactions. TWINLENS_POOLING=session or TWINLENS_POOLING=transaction says it.",
            str(exc) or "it gave no second connection",
        )
        return True
    if info.dsn not in _found:
        _log.info(
            "A pooler is in front of the database, which gives each %s a session of PostgreSQL.",
            "transaction" if found else "connection",
        )
    _found[info.dsn] = found
    return found


def _parameters(info: ConnectionInfo) -> dict[str, Any]:
    """How to connect to the very address of this connection, once more."""
    return {**info.get_parameters(), "host": info.host, "port": info.port, "password": info.password}


async def _shares_sessions(parameters: dict[str, Any]) -> bool:
    """Whether a process of PostgreSQL answers two connections, or two processes answer one. Raises psycopg.Error."""
    async with await _connect(parameters) as one, await _connect(parameters) as other:
        connections = {"a": one, "b": other}
        seen: dict[int, str] = {}
        own: dict[str, int] = {}
        for name in _ASKED:
            cursor = await connections[name].execute(_QUERIES["process"])
            ((pid,),) = await cursor.fetchall()
            if seen.setdefault(pid, name) != name or own.setdefault(name, pid) != pid:
                return True
        return False


async def _connect(parameters: dict[str, Any]) -> AsyncConnection[TupleRow]:
    return await connected(AsyncConnection, autocommit=True, prepare_threshold=None, **parameters)


_QUERIES = Queries.read("session.sql")
