"""Work on the pool's connections: what to do when a connection dies, or another transaction is in the way."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter
from typing import Any, TypeVar

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import BaseRowFactory, TupleRow

from server.database import once
from server.database.failures import translated
from server.database.lent import Lent
from server.database.outcome import writing
from server.database.pool import Pool
from server.database.spans import CONNECTION, of_work
from server.errors import OutcomeUnknown
from server.tracing import record

_log = logging.getLogger(__name__)

T = TypeVar("T")

# What was prepared on a connection is not there: a pooler has begun to give it other sessions. Nothing was done then.
_OF_ANOTHER_SESSION = (psycopg.errors.InvalidSqlStatementName, psycopg.errors.DuplicatePreparedStatement)

Work = Callable[[AsyncConnection[TupleRow]], Awaitable[T]]


class Runner:
    """Runs work on a connection of the pool, and runs it once more where that is safe.

    Every method raises psycopg's errors in the words of `server.errors`, such as CatalogueUnavailable.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @property
    def role(self) -> str | None:
        """The role that the work runs as, which sees the rows of one client; None where it sees those of all."""
        return self._pool.role

    @property
    def url(self) -> str:
        """The database's URL, for work that needs a connection of its own."""
        return self._pool.url

    async def read(
        self, work: Work[T], name: str = "read", *, client: str | None = None, patience: float | None = None
    ) -> T:
        """Run work that only reads. When its connection dies, the work runs once more on another connection.

        `name`: what traces call it. `client`: whose rows it may see; without it none, where the pool has a role.
        `patience`: seconds to wait for a connection; without it, as long as the pool has it.
        """
        with of_work(name):
            return await self._read(work, client, patience)

    async def _read(self, work: Work[T], client: str | None, patience: float | None) -> T:
        for attempt in (1, 2):
            connection: Lent | None = None
            asked = perf_counter()
            with translated():
                try:
                    async with self._pool.connection(patience) as connection:
                        record(CONNECTION, asked)
                        with as_client(connection, client):
                            return await work(connection)
                except _OF_ANOTHER_SESSION:
                    if attempt == 2 or connection is None:
                        raise
                    await self._pool.renew(connection)
                except (psycopg.OperationalError, psycopg.InterfaceError) as exc:
                    if attempt == 2 or connection is None or not connection.broken:
                        raise
                    _log.warning("a connection to the database died and is replaced: %s", exc)
        raise AssertionError("unreachable: the second attempt returns or raises")

    async def write(
        self,
        work: Work[T],
        name: str = "write",
        *,
        client: str | None = None,
        answers: Callable[[T], object] | None = None,
    ) -> T:
        """Run work that writes, for this client alone where one is given. `name`: what traces call it. `answers`: what
        the answer to the request is made of; where it is to be kept (once.py), that is part of the same transaction.

        It runs once more when another transaction was in the way and nothing was written.

        A unique violation may come from a twin of this very request (ON CONFLICT watches one index; a row that another
        transaction is just inserting can trip another index first); the second time the twin is there to be found. A
        connection that allows no writes may lead to a server that was the primary until a moment ago; the second time
        runs on a new one. Raises OutcomeUnknown when the connection breaks.
        """
        with of_work(name):
            keeping = once.current() if answers is not None else None
            if keeping is None or answers is None:
                return await self._try_to_write(work, client)
            made = await self._try_to_write(_with_answer(work, answers, keeping), client)
            keeping.kept = True
            return made

    async def _try_to_write(self, work: Work[T], client: str | None) -> T:
        for attempt in (1, 2):
            asked = perf_counter()
            with translated():
                try:
                    async with self._pool.connection() as connection:
                        record(CONNECTION, asked)
                        with as_client(connection, client):
                            return await self._write(work, connection)
                except (
                    *_OF_ANOTHER_SESSION,
                    psycopg.errors.ReadOnlySqlTransaction,
                    psycopg.errors.UniqueViolation,
                    psycopg.errors.DeadlockDetected,
                    psycopg.errors.SerializationFailure,
                ):
                    if attempt == 2:
                        raise
        raise AssertionError("unreachable: the second attempt returns or raises")

    async def _write(self, work: Work[T], connection: Lent) -> T:
        with writing():
            try:
                return await work(connection)
            except (psycopg.errors.ReadOnlySqlTransaction, *_OF_ANOTHER_SESSION):
                await self._pool.renew(connection)
                raise
            except (psycopg.OperationalError, psycopg.InterfaceError) as exc:
                if connection.broken:
                    raise OutcomeUnknown from exc
                raise

    async def fetch(
        self,
        statement: bytes,
        parameters: Mapping[str, Any],
        row_factory: BaseRowFactory[T],
        name: str = "fetch",
        *,
        client: str | None = None,
    ) -> list[T]:
        """The rows of a statement that only reads, as `read` has it."""
        return await self.read(fetching(statement, parameters, row_factory), name, client=client)


def _with_answer(work: Work[T], answers: Callable[[T], object], keeping: once.Once) -> Work[T]:
    """The work, and that its answer is kept, as one transaction."""

    async def both(connection: AsyncConnection[TupleRow]) -> T:
        async with connection.transaction():
            made = await work(connection)
            await keeping.keep(connection, answers(made))
        return made

    return both


@contextmanager
def as_client(connection: AsyncConnection[TupleRow], client: str | None) -> Iterator[None]:
    """The one door: what runs on the connection in this block sees and writes the rows of this client alone.

    Where the connection has no role, no policy asks for the client, and it is not said.
    """
    if not isinstance(connection, Lent):
        raise TypeError("a connection of a pool is needed")
    connection.client = client if connection.role is not None else None
    try:
        yield
    finally:
        connection.client = None


def fetching(
    statement: bytes, parameters: Mapping[str, Any], row_factory: BaseRowFactory[T]
) -> Callable[[AsyncConnection[TupleRow]], Awaitable[list[T]]]:
    """Work for `Runner.read`: the rows of a statement, as the factory makes them."""

    async def fetch(connection: AsyncConnection[TupleRow]) -> list[T]:
        cursor = connection.cursor(row_factory=row_factory)
        return await (await cursor.execute(statement, parameters)).fetchall()

    return fetch
