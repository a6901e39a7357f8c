"""What we rely on in a session of PostgreSQL, and connections on which every statement finds it so.

An operator can give a role or a database other defaults than PostgreSQL's own: dates in the German form, another time
zone, no triggers, a limit of a second for each statement. So each connection of ours sets what our statements and
psycopg's reading of their results rely on. What is the operator's business stays as it is: memory, costs, logs,
synchronous_commit, and whether the database is read-only.

A pooler in transaction mode (pgbouncer, Supabase, Neon) gives each transaction whichever session is free. What one
transaction sets for the session, a stranger's next transaction would find, and ours would not. On such a connection
every transaction therefore begins with our settings, which end with it; a statement outside a transaction becomes one.
Sent in one go with its begin and its end, it takes one round trip as before.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from functools import cache, partial
from typing import Any, Self

import psycopg
from psycopg import (
    AsyncConnection,
    AsyncCursor,
    AsyncPipeline,
    AsyncTransaction,
    Connection,
    Cursor,
    IsolationLevel,
    Pipeline,
    Transaction,
    pq,
    sql,
)
from psycopg.abc import Buffer, PQGen
from psycopg.adapt import Loader
from psycopg.rows import TupleRow

from server.database.locks import LOCK_TIMEOUT_SECONDS
from server.database.pooling import find_out, known
from server.database.queries import Queries
from server.settings import Pooling

_IDLE_IN_TRANSACTION_SECONDS = 60.0

_ON_EVERY_CONNECTION: Mapping[str, str] = {
    # How values are written and read. psycopg reads times in the ISO form only.
    "client_encoding": "UTF8",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "standard_conforming_strings": "on",
    "array_nulls": "on",
    "transform_null_equals": "off",
    # What a transaction is. Our ON CONFLICT and FOR SHARE look at what others have committed meanwhile.
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
    "exit_on_error": "off",
    # Triggers carry a product's changes into the spaces; row-level security filters and does not raise.
    "session_replication_role": "origin",
    "row_security": "on",
    # A partial index is chosen only when the plan knows the client; a generic plan, made after five runs, does not.
    "plan_cache_mode": "force_custom_plan",
    # Compiling a plan takes longer than any search of ours.
    "jit": "off",
    # Searches go through indexes, or deliberately not; a search's effort and the switch of spaces decide the rest.
    **{
        f"enable_{plan}": "on"
        for plan in (
            *("seqscan", "indexscan", "indexonlyscan", "bitmapscan", "sort"),
            *("nestloop", "hashjoin", "mergejoin", "hashagg", "material"),
        )
    },
    # Anything else leaves out rows at random when an index of attributes answers.
    "gin_fuzzy_search_limit": "0",
    # With fewer, an index gives short lists, and each search is answered a second time.
    "hnsw.max_scan_tuples": "20000",
    "hnsw.ef_search": "40",
    "hnsw.iterative_scan": "off",
    # A connection of ours is closed by us: that of a pool waits for its next use, one that holds a lock for its end.
    "idle_session_timeout": "0",
    "transaction_timeout": "0",
}

_QUERIES = Queries.read("session.sql")
_COMMIT = b"COMMIT"
_CLIENT = "twinlens.client"
_NOTHING: Mapping[str, str] = {}

_Statement = tuple[bytes, tuple[str, ...]]
"""A statement and its parameters."""


def wanted(longest: float | None) -> dict[str, str]:
    """The settings of a connection on which a statement may run for `longest` seconds.

    None: for as long as it needs. Then it also waits for locks as long as it must, and may leave a transaction open.
    """
    if longest is None:
        limits = dict.fromkeys(("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"), "0")
    else:
        limits = {
            "statement_timeout": f"{round(longest * 1000)}ms",
            "lock_timeout": f"{round(LOCK_TIMEOUT_SECONDS * 1000)}ms",
            # A process of ours that hangs must not hold its locks for ever.
            "idle_in_transaction_session_timeout": f"{round(max(longest, _IDLE_IN_TRANSACTION_SECONDS) * 1000)}ms",
        }
    return {**_ON_EVERY_CONNECTION, **limits}


class _Local:
    """What the two kinds of connection have in common."""

    info: psycopg.ConnectionInfo
    pgconn: Any
    isolation_level: IsolationLevel | None
    read_only: bool | None

    per_transaction: bytes | None = None
    """The statement that begins each transaction, where a pooler gives each one another session; else None."""
    role: str | None = None
    """The role that statements run as, which is under row-level security; None: whoever logged in, and no policy."""
    client: str | None = None
    """Whose rows each transaction may see and write, where there is a role.

    It is set anew in each transaction, and ends with it, so that nothing is left for the next user of the session.
    """

    @property
    def _unsettled(self) -> bool:
        """Whether what is sent next begins a transaction that lacks our settings."""
        return (
            (self.per_transaction is not None or self.client is not None)
            and self.info.transaction_status == pq.TransactionStatus.IDLE
            and self.pgconn.pipeline_status == pq.PipelineStatus.OFF
        )

    def _settling(self, more: Mapping[str, str] = _NOTHING) -> list[_Statement]:
        """What to send first, so that what follows finds our settings and `more`, until its transaction ends."""
        if not self._unsettled:
            return _set_each(more)
        first = [] if self.per_transaction is None else [(self.per_transaction, ())]
        return first + _set_each(more if self.client is None else {_CLIENT: self.client, **more})

    def _begin(self) -> bytes:
        level = (self.isolation_level or IsolationLevel.READ_COMMITTED).name.replace("_", " ")
        return f"BEGIN ISOLATION LEVEL {level}{' READ ONLY' if self.read_only else ''}".encode()


# --- connections of asyncio ------------------------------------------------------------------------------------------


class AsyncSessionConnection(_Local, AsyncConnection[TupleRow]):
    """An autocommit connection whose statements all find our settings, once it has been configured."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.cursor_factory = _AsyncCursor

    @asynccontextmanager
    async def pipeline(self, settings: Mapping[str, str] = _NOTHING) -> AsyncIterator[AsyncPipeline]:
        """As psycopg's. Outside a transaction it is one, with our settings, and still one round trip.

        `settings`: what else is set until the end of the transaction. No result is fetched within the block: that would
        end the transaction that PostgreSQL makes of a pipeline, and with it every setting.
        """
        plain = AsyncCursor(self)
        settling = self._settling(settings)
        if not self._unsettled or self.per_transaction is None:
            # No BEGIN and COMMIT, and no cursor of psycopg's for the settings: each would cost the shortest searches a
            # twentieth.
            async with super().pipeline() as pipeline:
                for statement, parameters in settling:
                    _queue(pipeline, self.pgconn, statement, parameters)
                yield pipeline
            return
        try:
            async with super().pipeline() as pipeline:
                await plain.execute(self._begin())
                for statement, parameters in settling:
                    await plain.execute(statement, parameters)
                yield pipeline
                await plain.execute(_COMMIT)
        except Exception:  # whoever is cancelled gives the connection back, or closes it, without waiting for it
            with contextlib.suppress(psycopg.Error):
                await self.rollback()
            raise

    @asynccontextmanager
    async def transaction(
        self, savepoint_name: str | None = None, force_rollback: bool = False
    ) -> AsyncIterator[AsyncTransaction]:
        """As psycopg's; it begins with our settings where the session does not have them."""
        if not self._unsettled:
            async with super().transaction(savepoint_name, force_rollback) as transaction:
                yield transaction
            return
        settling = self._settling()
        async with contextlib.AsyncExitStack() as stack:
            # psycopg's own `transaction`, called within a pipeline, would keep the pipeline open as long as itself.
            transaction = AsyncTransaction(self, savepoint_name, force_rollback)
            async with super().pipeline():
                await stack.enter_async_context(transaction)
                for statement, parameters in settling:
                    await AsyncCursor(self).execute(statement, parameters)
            yield transaction


