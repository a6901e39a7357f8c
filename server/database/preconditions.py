"""What a database must be, and what its role must be allowed to do, before anything is written there.

Each condition that does not hold is a sentence with the remedy. Looking changes nothing: a refused start leaves the
database as it was.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeVar

import psycopg
from psycopg import Connection
from psycopg.rows import TupleRow, class_row, scalar_row

from server.database.queries import Queries
from server.errors import DatabaseUnfit

OLDEST_POSTGRES = 150_000
"""As server_version_num. The view `image_embeddings` checks the rights of who asks (security_invoker), which is new in
PostgreSQL 15."""

OLDEST_PGVECTOR = (0, 8, 4)
"""Earlier ones have a buffer overflow, and HNSW indexes that vacuum corrupts."""

SAFE_IVFFLAT = (0, 8, 7)
"""In earlier ones the build of an IVFFlat index can write beyond a buffer. Twinlens makes no such index."""

_CREATE = "CREATE EXTENSION vector"

Record = TypeVar("Record")


@dataclass(frozen=True)
class Seen:
    """The server and the database as this role sees them. `schema`: the one that tables are made in, if any."""

    database: str
    role: str
    version: str
    version_number: int
    encoding: str
    standby: bool
    read_only: bool
    search_path: str
    schema: str | None
    may_create: bool


@dataclass(frozen=True)
class Pgvector:
    """The extension in this database. `usable`: its schema may be used by this role."""

    version: str
    schema: str
    usable: bool


@dataclass(frozen=True)
class _Table:
    name: str
    owner: str


def require_writable(connection: Connection[TupleRow]) -> None:
    """That Twinlens' tables can be made here, or changed and filled where they are. Raises DatabaseUnfit."""
    seen = look(connection)
    if seen.version_number < OLDEST_POSTGRES:
        raise DatabaseUnfit(
            f"The database server is PostgreSQL {seen.version}; at least {OLDEST_POSTGRES // 10_000} is needed."
        )
    if seen.standby:
        raise DatabaseUnfit(
            f"The database {seen.database} is on a standby, which only reads: give the URL of the primary. A URL that "
            "names several hosts finds it by itself with target_session_attrs=read-write."
        )
    if seen.read_only:
        raise DatabaseUnfit(
            f"Transactions of {seen.role} in the database {seen.database} are read-only: default_transaction_read_only "
            f"is on. Turn it off for Twinlens: ALTER ROLE {quoted(seen.role)} SET default_transaction_read_only = off"
        )
    if not is_unicode(seen.encoding):
        raise DatabaseUnfit(
            f"The database {seen.database} is encoded in {seen.encoding}, which cannot hold every name: Twinlens needs "
            f"UTF8. Make another one: CREATE DATABASE {quoted(seen.database + '_utf8')} ENCODING 'UTF8' TEMPLATE "
            "template0 LOCALE 'C'"
        )
    schema = _require_schema(connection, seen)
    if not seen.may_create:
        raise DatabaseUnfit(
            f"The role {seen.role} may not make tables in the schema {schema} of the database {seen.database}: let "
            f"an administrator run there GRANT CREATE ON SCHEMA {quoted(schema)} TO {quoted(seen.role)}"
        )
    _require_pgvector(connection, seen)
    if others := _rows(connection, _Table, "tables_of_others"):
        first = others[0]
        raise DatabaseUnfit(
            f"The table {first.name} belongs to {first.owner}, and {seen.role} must be able to change it: start with "
            f"{first.owner}'s URL, or let an administrator run GRANT {quoted(first.owner)} TO {quoted(seen.role)}"
        )


def require_readable(connection: Connection[TupleRow]) -> None:
    """That the tables of a catalogue that is there can be read. Raises DatabaseUnfit."""
    seen = look(connection)
    _require_schema(connection, seen)
    if (found := find_pgvector(connection)) is not None:
        _require_usable(found, seen)
    if unreadable := _rows(connection, _Table, "unreadable_tables"):
        first = unreadable[0]
        raise DatabaseUnfit(
            f"The role {seen.role} may not read the table {first.name}, which belongs to {first.owner}: let "
            f"{first.owner} run GRANT SELECT ON ALL TABLES IN SCHEMA {quoted(seen.schema or '')} TO "
            f"{quoted(seen.role)}"
        )


def require_catalogue(connection: Connection[TupleRow]) -> None:
    """That the database holds a catalogue of Twinlens. Raises DatabaseUnfit."""
    require_readable(connection)
    if not _value(connection, "catalogue_is_here"):
        raise DatabaseUnfit(
            f"The database {look(connection).database} holds no catalogue of Twinlens, which the first start of a "
            "server makes."
        )


def look(connection: Connection[TupleRow]) -> Seen:
    """The server, the database and the role's rights."""
    (seen,) = _rows(connection, Seen, "look")
    return seen


def find_pgvector(connection: Connection[TupleRow]) -> Pgvector | None:
    """The extension, if this database has it."""
    return next(iter(_rows(connection, Pgvector, "pgvector")), None)


