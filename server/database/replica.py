"""Reads on a streaming standby, wherever it shows all that was acknowledged before; on the primary otherwise.

A read that follows an acknowledged write sees it, whichever process on whichever machine answered the write. For that
each read first learns from the primary up to where its log has been written, and the standby must have replayed as
much. No read waits long for that, and none fails for the standby's sake: whatever is wrong with it, the primary is
asked.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext, suppress
from types import TracebackType
from typing import Any, Literal, NamedTuple, TypeVar
from weakref import WeakSet

import psycopg
from psycopg import AsyncConnection, conninfo
from psycopg.rows import BaseRowFactory, TupleRow, kwargs_row
from psycopg_pool import PoolClosed, PoolTimeout, TooManyRequests

from server.database.connecting import connected
from server.database.lent import Lent
from server.database.parameters import Url
from server.database.pool import Pool, open_pool
from server.database.queries import Queries
from server.database.runner import Runner, as_client, fetching
from server.database.session import pipeline_with, setting
from server.database.shared import Shared
from server.errors import CatalogueFailed, DatabaseUnusable, TwinlensError

_log = logging.getLogger(__name__)

T = TypeVar("T")

Answered = Literal["replica", "unused", "behind", "busy", "conflict", "failed"]
"""Where a read was answered: on the replica, or for one of the other reasons on the primary.

`unused`: no standby was in use at that moment; `behind`: it did not show enough in time; `busy`: all connections to it
were lent; `conflict`: its replay was in the way of the statement; `failed`: something else."""

_State = Literal["", "used", "behind", "unfit", "failed"]

POOL_SIZE = 8
WAIT_SECONDS = 0.1
"""How long a read waits for the standby to replay what it must show."""

_CONNECTION_SECONDS = 0.25  # that a read waits for a connection to the standby
_CHECK_SECONDS = 0.5  # for the statements that ask whether a standby may be used, and the wait in between
_POSITION_SECONDS = 2.0  # for the statement that asks the primary for its position
_LOOK_SECONDS = 0.5  # between two looks at a standby that is in use
_PAUSES = (0.25, 10.0)  # before a standby is tried again: at first, and at most
_STEADY_SECONDS = 30.0  # of use after which the next pause is a short one again

# What the statement itself met: the same would happen on the primary, or has to do with this one statement only.
_OF_THE_STATEMENT = (
    psycopg.DataError,
    psycopg.ProgrammingError,
    psycopg.errors.ProgramLimitExceeded,
    psycopg.errors.StatementTooComplex,
    UnicodeError,
)
_CONFLICTS = (
    psycopg.errors.SerializationFailure,  # the replay removes rows that the statement would still see
    psycopg.errors.DeadlockDetected,
    psycopg.errors.LockNotAvailable,
    psycopg.errors.QueryCanceled,
)
_FAULTS = ("53", "57", "58", "XX")  # classes of SQLSTATE: out of resources, shutting down, the system's, internal


class Position(NamedTuple):
    """Where the primary's log is."""

    system: int
    timeline: int
    lsn: str


class _Identity(NamedTuple):
    system: int
    timeline: int


class _Replayed(NamedTuple):
    standby: bool
    there: bool


class _Behind(Exception):
    """The standby has not replayed enough yet."""


class _Unfit(Exception):
    """What is reached is not a standby of the primary; the text says what else."""


