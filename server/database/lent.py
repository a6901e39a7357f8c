"""A connection of a pool: it notices that its server has gone silent."""

from __future__ import annotations

import select
from typing import TypeVar

import psycopg
from psycopg import generators
from psycopg.abc import PQGen
from psycopg.errors import _WaitTimeout

from server.database.session import AsyncSessionConnection

T = TypeVar("T")

_PROBE_SECONDS = 0.3
"""Within which a server must give a sign of life."""


class Lent(AsyncSessionConnection):
    """A connection of a pool. It waits for the server no longer than its patience, and is closed then."""

    patience = 10.0
    """Seconds within which the server must say something."""
    made_at = 0.0
    rested_since = 0.0
    """When it was made, and when it was last given back: on the clock of `time.monotonic`."""

    async def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:  # noqa: ASYNC109 - psycopg's
        """As psycopg has it. Raises OperationalError where the server stays silent; the connection is closed then."""
        try:
            return await super().wait(gen, interval=interval, timeout=self.patience if timeout is None else timeout)
        except _WaitTimeout as exc:
            self.pgconn.finish()
            raise psycopg.OperationalError("the server did not answer in time") from exc

    def has_news(self) -> bool:
        """Whether something has come that nobody asked for: as a rule, that the server has closed the connection."""
        waiting = select.poll()
        waiting.register(self.fileno(), select.POLLIN)
        return bool(waiting.poll(0))

    async def answers(self) -> bool:
        """Whether the server answers soon. Where it does not, the connection is closed."""
        try:
            self.pgconn.send_query(b"")
            await self.wait(generators.execute(self.pgconn), timeout=_PROBE_SECONDS)
        except psycopg.Error:
            self.pgconn.finish()
        return not self.closed
