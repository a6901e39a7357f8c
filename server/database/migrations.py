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
from psycopg.rows import TupleRow

from server.database.connections import connect
from server.database.locks import LOCK_MIGRATIONS, LOCKS
from server.database.queries import SQL
from server.errors import DatabaseUnusable

_log = logging.getLogger(__name__)

OLDEST_PGVECTOR = (0, 8, 4)
"""Before it, a buffer overflow and an HNSW index that vacuum corrupts."""


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
    DatabaseUnusable when the database cannot be reached, has no pgvector or too old a one, is newer than this code, or
    was made by a migration that has changed since.
    """
    migrations = load_migrations(folder)
    with connect(url) as connection:
        begin_migrating(connection)
        rows = connection.execute("SELECT number, name, digest FROM twinlens_migrations ORDER BY number").fetchall()
        applied = {number: (name, digest) for number, name, digest in rows}
        _require_known(applied, migrations)
        pending = [migration for migration in migrations if migration.number not in applied]
        for migration in pending:
            apply(connection, migration)
    return [migration.name for migration in pending]


def begin_migrating(connection: Connection[TupleRow]) -> None:
    """Be the only one who migrates, until the connection is closed, with all that migrations take for granted.

    Raises DatabaseUnusable when there is no pgvector or too old a one.
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
    row = connection.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone()
    version = str(row[0]) if row else "0"
    if tuple(int(part) for part in re.findall(r"\d+", version)) < OLDEST_PGVECTOR:
        raise DatabaseUnusable(
            f"The database has pgvector {version}, whose indexes can be corrupted; at least "
            f"{'.'.join(map(str, OLDEST_PGVECTOR))} is needed: install it, then run ALTER EXTENSION vector UPDATE."
        )


def _require_known(applied: dict[int, tuple[str, str]], migrations: list[Migration]) -> None:
    known = {migration.number: migration for migration in migrations}
    for number, (name, digest) in applied.items():
        if number not in known:
            raise DatabaseUnusable(
                f"The database is newer than this version of Twinlens: it holds the migration {name}, which is unknown "
                "here. Start the newer version, or restore an older backup."
            )
        if known[number].digest != digest:
            raise DatabaseUnusable(
                f"The migration {known[number].name} is not the one that made this database: an applied migration must "
                "not change. Restore the file, and put the change in a new migration."
            )


def apply(connection: Connection[TupleRow], migration: Migration, text: str | None = None) -> None:
    """Apply a migration and record it, all or nothing; `text` in place of its own where part of it is there already.

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
            f"The database holds tables that Twinlens did not make ({exc.diag.message_primary}). If they are the "
            "older system's, python -m server doctor says how they are, and python -m server migrate --adopt takes "
            "them over; if not, give Twinlens a database of its own."
        ) from exc
    except psycopg.Error as exc:
        raise DatabaseUnusable(f"The migration {migration.name} failed, and nothing of it was kept: {exc}") from exc
    _log.info("applied migration %s", migration.name)
