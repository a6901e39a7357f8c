"""Connections to the database: a server's pool, and single connections for commands and for the start of a server."""

from __future__ import annotations

import logging
import select
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import psycopg
from pgvector.psycopg import register_vector_async
from psycopg import AsyncConnection, Connection, conninfo
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool

from server.database.locks import LOCK_TIMEOUT_SECONDS
from server.database.queries import Queries
from server.errors import DatabaseUnfit, DatabaseUnusable

_log = logging.getLogger(__name__)

Pool = AsyncConnectionPool[AsyncConnection[TupleRow]]

MOST_WAITING = 256
"""Callers that wait for a connection; more are refused at once."""


def open_pool(url: str, *, min_size: int, max_size: int, timeout: float, longest: float = 30.0) -> Pool:
    """A pool of autocommit connections that know pgvector's types; closed until entered with `async with`.

    `timeout`: seconds that a caller waits for a connection; `longest`: seconds that a statement may run. A connection
    is checked before it is lent, so that one that a restart of PostgreSQL broke is replaced before a caller gets it.
    """
    return AsyncConnectionPool(
        url,
        open=False,
        min_size=min_size,
        max_size=max_size,
        timeout=timeout,
        max_waiting=MOST_WAITING,
        name="catalogue",
        kwargs={"autocommit": True, "connect_timeout": max(2, round(timeout))},
        configure=partial(_configure, longest=longest),
        check=_check,
        # The pool doubles its pauses between attempts; after an outage of minutes the next attempt would be minutes
        # away. Giving up soon and checking the pool again keeps the pauses within a few seconds.
        reconnect_timeout=3.0,
        reconnect_failed=_check_pool,
    )


async def _configure(connection: AsyncConnection[TupleRow], *, longest: float) -> None:
    await widen_search_path(connection)
    await register_vector_async(connection)
    await connection.execute(f"SET lock_timeout = {round(LOCK_TIMEOUT_SECONDS * 1000)}".encode())
    await connection.execute(f"SET statement_timeout = {round(longest * 1000)}".encode())
    # A partial index is chosen only when the plan knows the client; a generic plan, made after five runs, does not.
    await connection.execute("SET plan_cache_mode = force_custom_plan")
    # Compiling a plan takes longer than any search of ours.
    await connection.execute("SET jit = off")
    if not connection.autocommit:
        await connection.commit()


async def _check(connection: AsyncConnection[TupleRow]) -> None:
    """Check a connection only where there is a doubt: an idle one sends nothing, unless PostgreSQL closes it."""
    waiting = select.poll()
    waiting.register(connection.fileno(), select.POLLIN)
    if waiting.poll(0):
        await AsyncConnectionPool.check_connection(connection)


async def _check_pool(pool: AsyncConnectionPool[Any]) -> None:
    await pool.check()


async def widen_search_path(connection: AsyncConnection[TupleRow]) -> None:
    """Have the session find pgvector, and the catalogue, in whichever schema they lie."""
    await connection.execute(Queries.read("preconditions.sql")["widen_search_path"])


async def try_connection(url: str, *, patience: float, longest: float) -> None:
    """Open a connection as the pool does, within so many seconds, and close it.

    Raises DatabaseUnfit when the connection is there and cannot be set up, which another try would not change, and
    DatabaseUnusable when the database cannot be reached at the moment.
    """
    try:
        within = max(2, round(patience))
        async with await AsyncConnection.connect(url, autocommit=True, connect_timeout=within) as connection:
            await _configure(connection, longest=longest)
    except psycopg.OperationalError as exc:
        raise DatabaseUnusable(f"The database cannot be used: {_reason(exc, url)}") from exc
    except psycopg.Error as exc:
        raise DatabaseUnfit(f"Connections to the database cannot be set up for searches: {_reason(exc, url)}") from exc


@contextmanager
def connect(url: str) -> Iterator[Connection[TupleRow]]:
    """One plain autocommit connection, for commands and for the start of a server.

    Raises DatabaseUnusable, in a sentence that never holds the password, when the database cannot be reached or a
    statement fails; DatabaseUnfit where waiting would not change that.
    """
    try:
        conninfo.conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        # The message repeats the URL, so it is left out together with its traceback.
        raise DatabaseUnusable(
            "The database URL cannot be read; it should look like postgresql://user:password@host:5432/name."
        ) from None
    try:
        # Whatever the database's encoding is, sentences about it are read as text.
        with psycopg.connect(url, autocommit=True, connect_timeout=10, client_encoding="utf8") as connection:
            connection.execute(Queries.read("preconditions.sql")["widen_search_path"])
            yield connection
    except psycopg.ProgrammingError as exc:  # a right or a table is missing, say: the same statement would fail again
        raise DatabaseUnfit(f"The database cannot be used: {exc.diag.message_primary or _reason(exc, url)}") from exc
    except psycopg.Error as exc:
        raise DatabaseUnusable(f"The database cannot be used: {_reason(exc, url)}") from exc


def _reason(error: psycopg.Error, url: str) -> str:
    """What went wrong, without the password of the URL."""
    reason = str(error).strip()
    password = conninfo.conninfo_to_dict(url).get("password")
    return reason.replace(str(password), "***") if password else reason
