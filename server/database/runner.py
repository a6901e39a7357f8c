"""Work on the pool's connections: what to do when a connection dies, or another transaction is in the way."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import BaseRowFactory, TupleRow

from server.database.connections import Pool
from server.database.failures import translated
from server.errors import OutcomeUnknown

_log = logging.getLogger(__name__)

T = TypeVar("T")


class Runner:
    """Runs work on a connection of the pool, and runs it once more where that is safe.

    Every method raises psycopg's errors in the words of `server.errors`, such as CatalogueUnavailable.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @property
    def url(self) -> str:
        """The database's URL, for work that needs a connection of its own."""
        return str(self._pool.conninfo)

    async def read(self, work: Callable[[AsyncConnection[TupleRow]], Awaitable[T]]) -> T:
        """Run work that only reads. When its connection dies, the work runs once more on another connection."""
        for attempt in (1, 2):
            connection: AsyncConnection[TupleRow] | None = None
            with translated():
                try:
                    async with self._pool.connection() as connection:
                        return await work(connection)
                except (psycopg.OperationalError, psycopg.InterfaceError) as exc:
                    if attempt == 2 or connection is None or not connection.broken:
                        raise
                    _log.warning("a connection to the database died and is replaced: %s", exc)
        raise AssertionError("unreachable: the second attempt returns or raises")

    async def write(self, work: Callable[[AsyncConnection[TupleRow]], Awaitable[T]]) -> T:
        """Run work that writes. It runs once more when another transaction was in the way and nothing was written.

        A unique violation may come from a twin of this very request (ON CONFLICT watches one index; a row that another
        transaction is just inserting can trip another index first); the second time the twin is there to be found.
        Raises OutcomeUnknown when the connection breaks.
        """
        for attempt in (1, 2):
            connection: AsyncConnection[TupleRow] | None = None
            with translated():
                try:
                    async with self._pool.connection() as connection:
                        return await work(connection)
                except (
                    psycopg.errors.UniqueViolation,
                    psycopg.errors.DeadlockDetected,
                    psycopg.errors.SerializationFailure,
                ):
                    if attempt == 2:
                        raise
                except (psycopg.OperationalError, psycopg.InterfaceError) as exc:
                    if connection is not None and connection.broken:
                        raise OutcomeUnknown from exc
                    raise
        raise AssertionError("unreachable: the second attempt returns or raises")

    async def fetch(self, statement: bytes, parameters: Mapping[str, Any], row_factory: BaseRowFactory[T]) -> list[T]:
        """The rows of a statement that only reads."""
        return await self.read(fetching(statement, parameters, row_factory))


def fetching(
    statement: bytes, parameters: Mapping[str, Any], row_factory: BaseRowFactory[T]
) -> Callable[[AsyncConnection[TupleRow]], Awaitable[list[T]]]:
    """Work for `Runner.read`: the rows of a statement, as the factory makes them."""

    async def fetch(connection: AsyncConnection[TupleRow]) -> list[T]:
        cursor = connection.cursor(row_factory=row_factory)
        return await (await cursor.execute(statement, parameters)).fetchall()

    return fetch
