"""One moment of a catalogue that goes on being written: what it is made of, and what keeps it whole until it is saved.

Three things hold while a backup runs, so that every row that is saved has its bytes:

- the moment itself: a snapshot, which pg_dump reads as well;
- the tables as they are: until pg_dump is through, nobody may change or drop one, which a migration would;
- the bytes: no server removes any from the store. That is said before the moment is taken, so a deletion either is not
  seen any more, or comes after it and leaves its bytes.

The last one holds for as long as the session that said it. So it ends by itself when the backup is killed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from psycopg import ConnectionInfo, IsolationLevel, sql
from psycopg.rows import class_row, dict_row, scalar_row, tuple_row

from server.backup.manifest import Applied
from server.database import preconditions
from server.database.connections import Direct, connect
from server.database.locks import LOCK_BACKUP, LOCK_MIGRATIONS, LOCKS
from server.database.queries import Queries
from server.database.session import SessionConnection
from server.errors import BackupRefused, DatabaseUnfit, SessionNeeded

_QUERIES = Queries.read("backup.sql")
_OBJECTS_AT_ONCE = 2000


@dataclass(frozen=True)
class Promised:
    """An object that a row of the catalogue promises; what the row says of it, where it says anything."""

    key: str
    bytes: int | None
    digest: str | None
    """SHA-256 in hex."""
    thumbnail: bool
    """A thumbnail is made anew where it is missing."""


@dataclass(frozen=True)
class Described:
    """What a catalogue is made of, at one moment."""

    at: datetime
    database: str
    postgres: int
    """The major version."""
    schema: str
    vector_schema: str
    other_schemas: tuple[str, ...]
    migrations: tuple[Applied, ...]
    store: str | None
    products: int
    media: int
    space: str | None
    model: str | None
    other_roles: tuple[str, ...]


class Keeping:
    """Keeps the bytes in the store, for as long as its connection lives."""

    def __init__(self, connection: SessionConnection) -> None:
        self._connection = connection

    def begin(self) -> None:
        """From now on no server removes bytes."""
        self._connection.execute(_QUERIES["keep"], {"locks": LOCKS, "lock": LOCK_BACKUP})

    def require(self) -> None:
        """That it has been so all the time. Raises DatabaseUnusable, BackupRefused where it was not."""
        cursor = self._connection.cursor(row_factory=scalar_row)
        if not cursor.execute(_QUERIES["still_kept"], {"locks": LOCKS, "lock": LOCK_BACKUP}).fetchone():
            raise BackupRefused(
                "The database has let go of the backup's lock, so pictures may be missing. Begin again."
            )


class Snapshot:
    """One moment of a catalogue, for as long as its transaction lasts."""

    def __init__(self, connection: SessionConnection, name: str, described: Described) -> None:
        self._connection = connection
        self.name = name
        """By which other sessions see the same moment."""
        self.described = described

    @property
    def server(self) -> ConnectionInfo:
        """Where the snapshot is: the URL may name several servers."""
        return self._connection.info

    def stream(
        self, statement: bytes | sql.Composed, parameters: Mapping[str, object], *, at_once: int
    ) -> Iterator[Sequence[Any]]:
        """The rows of a statement at this moment, so many of them in memory at a time; columns come in binary form."""
        with self._connection.cursor(name="rows", row_factory=tuple_row) as cursor:
            cursor.itersize = at_once
            yield from cursor.execute(statement, parameters, binary=True)

    def objects(self) -> Iterator[Promised]:
        """What the rows promise of the store, some thousands in memory at a time."""
        with self._connection.cursor(name="objects", row_factory=class_row(Promised)) as cursor:
            cursor.itersize = _OBJECTS_AT_ONCE
            yield from cursor.execute(_QUERIES["objects"])


@contextmanager
def keeping(direct: Direct, what: str = "A backup") -> Iterator[Keeping]:
    """Have the servers keep all bytes until this block ends, for `what`. Raises DatabaseUnusable and its kinds."""
    with connect(direct.url, lasting=True, pooling=direct.pooling) as connection:
        if connection.per_transaction is not None:
            raise SessionNeeded(f"{what} takes")
        preconditions.require_catalogue(connection)
        seen = preconditions.look(connection)
        if seen.standby:
            raise DatabaseUnfit(
                f"The database {seen.database} is on a standby, where servers do not see that the bytes of pictures "
                "are needed: give the URL of the primary."
            )
        keeper = Keeping(connection)
        keeper.begin()
        yield keeper


@contextmanager
def taken(direct: Direct) -> Iterator[Snapshot]:
    """A snapshot of this moment, and tables that stay as they are until this block ends. Raises DatabaseUnusable."""
    with connect(direct.url, lasting=True, pooling=direct.pooling) as connection:
        lock = {"locks": LOCKS, "lock": LOCK_MIGRATIONS}
        connection.execute(_QUERIES["hold_migrations"], lock)
        schema = preconditions.look(connection).schema or ""
        tables = _values(connection, "tables", schema=schema)
        connection.isolation_level, connection.read_only = IsolationLevel.REPEATABLE_READ, True
        with connection.transaction():
            named = sql.SQL(", ").join(sql.Identifier(schema, one) for one in tables)
            connection.execute(_QUERIES.composed("lock_tables", tables=named))
            (name,) = _values(connection, "export_snapshot")
            described = _describe(connection, schema)
            _values(connection, "release_migrations", **lock)  # a lock of the session: whoever waits goes on now
            yield Snapshot(connection, name, described)


def _describe(connection: SessionConnection, schema: str) -> Described:
    seen = preconditions.look(connection)
    pgvector = preconditions.find_pgvector(connection)
    with connection.cursor(row_factory=class_row(Applied)) as cursor:
        migrations = tuple(cursor.execute(_QUERIES["migrations"]).fetchall())
    with connection.cursor(row_factory=dict_row) as cursor:
        live = cursor.execute(_QUERIES["live_space"]).fetchone() or {"id": None, "model": None}
    serving = _values(connection, "serving_roles") if _values(connection, "has_serving_roles")[0] else []
    store = _values(connection, "store") if _values(connection, "has_stores")[0] else []
    return Described(
        at=datetime.now(UTC),
        database=seen.database,
        postgres=seen.version_number // 10_000,
        schema=schema,
        vector_schema=pgvector.schema if pgvector is not None else schema,
        other_schemas=tuple(_values(connection, "other_schemas", schema=schema)),
        migrations=migrations,
        store=store[0] if store else None,
        products=_values(connection, "count_products")[0],
        media=_values(connection, "count_media")[0],
        space=live["id"],
        model=live["model"],
        other_roles=tuple(_values(connection, "other_roles", schema=schema, serving=serving)),
    )


def _values(connection: SessionConnection, name: str, **parameters: object) -> list[Any]:
    with connection.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute(_QUERIES[name], parameters).fetchall()
