"""A server's pool of connections: after any break it is back as soon as the database is.

psycopg_pool waits 1, 2, 4 seconds between attempts to connect, and between looks at connections that turn out to be
broken. Callers would wait with it, long after the database is back. So its attempts never fail here: each goes on,
several times a second, until there is a connection. And connections are examined here, where they are lent.
"""

from __future__ import annotations

import asyncio
import logging
import random
import select
from collections.abc import Callable, Coroutine
from time import monotonic
from typing import Any, TypeVar, cast

import psycopg
from pgvector.psycopg import register_vector_async
from psycopg import AsyncConnection, conninfo, generators
from psycopg.abc import PQGen
from psycopg.errors import _WaitTimeout
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool, PoolClosed

from server.database.cancelling import end
from server.database.locks import LOCK_TIMEOUT_SECONDS
from server.database.parameters import parameters_of
from server.errors import TwinlensError

_log = logging.getLogger(__name__)

T = TypeVar("T")

Url = str | Callable[[], str]
"""The URL of a database, or where to ask for it before each connection: a password may change meanwhile."""

MOST_WAITING = 256
"""Callers that wait for a connection; more are refused at once."""

# PostgreSQL ends a statement after `longest`; this much later it counts as silent.
_SILENCE_SECONDS = 1.0

# A connection that rested longer is asked for a sign of life before it is lent, and must give it within this time.
_RESTED_SECONDS = 1.0
_PROBE_SECONDS = 0.3

# Connections are renewed because of one of them; those that others find right after that are of the same kind.
_RENEWED_SECONDS = 1.0

# While the database is away: the pause after an attempt that failed, at first and when it lasts; how many attempts run
# beside each other where they do not fail but hang, and how far apart they begin. A connection whose first packet was
# lost is tried again by the system only after 1, 2 and 4 seconds.
_PAUSE_SECONDS = (0.05, 0.1)
_LONG_PAUSE_SECONDS = (0.1, 0.2)
_LONG_SECONDS = 30.0
_ATTEMPTS = 3
_ATTEMPTS_APART_SECONDS = 0.3
_QUICK_ATTEMPT_SECONDS = 2


class Lent(AsyncConnection[TupleRow]):
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


Attempts = dict[asyncio.Task[Lent], float]
"""Attempts to connect, and when each began."""