class Replica:
    """Runs reads on the standby at a URL, or on the primary. Several hosts are several standbys, used alike.

    >>> async with Replica(url, Runner(pool), longest=10.0) as replica:
    ...     await replica.fetch(statement, {}, dict_row)

    It looks after the standby itself: one that is away, behind or no standby any more is left alone, and tried again
    after a pause. The log has one line for each change of that.
    """

    def __init__(
        self,
        url: Url,
        primary: Runner,
        *,
        longest: float,
        on_read: Callable[[Answered, float], None] = lambda answered, waited: None,
        on_use: Callable[[bool], None] = lambda used: None,
    ) -> None:
        """`longest`: seconds that a statement may run on the standby, where it runs as the role that it has on the
        primary. `on_read` is called for each read, with the seconds that passed before its statement was sent; `on_use`
        where the standby is used from now on, or not.

        Raises DatabaseUnusable for a URL that cannot be read.
        """
        self._source = url
        _read_url(url)
        self._primary = primary
        self._longest = longest
        self._role = primary.role
        self._on_read = on_read
        self._on_use = on_use
        queries = Queries.read("replica.sql")
        self._ask_position, self._ask_identity, self._ask_replayed = (
            queries[name] for name in ("position", "identity", "replayed")
        )
        self._position = Shared(self._read_position)
        self._pool: Pool | None = None  # while the standby is used
        self._fault: asyncio.Future[Exception] | None = None
        self._lent: set[AsyncConnection[TupleRow]] = set()
        self._proven: WeakSet[AsyncConnection[TupleRow]] = WeakSet()  # lead to standbys of `_proven_of`
        self._proven_of: _Identity | None = None
        self._state: _State = ""
        self._watching: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Replica:
        self._on_use(False)
        self._watching = asyncio.create_task(self._watch(), name="replica")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._watching is not None:
            self._watching.cancel()
            with suppress(asyncio.CancelledError):
                await self._watching
        self._position.close()

    @property
    def _url(self) -> str:
        return _read_url(self._source)

    @property
    def used(self) -> bool:
        """Whether reads are tried on the standby now."""
        return self._pool is not None

    # --- reads -------------------------------------------------------------------------------------------------------

    async def read(self, work: Callable[[AsyncConnection[TupleRow]], Awaitable[T]], *, client: str | None = None) -> T:
        """As `Runner.read`; the work may begin on the standby and then run once more, on the primary."""
        loop = asyncio.get_running_loop()
        came = loop.time()
        why: Answered = "unused"
        if (pool := self._pool) is not None:
            position = await self._position.get()
            try:
                async with pool.connection() as connection:
                    with self._lending(connection):
                        with at_most(connection, _CHECK_SECONDS):
                            await self._require(connection, position)
                        waited = loop.time() - came
                        with at_most(connection, self._longest + 1.0), as_client(connection, client):
                            found = await work(connection)
            except _Behind as exc:
                why = "behind"
                self._stop_using(exc)
            except _Unfit as exc:
                why = "failed"
                self._stop_using(exc)
            except (PoolTimeout, TooManyRequests):
                why = "busy"
            except PoolClosed:
                pass
            except _CONFLICTS:
                why = "conflict"
            except _OF_THE_STATEMENT:
                why = "failed"
            except psycopg.Error as exc:
                why = "failed"
                if connection.closed or (exc.sqlstate or "")[:2] in _FAULTS:
                    self._stop_using(exc)
            else:
                self._on_read("replica", waited)
                return found
        self._on_read(why, loop.time() - came)
        return await self._primary.read(work, client=client)

    async def fetch(
        self,
        statement: bytes,
        parameters: Mapping[str, Any],
        row_factory: BaseRowFactory[T],
        *,
        client: str | None = None,
    ) -> list[T]:
        """The rows of a statement that only reads, as `Runner.read` has it."""
        return await self.read(fetching(statement, parameters, row_factory), client=client)

    @contextmanager
    def _lending(self, connection: AsyncConnection[TupleRow]) -> Iterator[None]:
        self._lent.add(connection)
        try:
            yield
        finally:
            self._lent.discard(connection)

    def _stop_using(self, fault: Exception) -> None:
        """Send reads to the primary from now on; also those under way, unless what they wait for will come."""
        if self._fault is None or self._fault.done():
            return
        self._fault.set_result(fault)
        self._pool = None
        if not isinstance(fault, (_Behind, TwinlensError)):
            for connection in self._lent:
                break_off(connection)

    # --- what a standby must show ------------------------------------------------------------------------------------

    async def _read_position(self) -> Position:
        async def ask(connection: AsyncConnection[TupleRow]) -> Position:
            # All reads wait for this one. On a connection that has died silently it would last for minutes.
            with at_most(connection, _POSITION_SECONDS):
                cursor = connection.cursor(row_factory=kwargs_row(Position))
                return await _one(await cursor.execute(self._ask_position))

        return await self._primary.read(ask)

    async def _require(self, connection: AsyncConnection[TupleRow], position: Position) -> None:
        """Wait until the standby shows all up to the position. Raises _Behind, _Unfit.

        In a statement of its own: the snapshot of the read that follows is taken after it.
        """
        if self._proven_of != position[:2] or connection not in self._proven:
            await self._identify(connection, position)
        loop = asyncio.get_running_loop()
        patience, pause = loop.time() + WAIT_SECONDS, 0.001
        while True:
            cursor = connection.cursor(row_factory=kwargs_row(_Replayed))
            state = await _one(await cursor.execute(self._ask_replayed, {"lsn": position.lsn}))
            if not state.standby:
                raise _Unfit("is not a standby")
            if state.there:
                return
            if loop.time() + pause > patience:
                raise _Behind
            await asyncio.sleep(pause)
            pause = min(2 * pause, 0.016)

    async def _identify(self, connection: AsyncConnection[TupleRow], position: Position) -> None:
        """Positions can be compared only within one history: of one system, on one timeline. Raises _Unfit.

        After a failover, the standby of the old primary may have replayed more than the new primary has written, and
        yet lack all that the new one wrote.
        """
        cursor = connection.cursor(row_factory=kwargs_row(_Identity))
        async with _as_whoever_logs_in(connection):
            await cursor.execute(self._ask_identity)
        found = await _one(cursor)
        if found.system != position.system:
            raise _Unfit("belongs to another PostgreSQL than the primary")
        if found.timeline != position.timeline:
            raise _Unfit(f"is on timeline {found.timeline}, and the primary on {position.timeline}")
        if self._proven_of != found:
            self._proven_of = found
            self._proven.clear()
        self._proven.add(connection)

    # --- looking after it --------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        """Use the standby whenever it can be used; for as long as the server runs."""
        loop = asyncio.get_running_loop()
        pause = _PAUSES[0]
        while True:
            began = loop.time()
            try:
                async with await connected(
                    AsyncConnection, conninfo=self._url, autocommit=True, connect_timeout=2
                ) as connection:
                    await self._use(connection)
            except _Behind:
                self._note("behind", "is behind")
            except _Unfit as exc:
                self._note("unfit", str(exc))
            except (psycopg.Error, CatalogueFailed) as exc:
                self._note("failed", f"cannot be used: {str(exc.__cause__ or exc).strip().partition(chr(10))[0]}")
            except TwinlensError:
                pass  # the primary is away or busy, which says nothing about the standby
            except Exception:
                _log.exception("The read replica could not be looked after; another try follows.")
            if loop.time() - began > _STEADY_SECONDS:
                pause = _PAUSES[0]
            await asyncio.sleep(pause)
            pause = min(2 * pause, _PAUSES[1])

    async def _use(self, connection: AsyncConnection[TupleRow]) -> None:
        """Have reads use the standby until something is wrong with it; that is raised, as _Behind, _Unfit and others.

        `connection` is one of our own, to look at it now and then: those of the pool may all be waiting for one that
        does not answer.
        """
        await self._look(connection)  # another PostgreSQL may have no such role, which is not what is wrong with it
        await self._take_on_role(connection)
        pool = open_pool(
            lambda: self._url,
            min_size=2,
            max_size=POOL_SIZE,
            timeout=_CONNECTION_SECONDS,
            longest=self._longest,
            role=self._role,
            name="read replica",
        )
        async with pool:
            self._fault = asyncio.get_running_loop().create_future()
            self._pool = pool
            self._on_use(True)
            self._note("used", f"{connection.info.host}:{connection.info.port}")
            try:
                while not (await asyncio.wait({self._fault}, timeout=_LOOK_SECONDS))[0]:
                    await self._look(connection)
                raise self._fault.result()
            except Exception as exc:
                self._stop_using(exc)
                raise
            finally:
                self._pool = None
                self._on_use(False)

    async def _take_on_role(self, connection: AsyncConnection[TupleRow]) -> None:
        """As each connection of the pool does. Raises _Unfit where whoever logs in at the standby may not."""
        if self._role is not None:
            try:
                await connection.execute(*setting({"role": self._role}))
            except psycopg.errors.InsufficientPrivilege as exc:
                raise _Unfit(f"does not let its user serve as the role {self._role}") from exc

    async def _look(self, connection: AsyncConnection[TupleRow]) -> None:
        """Whether reads can use the standby. Raises _Behind, _Unfit and others."""
        position = await self._position.get()
        self._proven.discard(connection)
        with at_most(connection, _CHECK_SECONDS):
            await self._require(connection, position)

    def _note(self, state: _State, about: str) -> None:
        """Log a change of state, and nothing while it stays the same."""
        if state == self._state:
            return
        self._state = state
        if state == "used":
            _log.info("Searches go to the read replica at %s.", about)
        else:
            _log.warning("Searches go to the primary, since the read replica %s.", about)