class _AsyncCursor(AsyncCursor[Any]):
    """A cursor whose statement is a transaction with our settings where it would be one without them."""

    async def execute(self, *arguments: Any, **options: Any) -> Self:
        connection = self.connection
        if not isinstance(connection, AsyncSessionConnection) or not connection._unsettled:
            return await super().execute(*arguments, **options)
        if connection.per_transaction is None:
            async with connection.lock:
                await connection.wait(self._execute_settled(connection, *arguments, **options))
            return self
        async with connection.pipeline():
            return await super().execute(*arguments, **options)

    def _execute_settled(self, connection: AsyncSessionConnection, *arguments: Any, **options: Any) -> PQGen[None]:
        """A pipeline of the settings and this statement.

        All that psycopg's own pipeline does, as one piece of work for the loop in place of four: they took longer than
        PostgreSQL needs for the settings and the policies together.
        """
        settling = connection._settling()
        pipeline = connection._pipeline = AsyncPipeline(connection)
        failure: Exception | None = None
        try:
            yield from pipeline._enter_gen()
            for statement, parameters in settling:
                _queue(pipeline, connection.pgconn, statement, parameters)
            try:
                yield from self._execute_gen(*arguments, **options)
            except Exception as exc:
                failure = exc
                # What has come is collected, so that the connection can go on. One that broke has nothing more to
                # wait for: the loop would find its socket closed, and leave us in the middle.
                if connection.pgconn.status != pq.ConnStatus.BAD:
                    with contextlib.suppress(psycopg.Error):
                        yield from pipeline._exit_gen()
                raise
            yield from pipeline._exit_gen()
        except Exception as exc:
            failure = exc
            raise
        finally:
            pipeline._exit(failure)
            connection._pipeline = None