def names_taken(connection: Connection[TupleRow], names: list[str]) -> list[str]:
    """Which of these names a table, view or index of the schema has already."""
    with connection.cursor(row_factory=scalar_row) as cursor:
        query = Queries.read("preconditions.sql")["taken_names"]
        return cursor.execute(query, {"names": names}).fetchall()


def migrations_are_recorded(connection: Connection[TupleRow]) -> bool:
    """Whether there is the table that records migrations."""
    return bool(_value(connection, "migrations_are_recorded"))


def is_unicode(encoding: str) -> bool:
    """Whether a database of this encoding holds every text."""
    return encoding == "UTF8"


def version_of(text: str) -> tuple[int, ...]:
    """An extension's version, for comparing."""
    return tuple(int(part) for part in re.findall(r"\d+", text))


def dotted(version: tuple[int, ...]) -> str:
    """The version as it is written."""
    return ".".join(map(str, version))


def quoted(name: str) -> str:
    """A name as SQL writes it, for statements that a person is to run."""
    return name if re.fullmatch(r"[a-z_][a-z0-9_]*", name) else '"' + name.replace('"', '""') + '"'


def _require_schema(connection: Connection[TupleRow], seen: Seen) -> str:
    """The schema of the tables. Raises DatabaseUnfit where there is none, or where a catalogue lies out of sight."""
    if seen.schema is None:
        raise DatabaseUnfit(
            f"The search_path of {seen.role} in the database {seen.database} ({seen.search_path or 'empty'}) leads to "
            "no schema that exists and that this role may use. Name one that does: "
            f"ALTER ROLE {quoted(seen.role)} IN DATABASE {quoted(seen.database)} SET search_path = public"
        )
    if not _value(connection, "catalogue_is_here"):
        with connection.cursor(row_factory=scalar_row) as cursor:
            query = Queries.read("preconditions.sql")["schemas_with_a_catalogue"]
            elsewhere: list[str] = cursor.execute(query).fetchall()
        if elsewhere:
            raise DatabaseUnfit(
                f"The catalogue of the database {seen.database} lies in the schema {elsewhere[0]}, to which the "
                f"search_path of {seen.role} ({seen.search_path}) does not lead. Run ALTER ROLE {quoted(seen.role)} IN "
                f"DATABASE {quoted(seen.database)} SET search_path = {quoted(elsewhere[0])}, or give Twinlens a "
                "database of its own."
            )
    return seen.schema


def _require_pgvector(connection: Connection[TupleRow], seen: Seen) -> None:
    with connection.cursor(row_factory=scalar_row) as cursor:
        offered = cursor.execute(Queries.read("preconditions.sql")["available_pgvector"]).fetchone()
    found = find_pgvector(connection)
    needed = dotted(OLDEST_PGVECTOR)
    if found is not None:
        if version_of(found.version) < OLDEST_PGVECTOR:
            newer = offered is not None and version_of(offered) >= OLDEST_PGVECTOR
            raise DatabaseUnfit(
                f"The database {seen.database} has pgvector {found.version}, whose indexes can be corrupted; at least "
                f"{needed} is needed: {'' if newer else 'install it on the database server, then '}run ALTER EXTENSION "
                "vector UPDATE."
            )
        _require_usable(found, seen)
        return
    if offered is None:
        raise DatabaseUnfit("The database server does not have the extension pgvector: install it there.")
    if version_of(offered) < OLDEST_PGVECTOR:
        raise DatabaseUnfit(
            f"The database server has pgvector {offered}, whose indexes can be corrupted; at least {needed} is needed: "
            "install it there."
        )
    try:
        # Rights that a hosted PostgreSQL gives beyond the catalogue's cannot be asked for, only tried.
        with connection.transaction(force_rollback=True):
            connection.execute(_CREATE)
    except psycopg.errors.InsufficientPrivilege as exc:
        raise DatabaseUnfit(
            f"The database {seen.database} has no pgvector yet, and {seen.role} may not add it: let an administrator "
            f"run {_CREATE} in it once."
        ) from exc
    except (psycopg.errors.FeatureNotSupported, psycopg.errors.UndefinedFile) as exc:
        raise DatabaseUnfit(
            f"pgvector cannot be added to the database {seen.database}: {exc.diag.message_primary}. Install it on the "
            "database server again."
        ) from exc


def _require_usable(found: Pgvector, seen: Seen) -> None:
    if not found.usable:
        raise DatabaseUnfit(
            f"pgvector lies in the schema {found.schema} of the database {seen.database}, which {seen.role} may not "
            f"use: let an administrator run there GRANT USAGE ON SCHEMA {quoted(found.schema)} TO {quoted(seen.role)}"
        )


def _rows(connection: Connection[TupleRow], record: type[Record], name: str) -> list[Record]:
    with connection.cursor(row_factory=class_row(record)) as cursor:
        return cursor.execute(Queries.read("preconditions.sql")[name]).fetchall()


def _value(connection: Connection[TupleRow], name: str) -> object:
    with connection.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute(Queries.read("preconditions.sql")[name]).fetchone()
