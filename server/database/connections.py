"""Connections to the database: a server's pool, and single connections for commands and for the start of a server."""

from __future__ import annotations

import logging
import select
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import psycopg
from pgvector.psycopg import register_vector_async
from psycopg import AsyncConnection, conninfo
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool

from server.database import session
from server.database.session import AsyncSessionConnection, SessionConnection
from server.errors import DatabaseUnusable
from server.settings import Pooling, Settings

_log = logging.getLogger(__name__)

Pool = AsyncConnectionPool[AsyncSessionConnection]

MOST_WAITING = 256
"""Callers that wait for a connection; more are refused at once."""

# Poolers know the encoding as well, so it can be said at once.
_AS_ALWAYS: Mapping[str, Any] = {"autocommit": True, "client_encoding": "UTF8"}
_CONNECTED_WITHIN_SECONDS = 10


def open_pool(
    url: str, *, min_size: int, max_size: int, timeout: float, longest: float = 30.0, pooling: Pooling = "auto"
) -> Pool:
    """A pool of autocommit connections that know pgvector's types; closed until entered with `async with`.

    `timeout`: seconds that a caller waits for a connection; `longest`: seconds that a statement may run; `pooling`:
    what a pooler between us and PostgreSQL gives a connection (see session.py). A connection is checked before it is
    lent, so that one that a restart of PostgreSQL broke is replaced before a caller gets it.
    """
    return AsyncConnectionPool(
        url,
        open=False,
        min_size=min_size,
        max_size=max_size,
        timeout=timeout,
        max_waiting=MOST_WAITING,
        name="catalogue",
        connection_class=AsyncSessionConnection,
        kwargs={**_AS_ALWAYS, "connect_timeout": max(2, round(timeout))},
        configure=partial(_configure, longest=longest, pooling=pooling),
        check=_check,
        # The pool doubles its pauses between attempts; after an outage of minutes the next attempt would be minutes
        # away. Giving up soon and checking the pool again keeps the pauses within a few seconds.
        reconnect_timeout=3.0,
        reconnect_failed=_check_pool,
    )


async def _configure(connection: AsyncSessionConnection, *, longest: float, pooling: Pooling) -> None:
    await session.configure(connection, longest=longest, pooling=pooling)
    await register_vector_async(connection)
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


@dataclass(frozen=True)
class Direct:
    """Where to go with work that one session of PostgreSQL must do throughout; `pooling`: as in `open_pool`."""

    url: str
    pooling: Pooling = "auto"


def direct_of(settings: Settings, url: str) -> Direct:
    """The direct URL that the settings give beside the database's, `url`; that one where they give none."""
    if settings.direct_database_url is not None:
        return Direct(settings.direct_database_url)
    return Direct(url, settings.pooling)


@asynccontextmanager
async def connection_of_its_own(
    url: str, *, pooling: Pooling = "auto", wait: int = _CONNECTED_WITHIN_SECONDS
) -> AsyncIterator[AsyncSessionConnection]:
    """One autocommit connection whose statements may run as long as they need. Raises psycopg's errors.

    `wait`: seconds within which PostgreSQL must have answered. `pooling`: as in `open_pool`.
    """
    opened = await AsyncSessionConnection.connect(url, connect_timeout=wait, prepare_threshold=None, **_AS_ALWAYS)
    async with opened as connection:
        await session.configure(connection, longest=None, pooling=pooling)
        yield connection


@contextmanager
def connect(url: str, *, lasting: bool = False, pooling: Pooling = "auto") -> Iterator[SessionConnection]:
    """One plain autocommit connection, for commands and for the start of a server.

    `lasting`: for work that does not work with another session for each transaction; whether it has one for all of
    them, `per_transaction` says then. `pooling`: as in `open_pool`.

    Raises DatabaseUnusable, in a sentence that never holds the password, when the database cannot be reached or a
    statement fails.
    """
    try:
        password = conninfo.conninfo_to_dict(url).get("password")
    except psycopg.ProgrammingError:
        # The message repeats the URL, so it is left out together with its traceback.
        raise DatabaseUnusable(
            "The database URL cannot be read; it should look like postgresql://user:password@host:5432/name."
        ) from None
    try:
        with SessionConnection.connect(
            url, connect_timeout=_CONNECTED_WITHIN_SECONDS, prepare_threshold=None, **_AS_ALWAYS
        ) as connection:
            session.configure_single(connection, lasting=lasting, pooling=pooling)
            yield connection
    except psycopg.Error as exc:
        reason = str(exc).strip()
        if password:
            reason = reason.replace(str(password), "***")
        raise DatabaseUnusable(f"The database cannot be used: {reason}") from exc
