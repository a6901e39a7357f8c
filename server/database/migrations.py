"""Numbered schema changes: each is applied once, in order, and recorded with its digest."""

from __future__ import annotations

import hashlib
import logging
import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import psycopg
from psycopg import Connection
from psycopg.rows import TupleRow, args_row, class_row, scalar_row

from server.database.connections import Direct, connect, direct_of
from server.database.locks import LOCK_MIGRATIONS, LOCKS
from server.database.queries import SQL, Queries
from server.database.session import SessionConnection
from server.errors import BadSetting, DatabaseUnusable, SessionNeeded
from server.settings import Pooling, Settings

_log = logging.getLogger(__name__)

OLDEST_PGVECTOR = (0, 8, 4)
"""Earlier ones have a buffer overflow, and HNSW indexes that vacuum corrupts."""


_IDENTITY = Queries.read("session.sql")["identity"]
_MIGRATING = "To change the database's schema takes"


@dataclass(frozen=True)
class Migration:
    """One numbered file of schema changes, `NNNN_name.sql`."""

    number: int
    name: str
    text: str

    @property
    def digest(self) -> str:
        """SHA-256 of the text, in hex."""
        return hashlib.sha256(self.text.encode()).hexdigest()


@dataclass(frozen=True)
class _Applied:
    """What the database has recorded of a migration."""

    number: int
    name: str
    digest: str


def load_migrations(folder: Path = SQL) -> list[Migration]:
    """The migrations of `folder`, in order. Raises DatabaseUnusable when two share a number."""
    migrations = [
        Migration(int(path.name[:4]), path.stem, path.read_text(encoding="utf-8"))
        for path in sorted(folder.glob("[0-9][0-9][0-9][0-9]_*.sql"))
    ]
    for one, next_one in pairwise(migrations):
        if one.number == next_one.number:
            raise DatabaseUnusable(f"The migrations {one.name} and {next_one.name} have the same number.")
    return migrations


def migrate(url: str, folder: Path = SQL, *, pooling: Pooling = "auto") -> list[str]:
    """Bring the database at `url` to this version's schema; gives the names of the migrations that it applied.

    Any number of processes may call it at once: one works, the others wait and find nothing left to do. Raises
    DatabaseUnusable when the database cannot be reached, has no pgvector or one that is too old, is newer than this
    code, or was made by a migration that has changed since; SessionNeeded when there is something to do, and a pooler
    of transactions is in between.
    """
    migrations = load_migrations(folder)
    with connect(url, lasting=True, pooling=pooling) as connection:
        # Behind a pooler of transactions it is only made sure that nothing is left to do.
        if connection.per_transaction is None or not _has_begun(connection):
            begin_migrating(connection)
        with connection.cursor(row_factory=class_row(_Applied)) as cursor:
            query = "SELECT number, name, digest FROM twinlens_migrations ORDER BY number"
            applied = cursor.execute(query).fetchall()
        _require_known(applied, migrations)
        known = {one.number for one in applied}
        pending = [migration for migration in migrations if migration.number not in known]
        if pending and connection.per_transaction is not None:
            raise SessionNeeded(_MIGRATING)
        for migration in pending:
            apply(connection, migration)
    return [migration.name for migration in pending]


def migrate_directly(settings: Settings, url: str) -> list[str]:
    """As `migrate`, for the database of the settings, `url`, through the direct URL where they give one.

    Raises BadSetting when that one leads to another database.
    """
    direct = direct_of(settings, url)
    require_same_database(direct, url)
    return migrate(direct.url, pooling=direct.pooling)


def require_same_database(direct: Direct, url: str) -> None:
    """Raises BadSetting when the direct URL leads to another database than `url`: its catalogue would be hidden there.

    Where PostgreSQL does not tell who it is, nothing is refused.
    """
    if direct.url == url:
        return
    one, other = _identity(direct.url), _identity(url)
    if one is not None and other is not None and one != other:
        raise BadSetting(
            f"TWINLENS_DIRECT_DATABASE_URL leads to another database ({one[2]}) than TWINLENS_DATABASE_URL "
            f"({other[2]}). Both must lead to the same one, the first without a pooler in between."
        )


