"""Numbered schema changes: each is applied once, in order, and recorded with its digest."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise, takewhile
from pathlib import Path

import psycopg
from psycopg import Connection
from psycopg.rows import TupleRow, args_row, class_row

from server.database import preconditions
from server.database.connections import connect, direct_of
from server.database.locks import LOCK_MIGRATIONS, LOCKS
from server.database.queries import SQL, Queries
from server.database.session import SessionConnection
from server.errors import BadSetting, DatabaseUnfit, DatabaseUnusable, SessionNeeded
from server.settings import Pooling, Settings

_log = logging.getLogger(__name__)

_MADE = re.compile(r"^CREATE (?:TABLE|VIEW) (\w+)", flags=re.MULTILINE)


_IDENTITY = Queries.read("session.sql")["identity"]
_MIGRATING = "To change the database's schema takes"


@dataclass(frozen=True)
class Migration:
    """One numbered file of schema changes, `NNNN_name.sql`."""

    number: int
    name: str
    text: str

    @property
    def makes(self) -> list[str]:
        """The tables and views that it makes."""
        return _MADE.findall(self.text)

    @property
    def about(self) -> str:
        """The first sentence of the comment at its head."""
        head = " ".join(line.removeprefix("--").strip() for line in takewhile(_is_comment, self.text.splitlines()))
        return head.partition(". ")[0].rstrip(".")

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


@dataclass(frozen=True)
class State:
    """What a database has, by name, and what it still lacks of a version's migrations."""

    applied: list[str]
    pending: list[Migration]


LastLook = Callable[[Connection[TupleRow], bool], None]
"""Raises what speaks against changing the database's schema. It is told whether a catalogue is there."""


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


def migrate(url: str, folder: Path = SQL, *, pooling: Pooling = "auto", last_look: LastLook | None = None) -> list[str]:
    """Bring the database at `url` to this version's schema; gives the names of the migrations that it applied.

    Whatever speaks against it is looked for first, and then nothing is written. `last_look` is called where the schema
    is about to be changed; what it raises keeps the database as it is.

    Any number of processes may call it at once: one works, the others wait and find nothing left to do. Raises
    DatabaseUnusable when the database cannot be reached, does not meet the preconditions, is newer than this code, or
    was made by a migration that has changed since; SessionNeeded when there is something to do, and a pooler of
    transactions is in between.
    """
    with connect(url, lasting=True, pooling=pooling) as connection:
        # Behind a pooler of transactions it is only made sure that nothing is left to do.
        if connection.per_transaction is None:
            lock_migrations(connection)
        state = look(connection, folder)
        if state.pending:
            if connection.per_transaction is not None:
                raise SessionNeeded(_MIGRATING)
            if last_look is not None:
                last_look(connection, bool(state.applied))
            prepare(connection)
        for migration in state.pending:
            apply(connection, migration)
    return [migration.name for migration in state.pending]


def migrate_directly(settings: Settings, url: str, *, last_look: LastLook | None = None) -> list[str]:
    """As `migrate`, for the database of the settings, `url`, through the direct URL where they give one.

    Raises BadSetting when that one leads to another database.
    """
    direct = direct_of(settings, url)
    require_same_database(direct.url, url)
    return migrate(direct.url, pooling=direct.pooling, last_look=last_look)


def require_same_database(one: str, url: str, setting: str = "TWINLENS_DIRECT_DATABASE_URL") -> None:
    """Raises BadSetting when the URL of this setting leads to another database than `url`: its catalogue would be
    hidden there.

    Where PostgreSQL does not tell who it is, nothing is refused.
    """
    if one == url:
        return
    found, other = _identity(one), _identity(url)
    if found is not None and other is not None and found != other:
        raise BadSetting(
            f"{setting} leads to another database ({found[2]}) than TWINLENS_DATABASE_URL ({other[2]}). Both must lead "
            "to the same one, the first without a pooler in between."
        )


def _identity(url: str) -> tuple[int, int, str] | None:
    """Cluster and database, as numbers that no other has, and the database's name."""
    with connect(url) as connection:
        try:
            return connection.cursor(row_factory=args_row(lambda *row: row)).execute(_IDENTITY).fetchone()
        except (psycopg.errors.InsufficientPrivilege, psycopg.errors.FeatureNotSupported):
            return None


def require_migrated(url: str, *, writing: bool = False) -> None:
    """That the database has this version's schema, without changing it; `writing`: and that it can be written to.

    For commands beside servers, some of which may be of an older version. Raises DatabaseUnusable.
    """
    with connect(url) as connection:
        preconditions.require_catalogue(connection)
        if writing:
            preconditions.require_writable(connection)
        state = _state(connection, load_migrations())
        if state.pending:
            raise DatabaseUnfit(
                f"The database is of an older version of Twinlens (it lacks {state.pending[0].name}), and this command "
                "does not change that. Make a backup, then bring it up to date: python -m server migrate"
            )


def lock_migrations(connection: SessionConnection) -> None:
    """Until the connection is closed, let no other process migrate. Raises SessionNeeded."""
    if connection.per_transaction is not None:
        raise SessionNeeded(_MIGRATING)
    connection.execute("SELECT pg_advisory_lock(%s, %s)", (LOCKS, LOCK_MIGRATIONS))


def look(connection: Connection[TupleRow], folder: Path = SQL) -> State:
    """Which migrations the database has and lacks, once nothing speaks against applying them. Writes nothing.

    Raises DatabaseUnfit.
    """
    preconditions.require_writable(connection)
    state = _state(connection, load_migrations(folder))
    names = [name for migration in state.pending for name in migration.makes]
    if taken := preconditions.names_taken(connection, names):
        raise DatabaseUnfit(
            f"The database holds tables that Twinlens did not make ({', '.join(taken)}). If they are of the legacy "
            "schema, python -m server doctor reports on them, and python -m server migrate --adopt takes them over; if "
            "not, give Twinlens a database of its own."
        )
    return state


def prepare(connection: Connection[TupleRow]) -> None:
    """Make what every migration relies on."""
    connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
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


def _state(connection: Connection[TupleRow], migrations: list[Migration]) -> State:
    applied: list[_Applied] = []
    if preconditions.migrations_are_recorded(connection):
        with connection.cursor(row_factory=class_row(_Applied)) as cursor:
            query = "SELECT number, name, digest FROM twinlens_migrations ORDER BY number"
            applied = cursor.execute(query).fetchall()
    _require_known(applied, migrations)
    known = {one.number for one in applied}
    return State(
        [one.name for one in applied], [migration for migration in migrations if migration.number not in known]
    )


def _require_known(applied: list[_Applied], migrations: list[Migration]) -> None:
    known = {migration.number: migration for migration in migrations}
    for one in applied:
        if one.number not in known:
            raise DatabaseUnfit(
                f"The database is newer than this version of Twinlens: it holds the migration {one.name}, which is "
                "unknown here. Start the newer version, or restore an older backup."
            )
        if known[one.number].digest != one.digest:
            raise DatabaseUnfit(
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
    except psycopg.Error as exc:
        raise DatabaseUnusable(f"The migration {migration.name} failed, and nothing of it was kept: {exc}") from exc
    _log.info("applied migration %s", migration.name)


def _is_comment(line: str) -> bool:
    return line.startswith("--")
