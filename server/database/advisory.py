"""Advisory locks that are held while something of ours goes on: for longer than a statement, and at most till the end
of the process that holds one.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
from psycopg.rows import scalar_row

from server.database.connections import connection_of_its_own
from server.database.session import AsyncSessionConnection
from server.settings import Pooling

Lock = tuple[int, int]


@asynccontextmanager
async def held_if_free(url: str, lock: Lock, *, pooling: Pooling = "auto") -> AsyncIterator[bool]:
    """Whether the lock was free, and is held by a connection of its own while the block lasts.

    Behind a pooler of transactions a lock of the session would stay with the pooler's connection when ours ends, so
    there it is the lock of a transaction that stays open; `let_go_of_snapshot` sees to it that it holds up no vacuum.
    Raises psycopg's errors until the block begins.
    """
    async with connection_of_its_own(url, pooling=pooling) as connection:
        if connection.per_transaction is None:
            locked = await _ask(connection, "SELECT pg_try_advisory_lock(%s, %s)", lock)
            yield locked
            if locked:
                await _release(connection, lock)
            return
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(connection.transaction())
            locked = await _ask(connection, "SELECT pg_try_advisory_xact_lock(%s, %s)", lock)
            await let_go_of_snapshot(connection)
            open_transaction = stack.pop_all()
        try:
            yield locked
        finally:
            with contextlib.suppress(psycopg.Error):  # the lock has gone with the connection, and the work is done
                await open_transaction.aclose()


@asynccontextmanager
async def held(url: str, lock: Lock, *, pooling: Pooling = "auto") -> AsyncIterator[None]:
    """Hold the lock while the block lasts, after waiting for whoever else holds it.

    Behind a pooler of transactions it is not taken. A connection that waits there, and one that holds it, would each
    keep one of the pooler's few, and what is done under the lock may then find none left. So this is for work that
    others may do at the same time, only to no purpose. Raises psycopg's errors until the block begins.
    """
    async with connection_of_its_own(url, pooling=pooling) as connection:
        if connection.per_transaction is None:
            await connection.execute("SELECT pg_advisory_lock(%s, %s)", lock)
        yield
        if connection.per_transaction is None:
            await _release(connection, lock)


async def let_go_of_snapshot(connection: AsyncSessionConnection) -> None:
    """Have a transaction that stays open keep no snapshot, so that vacuum goes on removing what others have deleted.

    The last statement that had parameters keeps one, until another statement comes
    (findings/postgresql-parameters-hold-up-vacuum.sh). This one has none.
    """
    await connection.execute("SELECT")


async def _release(connection: AsyncSessionConnection, lock: Lock) -> None:
    """Give it back now. It would go with the session as well, but a pooler ends that some time after the connection."""
    with contextlib.suppress(psycopg.Error):  # then it has gone with the connection, and the work is done
        await connection.execute("SELECT pg_advisory_unlock(%s, %s)", lock)


async def _ask(connection: AsyncSessionConnection, query: str, lock: Lock) -> bool:
    cursor = connection.cursor(row_factory=scalar_row)
    return bool(await (await cursor.execute(query.encode(), lock)).fetchone())