class Connector:
    """Makes the connections of one pool, however long the database is away."""

    def __init__(self, url: Url, *, connect_timeout: int, longest: float) -> None:
        self._url = url
        self._connect_timeout = connect_timeout
        self._longest = longest
        self._away_since: float | None = None
        self._found_at = float("-inf")
        self._one_searches = asyncio.Lock()
        self._at_work: set[asyncio.Task[Any]] = set()
        self._closed = False

    @property
    def url(self) -> str:
        return self._url if isinstance(self._url, str) else self._url()

    async def connect(self, _conninfo: str = "", **_: Any) -> Lent:
        """A new connection, as soon as there is one; psycopg_pool calls it. Raises PoolClosed after `close`."""
        if self._closed:
            raise PoolClosed("the pool is closed")
        return await self._begin(self._connect())

    async def close(self) -> None:
        """Give up all attempts."""
        self._closed = True
        while self._at_work and not await end(*self._at_work):
            pass  # those that ended may have left others to be ended

    def _begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._at_work.add(task)
        task.add_done_callback(self._at_work.discard)
        return task

    async def _connect(self) -> Lent:
        attempts: Attempts = {}
        try:
            if self._away_since is None:
                attempts[self._begin(self._attempt(self._connect_timeout))] = monotonic()
                await asyncio.wait(attempts, timeout=_ATTEMPTS_APART_SECONDS)
                if (made := self._made(attempts)) is not None:
                    return made
            async with self._one_searches:
                return await self._search(attempts)
        finally:
            for attempt in attempts:
                attempt.add_done_callback(_close_unused)
            if attempts:
                self._begin(_end_all(attempts))

    async def _search(self, attempts: Attempts) -> Lent:
        """Attempt again and again, also beside attempts that hang, until one succeeds."""
        turn = 0
        while (made := self._made(attempts)) is None:
            if len(attempts) < _ATTEMPTS:
                # Two of three are quick ones; one has all the time that a slow network may need.
                turn += 1
                seconds = self._connect_timeout if turn % _ATTEMPTS == 0 else _QUICK_ATTEMPT_SECONDS
                attempt = self._attempt(min(seconds, self._connect_timeout), turn)
                attempts[self._begin(attempt)] = monotonic()
            done, _ = await asyncio.wait(attempts, timeout=_ATTEMPTS_APART_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if done and all(attempt.cancelled() or attempt.exception() for attempt in done):
                await asyncio.sleep(self._pause())
        return made

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

    async def _attempt(self, seconds: int, turn: int = 0) -> Lent:
        parameters = parameters_of(self.url, connect_timeout=seconds, turn=turn)
        connection = await Lent.connect(**parameters, autocommit=True)
        try:
            connection.patience = seconds
            await _configure(connection, longest=self._longest)
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
            _log.warning("The database is away; it is looked for until it is back. %s", _reason(self._url, failure))

    def _note_found(self) -> None:
        self._found_at = monotonic()
        if self._away_since is not None:
            _log.warning("The database is back after %.1f s.", monotonic() - self._away_since)
            self._away_since = None


class Pool(AsyncConnectionPool[Lent]):
    """A pool of autocommit connections that know pgvector's types; closed until entered with `async with`."""

    def __init__(
        self, url: Url, *, min_size: int, max_size: int, timeout: float, longest: float = 30.0, name: str = "catalogue"
    ) -> None:
        """`timeout`: seconds that a caller waits for a connection; `longest`: seconds that a statement may run."""
        self._connector = Connector(url, connect_timeout=max(2, round(timeout)), longest=longest)
        self._renewed_at = float("-inf")
        super().__init__(
            open=False,
            # Of the class of its connections, psycopg_pool uses nothing but `connect`.
            connection_class=cast("type[Lent]", self._connector),
            min_size=min_size,
            max_size=max_size,
            timeout=timeout,
            max_waiting=MOST_WAITING,
            name=name,
        )

    @property
    def url(self) -> str:
        """What a connection of its own is made with, beside those of the pool: the URL, and our parameters."""
        return conninfo.make_conninfo(**parameters_of(self._connector.url, connect_timeout=10))

    async def getconn(self, timeout: float | None = None) -> Lent:  # noqa: ASYNC109 - psycopg_pool's
        """A connection that works, as far as anyone can know. Raises PoolTimeout, TooManyRequests, PoolClosed."""
        deadline = monotonic() + (self.timeout if timeout is None else timeout)
        while True:
            connection = await super().getconn(deadline - monotonic())
            try:
                if await self._works(connection):
                    return connection
            except BaseException:
                await self.putconn(connection)
                raise
            # It is replaced as it is given back. The next one is examined at once.
            await self.putconn(connection)

    async def putconn(self, conn: Lent) -> None:
        """Give a connection back."""
        conn.rested_since = monotonic()
        await super().putconn(conn)

    async def renew(self, than: Lent) -> None:
        """Replace this connection and all others that may be like it: they belong to a server that has changed."""
        if max(than.made_at, monotonic() - _RENEWED_SECONDS) > self._renewed_at:
            self._renewed_at = monotonic()
            await self.drain()

    async def close(self, timeout: float = 5.0) -> None:  # noqa: ASYNC109 - psycopg_pool's
        """Close all connections, and end all attempts to make one."""
        await self._connector.close()
        await super().close(timeout)

    async def _works(self, connection: Lent) -> bool:
        if connection.closed:
            return False
        if connection.has_news():
            return await connection.answers()
        if monotonic() - connection.rested_since < _RESTED_SECONDS or await connection.answers():
            return True
        # What silenced this one has most likely silenced the others that rest; asking each would take as long again.
        await self.renew(connection)
        return False


def open_pool(
    url: Url, *, min_size: int, max_size: int, timeout: float, longest: float = 30.0, name: str = "catalogue"
) -> Pool:
    """As `Pool`. Enter it with `async with`."""
    return Pool(url, min_size=min_size, max_size=max_size, timeout=timeout, longest=longest, name=name)


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


async def _end_all(attempts: Attempts) -> None:
    await end(*attempts)


def _close_unused(attempt: asyncio.Task[Lent]) -> None:
    """Close what an attempt made after another one had succeeded."""
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().pgconn.finish()


def _reason(url: Url, failure: BaseException) -> str:
    """The failure as a line for the log. A URL that cannot be read stands in its message, so that is left out."""
    if isinstance(failure, psycopg.ProgrammingError):
        return "Its URL cannot be read, or it lacks pgvector."
    return " ".join(str(failure).split())
