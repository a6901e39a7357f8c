"""Makes a pool's connections: it goes on until there is one, however long the database is away."""

from __future__ import annotations

import asyncio
import logging
import random
import textwrap
from collections.abc import Coroutine
from time import monotonic
from typing import Any, TypeVar

import psycopg
from pgvector.psycopg import register_vector_async
from psycopg_pool import PoolClosed

from server.database import session
from server.database.cancelling import end
from server.database.connecting import connected
from server.database.lent import Lent
from server.database.parameters import AS_ALWAYS, Url, parameters_of
from server.database.pooling import forget
from server.errors import TwinlensError
from server.settings import Pooling

_log = logging.getLogger(__name__)

T = TypeVar("T")

# PostgreSQL ends a statement after `longest`; this much later it counts as silent.
_SILENCE_SECONDS = 1.0

# While the database is away: the pause after an attempt that failed, at first and when it lasts.
_PAUSE_SECONDS = (0.05, 0.1)
_LONG_PAUSE_SECONDS = (0.1, 0.2)
_LONG_SECONDS = 30.0

# Where attempts do not fail but hang, others are begun beside them, so far apart, and so many are kept. A connection
# whose first packet was lost is tried again by the system only after 1, 2 and 4 seconds.
_APART_SECONDS = 0.3
_ATTEMPTS = 5

_CLOSING_TIMES = 3
_REASON_CHARACTERS = 300

Attempts = dict[asyncio.Task[Lent], float]
"""Attempts to connect, and when each began."""


class Connector:
    """Makes the connections of one pool, however long the database is away."""

    def __init__(
        self,
        url: Url,
        *,
        connect_timeout: int,
        longest: float,
        pooling: Pooling = "auto",
        role: str | None = None,
        name: str = "database",
    ) -> None:
        self._url = url
        self._connect_timeout = connect_timeout
        self._longest = longest
        self._pooling = pooling
        self._role = role
        self._name = name
        self._away_since: float | None = None
        self._found_at = float("-inf")
        self._one_searches = asyncio.Lock()
        self._at_work: set[asyncio.Task[Any]] = set()
        self._closed = False

    @property
    def url(self) -> str:
        return self._url if isinstance(self._url, str) else self._url()

    @property
    def away(self) -> bool:
        """Whether the last attempt to connect has failed, and none has succeeded since."""
        return self._away_since is not None

    async def connect(self, _conninfo: str = "", **_: Any) -> Lent:
        """A new connection, as soon as there is one; psycopg_pool calls it. Raises PoolClosed after `close`."""
        if self._closed:
            raise PoolClosed("the pool is closed")
        return await self._begin(self._connect())

    async def close(self) -> None:
        """Give up all attempts."""
        self._closed = True
        for _ in range(_CLOSING_TIMES):  # those that end may leave others to be ended
            await end(*self._at_work)

    def _begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._at_work.add(task)
        task.add_done_callback(self._at_work.discard)
        return task

    async def _connect(self) -> Lent:
        attempts: Attempts = {}
        try:
            if self._away_since is None:
                attempts[self._begin(self._attempt())] = monotonic()
                await asyncio.wait(attempts, timeout=_APART_SECONDS)
                if (made := self._made(attempts)) is not None:
                    return made
            async with self._one_searches:
                return await self._search(attempts)
        finally:
            for attempt in attempts:
                self._give_up(attempt)

    async def _search(self, attempts: Attempts) -> Lent:
        """Attempt again and again, also beside attempts that hang, until one succeeds."""
        # One attempt has all the time that a slow network may need; of the others, the oldest makes room for the next.
        patient = next(iter(attempts), None)
        turn = 0
        while (made := self._made(attempts)) is None:
            turn += 1
            attempt = self._begin(self._attempt(turn))
            attempts[attempt] = monotonic()
            if patient not in attempts:
                patient = attempt
            if len(attempts) > _ATTEMPTS:
                oldest = next(one for one in attempts if one is not patient)
                del attempts[oldest]
                self._give_up(oldest)
            done, _ = await asyncio.wait(attempts, timeout=_APART_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if done and all(one.cancelled() or one.exception() for one in done):
                await asyncio.sleep(self._pause())
        return made

    def _give_up(self, attempt: asyncio.Task[Lent]) -> None:
        attempt.add_done_callback(_close_unused)
        self._begin(end(attempt))

    def _made(self, attempts: Attempts) -> Lent | None:
        """The connection of the first attempt that succeeded; those that failed are taken out."""
        for attempt in [one for one in attempts if one.done()]:
            if attempt.cancelled():
                raise asyncio.CancelledError
            failure = attempt.exception()
            if failure is None:
                del attempts[attempt]
                self._note_found()
                return attempt.result()
            if not isinstance(failure, psycopg.Error | OSError | TwinlensError):
                raise failure
            if attempts.pop(attempt) > self._found_at:  # else another attempt has found the database since
                self._note_away(failure)
        return None

    async def _attempt(self, turn: int = 0) -> Lent:
        parameters = parameters_of(self.url, connect_timeout=self._connect_timeout, turn=turn)
        connection = await connected(Lent, **{**parameters, **AS_ALWAYS})
        try:
            connection.patience = self._connect_timeout
            await session.configure(connection, longest=self._longest, pooling=self._pooling, role=self._role)
            await register_vector_async(connection)
            connection.patience = self._longest + _SILENCE_SECONDS
        except BaseException:
            await connection.close()
            raise
        connection.made_at = connection.rested_since = monotonic()
        return connection

    def _pause(self) -> float:
        away = monotonic() - self._away_since if self._away_since is not None else 0.0
        return random.uniform(*(_PAUSE_SECONDS if away < _LONG_SECONDS else _LONG_PAUSE_SECONDS))  # noqa: S311

    def _note_away(self, failure: BaseException) -> None:
        if self._away_since is None:
            self._away_since = monotonic()
            forget()
            _log.warning(
                "The %s is away; it is looked for until it is back. %s", self._name, _reason(self._url, failure)
            )

    def _note_found(self) -> None:
        self._found_at = monotonic()
        if self._away_since is not None:
            _log.warning("The %s is back after %.1f s.", self._name, monotonic() - self._away_since)
            self._away_since = None


def _close_unused(attempt: asyncio.Task[Lent]) -> None:
    """Close what an attempt made after another one had succeeded."""
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().pgconn.finish()


def _reason(url: Url, failure: BaseException) -> str:
    """The failure as a line for the log. A URL that cannot be read stands in its message, so that is left out."""
    if isinstance(failure, psycopg.ProgrammingError):
        return "Its URL cannot be read, or it lacks pgvector."
    return textwrap.shorten(str(failure), _REASON_CHARACTERS)