def pipeline_with(
    settings: Mapping[str, str], connection: AsyncConnection[TupleRow]
) -> contextlib.AbstractAsyncContextManager[AsyncPipeline]:
    """As `AsyncSessionConnection.pipeline`, for work that is handed one of our connections."""
    if not isinstance(connection, AsyncSessionConnection):
        raise TypeError("a connection with our settings is needed")
    return connection.pipeline(settings)


async def configure(
    connection: AsyncSessionConnection,
    *,
    longest: float | None = 30.0,
    pooling: Pooling = "auto",
    role: str | None = None,
) -> None:
    """Have every statement of this new connection find our settings.

    `longest`: seconds that a statement may run; None: as long as it needs. `pooling`: what a pooler in between, if
    there is one, gives a connection: a session of its own, or one for each transaction; `auto` finds it out. `role`:
    the role that statements run as, which is under row-level security; None: whoever logs in. Raises psycopg's errors,
    such as InsufficientPrivilege where a default must be another one and this role may not set it.
    """
    cursor: AsyncCursor[Any] = AsyncCursor(connection)
    async with connection.transaction():
        await cursor.execute(_QUERIES["use_default_path"])
        await cursor.execute(_QUERIES["look"])
        pid, path = await cursor.fetchone() or (0, "")
    connection.adapters.register_loader("timestamptz", _UtcLoader)
    per_transaction = known(connection.info, pid, pooling)
    if per_transaction is None:
        per_transaction = await find_out(connection.info)
    if per_transaction:
        connection.prepare_threshold = None
        await connection.set_isolation_level(IsolationLevel.READ_COMMITTED)
        connection.per_transaction = _settle(longest, path, role, per_transaction=True)
    else:
        await cursor.execute(_settle(longest, path, role))
    connection.role = role


# --- connections without asyncio -------------------------------------------------------------------------------------


