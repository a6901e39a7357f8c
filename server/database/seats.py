"""Seats: numbers that are locked for as long as the process lives that has drawn one, and by which it hears of news.

What a process takes in hand it marks with its number. When the process ends, also by SIGKILL or with its machine,
PostgreSQL releases the lock, and whoever looks sees that nobody has that in hand any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
from psycopg.rows import scalar_row

from server.database.advisory import let_go_of_snapshot
from server.database.cancelling import end
from server.database.connections import connection_of_its_own
from server.database.session import AsyncSessionConnection
from server.settings import Pooling

# Behind a pooler of transactions the seat is a transaction that stays open: a sign of life that often keeps the pooler
# from ending it, and shows when the connection is gone.
_SIGN_OF_LIFE_SECONDS = 15.0

_HIGHEST = 2**31 - 1


class Seat:
    """A number that is locked, and what is heard meanwhile."""

    def __init__(self, number: int, *, hears: bool) -> None:
        self.number = number
        self.hears = hears
        """Whether news are heard; behind a pooler of transactions none are."""
        self.news = asyncio.Event()
        """Set when a notice has come, and when the seat is lost. Whoever waits for it clears it."""
        self.lost = False
        """Whether the connection has ended that the lock belongs to: others may take what was marked."""

    async def watch(self, connection: AsyncSessionConnection) -> None:
        """Hear of news, until the connection ends."""
        try:
            if self.hears:
                async for _ in connection.notifies():
                    self.news.set()
            else:
                while True:
                    await asyncio.sleep(_SIGN_OF_LIFE_SECONDS)
                    await let_go_of_snapshot(connection)
        except psycopg.Error:
            self.lost = True
            self.news.set()


@asynccontextmanager
async def seat(url: str, kind: int, listen: bytes, *, pooling: Pooling = "auto") -> AsyncIterator[Seat]:
    """Draw a number and hold it, on a connection of its own, while the block lasts.

    `kind`: the first of the two integers of the advisory lock; `listen`: the statement by which news are heard. Raises
    psycopg's errors until the block begins.
    """
    async with connection_of_its_own(url, pooling=pooling) as connection, contextlib.AsyncExitStack() as stack:
        lasting = connection.per_transaction is None
        if not lasting:
            await stack.enter_async_context(connection.transaction())
        query = b"SELECT pg_try_advisory_lock(%s, %s)" if lasting else b"SELECT pg_try_advisory_xact_lock(%s, %s)"
        cursor = connection.cursor(row_factory=scalar_row)
        while True:
            number = 1 + secrets.randbelow(_HIGHEST)
            if await (await cursor.execute(query, (kind, number))).fetchone():
                break
        if lasting:
            await connection.execute(listen)
        else:
            await let_go_of_snapshot(connection)
        one = Seat(number, hears=lasting)
        watching = asyncio.create_task(one.watch(connection))
        stack.push_async_callback(end, watching)
        closing = stack.pop_all()
        try:
            yield one
        finally:
            with contextlib.suppress(psycopg.Error):  # the lock has gone with the connection
                await closing.aclose()
                if lasting:  # a pooler ends the session some time after the connection
                    await connection.execute("SELECT pg_advisory_unlock(%s, %s)", (kind, number))