def _identity(url: str) -> tuple[int, int, str] | None:
    """Cluster and database, as numbers that no other has, and the database's name."""
    with connect(url) as connection:
        try:
            return connection.cursor(row_factory=args_row(lambda *row: row)).execute(_IDENTITY).fetchone()
        except (psycopg.errors.InsufficientPrivilege, psycopg.errors.FeatureNotSupported):
            return None


def _has_begun(connection: SessionConnection) -> bool:
    cursor = connection.cursor(row_factory=scalar_row)
    return bool(cursor.execute("SELECT to_regclass('twinlens_migrations') IS NOT NULL").fetchone())


def begin_migrating(connection: SessionConnection) -> None:
    """Until the connection is closed, let no other process migrate; and make what every migration relies on.

    Raises DatabaseUnusable when there is no pgvector, or one that is too old, SessionNeeded.
    """
    if connection.per_transaction is not None:
        raise SessionNeeded(_MIGRATING)
    connection.execute("SELECT pg_advisory_lock(%s, %s)", (LOCKS, LOCK_MIGRATIONS))
    _require_pgvector(connection)
    connection.execute(
        """
        CREATE TABLE IF NOT EXISTS twinlens_migrations (
            number integer PRIMARY KEY,
            name text NOT NULL,
            digest text NOT NULL,
            "appliedAt" timestamptz NOT NULL DEFAULT now()
        )
        """
    )


def _require_pgvector(connection: Connection[TupleRow]) -> None:
    try:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
    except psycopg.errors.InsufficientPrivilege as exc:
        raise DatabaseUnusable(
            "The database has no pgvector yet, and this user may not add it: let an administrator run "
            "CREATE EXTENSION vector in it once."
        ) from exc
    except (psycopg.errors.FeatureNotSupported, psycopg.errors.UndefinedFile) as exc:
        raise DatabaseUnusable("The database server does not have the extension pgvector: install it there.") from exc
    with connection.cursor(row_factory=scalar_row) as cursor:
        found = cursor.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone()
    version = str(found or "0")
    if tuple(int(part) for part in re.findall(r"\d+", version)) < OLDEST_PGVECTOR:
        raise DatabaseUnusable(
            f"The database has pgvector {version}, whose indexes can be corrupted; at least "
            f"{'.'.join(map(str, OLDEST_PGVECTOR))} is needed: install it, then run ALTER EXTENSION vector UPDATE."
        )


def _require_known(applied: list[_Applied], migrations: list[Migration]) -> None:
    known = {migration.number: migration for migration in migrations}
    for one in applied:
        if one.number not in known:
            raise DatabaseUnusable(
                f"The database is newer than this version of Twinlens: it holds the migration {one.name}, which is "
                "unknown here. Start the newer version, or restore an older backup."
            )
        if known[one.number].digest != one.digest:
            raise DatabaseUnusable(
                f"The migration {known[one.number].name} is not the one that made this database: an applied migration "
                "must not change. Restore the file, and put the change in a new migration."
            )


def apply(connection: Connection[TupleRow], migration: Migration, text: str | None = None) -> None:
    """Apply a migration and record it, all or nothing.

    `text`: run this in place of the migration's own text, for a database that has a part of it already.

    Raises DatabaseUnusable.
    """
    try:
        with connection.transaction():
            connection.execute((text or migration.text).encode())
            connection.execute(
                "INSERT INTO twinlens_migrations (number, name, digest) VALUES (%s, %s, %s)",
                (migration.number, migration.name, migration.digest),
            )
    except psycopg.OperationalError:
        raise
    except psycopg.errors.DuplicateTable as exc:
        raise DatabaseUnusable(
            f"The database holds tables that Twinlens did not make ({exc.diag.message_primary}). If they are of the "
            "legacy schema, python -m server doctor reports on them, and python -m server migrate --adopt takes them "
            "over; if not, give Twinlens a database of its own."
        ) from exc
    except psycopg.Error as exc:
        raise DatabaseUnusable(f"The migration {migration.name} failed, and nothing of it was kept: {exc}") from exc
    _log.info("applied migration %s", migration.name)