class SessionConnection(_Local, Connection[TupleRow]):
    """As `AsyncSessionConnection`, without asyncio."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.cursor_factory = _Cursor

    @contextmanager
    def pipeline(self) -> Iterator[Pipeline]:
        """As `AsyncSessionConnection.pipeline`."""
        if not self._unsettled:
            with super().pipeline() as pipeline:
                yield pipeline
            return
        plain, settling = Cursor(self), self._settling()
        try:
            with super().pipeline() as pipeline:
                plain.execute(self._begin())
                for statement, parameters in settling:
                    plain.execute(statement, parameters)
                yield pipeline
                plain.execute(_COMMIT)
        except Exception:
            with contextlib.suppress(psycopg.Error):
                self.rollback()
            raise

    @contextmanager
    def transaction(self, savepoint_name: str | None = None, force_rollback: bool = False) -> Iterator[Transaction]:
        """As `AsyncSessionConnection.transaction`."""
        if not self._unsettled:
            with super().transaction(savepoint_name, force_rollback) as transaction:
                yield transaction
            return
        settling = self._settling()
        with contextlib.ExitStack() as stack:
            transaction = Transaction(self, savepoint_name, force_rollback)
            with super().pipeline():
                stack.enter_context(transaction)
                for statement, parameters in settling:
                    Cursor(self).execute(statement, parameters)
            yield transaction

    def only_read(self) -> None:
        """Have PostgreSQL refuse every write of this connection from now on."""
        self.read_only = True
        if self.per_transaction is None:  # a statement outside a transaction knows nothing of `read_only`
            self.execute("SET default_transaction_read_only = on")


class _Cursor(Cursor[Any]):
    """As `_AsyncCursor`, without asyncio."""

    def execute(self, *arguments: Any, **options: Any) -> Self:
        connection = self.connection
        if not isinstance(connection, SessionConnection) or not connection._unsettled:
            return super().execute(*arguments, **options)
        with connection.pipeline():
            return super().execute(*arguments, **options)


def configure_single(connection: SessionConnection, *, lasting: bool = False, pooling: Pooling = "auto") -> None:
    """As `configure`, for a connection whose statements may run as long as they need.

    What works within transactions works behind every pooler; only where the session must be a `lasting` one is it found
    out how a pooler works.
    """
    cursor: Cursor[Any] = Cursor(connection)
    with connection.transaction():
        cursor.execute(_QUERIES["use_default_path"])
        cursor.execute(_QUERIES["look"])
        pid, path = cursor.fetchone() or (0, "")
    connection.adapters.register_loader("timestamptz", _UtcLoader)
    per_transaction = known(connection.info, pid, pooling)
    if per_transaction is None:
        per_transaction = _find_out(connection.info) if lasting else True
    if per_transaction:
        connection.prepare_threshold = None
        connection.isolation_level = IsolationLevel.READ_COMMITTED
        connection.per_transaction = _settle(None, path, None, per_transaction=True)
    else:
        cursor.execute(_settle(None, path, None))


def _find_out(info: psycopg.ConnectionInfo) -> bool:
    with ThreadPoolExecutor(1) as pool:  # the caller's thread may run a loop of asyncio already
        return pool.submit(lambda: asyncio.run(find_out(info))).result()


# --- the statement, and times ----------------------------------------------------------------------------------------


def _settle(longest: float | None, path: str, role: str | None, *, per_transaction: bool = False) -> bytes:
    settings = {**wanted(longest), "search_path": path}
    if role is not None:
        settings["role"] = role  # the last one: what comes before may need the rights of whoever logged in
    rows = [sql.SQL("({}, {})").format(sql.Literal(name), sql.Literal(value)) for name, value in settings.items()]
    return _QUERIES.composed(
        "settle",
        wanted=sql.SQL(", ").join(rows),
        until_end=sql.SQL("true" if per_transaction else "false"),
    ).as_bytes(None)


def setting(settings: Mapping[str, str]) -> _Statement:
    """The statement, with its parameters, that sets these until the end of the transaction."""
    return _setting_each(tuple(settings)), tuple(settings.values())


def _queue(pipeline: AsyncPipeline, pgconn: Any, statement: bytes, parameters: tuple[str, ...]) -> None:
    """Have a pipeline send a statement whose result nobody wants; an error is raised where the pipeline ends.

    As psycopg does it for what it prepares: a command, and None in the place of the cursor that wants its result.
    """
    numbered = _numbered(statement)
    values = [one.encode() for one in parameters]
    pipeline.command_queue.append(partial(pgconn.send_query_params, numbered, values))
    pipeline.result_queue.append(None)


@cache
def _numbered(statement: bytes) -> bytes:
    """The statement with the placeholders of PostgreSQL."""
    first, *others = statement.split(b"%s")
    return first + b"".join(b"$%d%b" % (number, one) for number, one in enumerate(others, 1))


def _set_each(settings: Mapping[str, str]) -> list[_Statement]:
    return [setting(settings)] if settings else []


@cache
def _setting_each(names: tuple[str, ...]) -> bytes:
    each = [_QUERIES.composed("set_one", name=sql.Literal(name)) for name in names]
    return _QUERIES.composed("set_each", each=sql.SQL(", ").join(each)).as_bytes(None)


class _UtcLoader(Loader):
    """Times as our sessions write them: in the ISO form and in UTC.

    psycopg's own loader asks the connection for its form and zone. What is set within a transaction that is sent in one
    go, the connection learns of too late.
    """

    def load(self, data: Buffer) -> datetime:
        """The time; raises psycopg.DataError for one that Python cannot hold, such as infinity."""
        text = bytes(data).decode()
        try:
            return datetime.fromisoformat(text).astimezone(UTC)
        except ValueError as exc:
            raise psycopg.DataError(f"a time that cannot be read: {text!r}") from exc
