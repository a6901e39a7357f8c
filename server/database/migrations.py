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
from psycopg.rows import TupleRow, class_row, scalar_row

from server.database.connections import connect
from server.database.locks import LOCK_MIGRATIONS, LOCKS
from server.database.queries import SQL
from server.errors import DatabaseUnusable

_log = logging.getLogger(__name__)

OLDEST_PGVECTOR = (0, 8, 4)
"""Earlier ones have a buffer overflow, and HNSW indexes that vacuum corrupts."""


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


def migrate(url: str, folder: Path = SQL) -> list[str]:
    """Bring the database at `url` to this version's schema; gives the names of the migrations that it applied.

    Any number of processes may call it at once: one works, the others wait and find nothing left to do. Raises
    DatabaseUnusable when the database cannot be reached, has no pgvector or one that is too old, is newer than this
    code, or was made by a migration that has changed since.
    """
    migrations = load_migrations(folder)
    with connect(url) as connection:
        begin_migrating(connection)
        with connection.cursor(row_factory=class_row(_Applied)) as cursor:
            query = "SELECT number, name, digest FROM twinlens_migrations ORDER BY number"
            applied = cursor.execute(query).fetchall()
        _require_known(applied, migrations)
        known = {one.number for one in applied}
        pending = [migration for migration in migrations if migration.number not in known]
        for migration in pending:
            apply(connection, migration)
    return [migration.name for migration in pending]


def begin_migrating(connection: Connection[TupleRow]) -> None:
    """Until the connection is closed, let no other process migrate; and make what every migration relies on.

    Raises DatabaseUnusable when there is no pgvector, or one that is too old.
    """
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
