"""The database beneath the catalogue: its connection pool, its migrations, and the file of named queries."""

from __future__ import annotations

import hashlib
import logging
import re
import select
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg
from pgvector.psycopg import register_vector_async
from psycopg import AsyncConnection, Connection, conninfo
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool

from server.errors import DatabaseUnusable

logger = logging.getLogger(__name__)

SQL = Path(__file__).parent.parent / "sql"

Pool = AsyncConnectionPool[AsyncConnection[TupleRow]]

OLDEST_PGVECTOR = (0, 8, 4)
"""Before it, a buffer overflow and an HNSW index that vacuum corrupts."""

LOCK_PATIENCE = 2.0
"""Seconds a statement waits for a lock. Our own transactions take milliseconds; a forgotten one of somebody else's must
not hold every connection of the pool."""

MOST_WAITING = 256
"""Callers who wait for a connection; more are refused at once."""

# Advisory locks are pairs of integers: ours begin with "twin" in ASCII.
LOCKS = 0x7477696E
LOCK_MIGRATIONS = 1
LOCK_SPACES = 2
LOCK_INDEXES = 3
# With these the second integer is the number of a space: who re-embeds for it, and which server mends it.
LOCKS_OF_REEMBEDDING = LOCKS + 1
LOCKS_OF_MENDERS = LOCKS + 2


# --- connections -----------------------------------------------------------------------------------------------------


def open_pool(url: str, *, min_size: int, max_size: int, timeout: float, longest: float = 30.0) -> Pool:
    """A pool of autocommit connections that know pgvector's types; closed until entered with `async with`.

    `timeout`: seconds that a caller waits for a connection; `longest`: seconds that a statement may run. A connection
    is looked at before it is lent, so one that a restart of PostgreSQL has broken is replaced before anyone notices.
    """
    return AsyncConnectionPool(
        url,
        open=False,
        min_size=min_size,
        max_size=max_size,
        timeout=timeout,
        max_waiting=MOST_WAITING,
        name="catalogue",
        kwargs={"autocommit": True, "connect_timeout": max(2, round(timeout))},
        configure=partial(_configure, longest=longest),
        check=_check,
        # The pool doubles its pauses between attempts; after an outage of minutes the next attempt would be minutes
        # away. Giving up soon and beginning anew keeps them within a few seconds.
        reconnect_timeout=3.0,
        reconnect_failed=_begin_anew,
    )


async def _configure(connection: AsyncConnection[TupleRow], *, longest: float) -> None:
    await register_vector_async(connection)
    await connection.execute(f"SET lock_timeout = {round(LOCK_PATIENCE * 1000)}".encode())
    await connection.execute(f"SET statement_timeout = {round(longest * 1000)}".encode())
    # A partial index is chosen only when the plan knows the client; a generic plan, made after five runs, does not.
    await connection.execute("SET plan_cache_mode = force_custom_plan")
    # Compiling a plan takes longer than any search of ours.
    await connection.execute("SET jit = off")
    if not connection.autocommit:
        await connection.commit()


async def _check(connection: AsyncConnection[TupleRow]) -> None:
    """Ask a connection whether it lives, where there is a doubt: one at rest has nothing to say, unless it ends."""
    waiting = select.poll()
    waiting.register(connection.fileno(), select.POLLIN)
    if waiting.poll(0):
        await AsyncConnectionPool.check_connection(connection)


async def _begin_anew(pool: AsyncConnectionPool[Any]) -> None:
    await pool.check()


@contextmanager
def connect(url: str) -> Iterator[Connection[TupleRow]]:
    """One plain autocommit connection, for the work before the server serves.

    Raises DatabaseUnusable, in a sentence that never holds the password, when the database cannot be reached or does
    not do what it is asked.
    """
    try:
        password = conninfo.conninfo_to_dict(url).get("password")
    except psycopg.ProgrammingError:
        # The message repeats the URL, so it is left out together with its traceback.
        raise DatabaseUnusable(
            "The database URL cannot be read; it should look like postgresql://user:password@host:5432/name."
        ) from None
    try:
        with psycopg.connect(url, autocommit=True, connect_timeout=10) as connection:
            yield connection
    except psycopg.Error as exc:
        reason = str(exc).strip()
        if password:
            reason = reason.replace(str(password), "***")
        raise DatabaseUnusable(f"The database cannot be used: {reason}") from exc


# --- migrations ------------------------------------------------------------------------------------------------------


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
    logger.info("applied migration %s", migration.name)


# --- named queries ---------------------------------------------------------------------------------------------------


def load_queries(path: Path = SQL / "queries.sql") -> dict[str, str]:
    """The statements of a file by name: each begins with a line `-- name --`, a sentence in comments may follow."""
    parts = re.split(r"^-- ([a-z_]+) --$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {name: text.strip() for name, text in zip(parts[1::2], parts[2::2], strict=True)}