def _read_url(source: Url) -> str:
    """The URL with what we add. Raises DatabaseUnusable, in words that hold no part of the password."""
    url = source if isinstance(source, str) else source()
    try:
        given = conninfo.conninfo_to_dict(url)
    except psycopg.ProgrammingError:  # the message repeats the URL
        given = {"host": "@"}
    if "@" in str(given.get("host")):  # the end of a password with an @ in it
        raise DatabaseUnusable(
            "The URL of the read replica cannot be read; it should look like "
            "postgresql://user:password@host:5432/name, with an @ in the password written as %40."
        )
    # Where several hosts are named, one that is no standby is then passed over.
    return conninfo.make_conninfo(url, **{"target_session_attrs": "standby", **given})


async def _one(cursor: psycopg.AsyncCursor[T]) -> T:
    """The one row that these statements always give."""
    (row,) = await cursor.fetchall()
    return row


def _as_whoever_logs_in(connection: AsyncConnection[TupleRow]) -> AbstractAsyncContextManager[Any]:
    """What is sent in this block runs without the role that the pool's connections take on: it is shown less."""
    return pipeline_with({"role": "none"}, connection) if isinstance(connection, Lent) else nullcontext()


@contextmanager
def at_most(connection: AsyncConnection[Any], seconds: float) -> Iterator[None]:
    """Break the connection off when this block lasts longer: what waits in it for an answer ends with psycopg's error.

    To cancel the statement instead would mean to wait for the server's answer to that, for up to ten seconds.
    """
    timer = asyncio.get_running_loop().call_later(seconds, break_off, connection)
    try:
        yield
    finally:
        timer.cancel()


def break_off(connection: AsyncConnection[Any]) -> None:
    """Shut the connection's socket, as if the server had done so."""
    with suppress(psycopg.Error, OSError), socket.socket(fileno=os.dup(connection.fileno())) as handle:
        handle.shutdown(socket.SHUT_RDWR)
