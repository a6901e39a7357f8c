"""Connections to the database: a server's pool, and single connections for commands and for the start of a server."""

from __future__ import annotations

import logging
import select
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import psycopg
from pgvector.psycopg import register_vector_async
from psycopg import AsyncConnection, Connection, conninfo
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool

from server.database.locks import LOCK_TIMEOUT_SECONDS
from server.errors import DatabaseUnusable
from server.secrets import redacted, secrets_of

_log = logging.getLogger(__name__)

Pool = AsyncConnectionPool[AsyncConnection[TupleRow]]

MOST_WAITING = 256
"""Callers that wait for a connection; more are refused at once."""


def open_pool(
    url: str | Callable[[], str], *, min_size: int, max_size: int, timeout: float, longest: float = 30.0
) -> Pool:
    """A pool of autocommit connections that know pgvector's types; closed until entered with `async with`.

    `url`: or a function that gives it, which is called for each new connection, so that a password may change.
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


def current_url(pool: Pool) -> str:
    """The URL that the pool's next connection would use."""
    url: str | Callable[[], str] = pool.conninfo  # type: ignore[assignment]  # ours is never asynchronous
    return url() if callable(url) else url


async def _configure(connection: AsyncConnection[TupleRow], *, longest: float) -> None:
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


@contextmanager
def connect(url: str) -> Iterator[Connection[TupleRow]]:
    """One plain autocommit connection, for commands and for the start of a server.

    Raises DatabaseUnusable, in a sentence that never holds the password, when the database cannot be reached or a
    statement fails.
    """
    try:
        conninfo.conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        # The message repeats the URL, so it is left out together with its traceback.
        raise DatabaseUnusable(
            "The database URL cannot be read; it should look like postgresql://user:password@host:5432/name."
        ) from None
    try:
        with psycopg.connect(url, autocommit=True, connect_timeout=10) as connection:
            yield connection
    except psycopg.Error as exc:
        reason = redacted(str(exc).strip(), secrets_of(url))
        raise DatabaseUnusable(f"The database cannot be used: {reason}") from exc
