"""Which store belongs to a database: a mark in the store, and the same id in the database.

The first start writes both. Later ones insist on them. A folder below which a volume is not mounted, and the store of
another database, are refused in place of being used. Only where a database is empty is a folder made.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

import psycopg
from psycopg import Connection
from psycopg.rows import TupleRow, scalar_row

from server.database.connections import connect
from server.database.locks import LOCK_STORE, LOCKS
from server.database.queries import Queries
from server.errors import DatabaseUnusable, StorageFailed, StoreRefused, StoreUnavailable
from server.ingest.storage import MARK, NOTE, Mark, MediaStore

T = TypeVar("T")

_SAMPLE = 20
_ANSWER_WITHIN_SECONDS = 30.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Standing:
    """How a database and its store stand to each other."""

    id: str
    """Of the mark that both have."""
    own: bool
    """Whether the store was marked by this very database, and not by one that this one is a copy of."""


def settle(url: str, store: MediaStore, *, or_away: bool = False) -> Standing:
    """Have the store be the one of the database, and expect its mark from now on.

    A database that has no store yet gets this one. `or_away`: a database's store that cannot be used at this moment is
    no error, but the store's trouble; for the workers of a server that found it at its start. Raises StoreRefused,
    DatabaseUnusable.
    """
    with connect(url) as connection, connection.transaction():
        begin(connection)
        database, recorded = identity(connection), _scalar(connection, "recorded")
        try:
            found = _mark_of(store)
            if recorded is None:
                found = _first(connection, store, found, database)
            elif found is None or found.id != recorded:
                raise StoreRefused(_lost(store) if found is None else _foreign(store))
        except (StorageFailed, StoreRefused) as exc:
            if not or_away or recorded is None:
                if isinstance(exc, StoreRefused):
                    raise
                raise StoreRefused(_away(store, exc.reason)) from exc
            store.trouble = exc if isinstance(exc, StorageFailed) else StoreUnavailable(reason=exc.sentence)
            found = Mark(recorded)
        store.expected = found.id
        return Standing(found.id, own=database is not None and found.database == database)


def look(connection: Connection[TupleRow], store: MediaStore, *, catalogue: bool) -> None:
    """That the store can be the one of a database that is about to be migrated. Raises StoreRefused.

    `catalogue`: whether there is one. Changes nothing in the database. Where pictures are promised, the store gets its
    mark here, which shows that it can be written to.
    """
    recorded = _scalar(connection, "recorded") if _scalar(connection, "known") else None
    keys = _promised(connection) if catalogue else []
    if recorded is None and not keys and store.folder is not None and not store.folder.exists():
        return
    try:
        found, database = _mark_of(store), identity(connection)
        if recorded is not None:
            if found is None or found.id != recorded:
                raise StoreRefused(_lost(store) if found is None else _foreign(store))
        elif found is not None:
            if database is None or found.database != database:
                raise StoreRefused(_foreign(store))
        elif not keys:
            _require_empty(store)
        elif not any(ask(_all(store, keys))):
            raise StoreRefused(_without(store, len(keys), _REMEDY_BEFORE))
        else:
            ask(store.write_mark(Mark(uuid.uuid4().hex, database)))
    except StorageFailed as exc:
        raise StoreRefused(_away(store, exc.reason)) from exc


def adopt(url: str, store: MediaStore, *, whatever: bool = False) -> tuple[int, int]:
    """Make this store the database's from now on, and no other database's; where it is a folder, make it.

    Gives how many pictures were looked for in it, and how many are there. `whatever`: also where none is. Raises
    StoreRefused, DatabaseUnusable.
    """
    with connect(url) as connection, connection.transaction():
        begin(connection)
        try:
            store.make()
            _mark_of(store)
            looked_for, there = _sample(connection, store)
            if not looked_for and not whatever and ask(store.holds_pictures()):
                raise StoreRefused(
                    f"The database has no pictures, and {store.where} holds some, which a sweep would then remove. "
                    "Where nobody needs them any more, add --yes."
                )
            if looked_for and not there and not whatever:
                raise StoreRefused(
                    f"The database has pictures, and none of {looked_for} that were looked for is in {store.where}. "
                    "Put the pictures there first; or, where they are lost for good, add --yes."
                )
            mark = Mark(uuid.uuid4().hex, identity(connection))
            ask(store.write_mark(mark, replace=True))
        except StorageFailed as exc:
            raise StoreRefused(_away(store, exc.reason)) from exc
        connection.execute(_queries()["record"], {"id": mark.id})
    store.expected = mark.id
    return looked_for, there


def begin(connection: Connection[TupleRow]) -> None:
    """Until the transaction ends, nobody else decides about the store. Raises DatabaseUnusable where tables lack."""
    if not _scalar(connection, "known"):
        raise DatabaseUnusable("The database's schema is not up to date: run python -m server migrate first.")
    connection.execute(_queries()["lock"], {"locks": LOCKS, "lock": LOCK_STORE})


def identity(connection: Connection[TupleRow]) -> str | None:
    """What tells this database from all others, the copies that were restored from a dump included."""
    try:
        with connection.transaction():
            cluster = _scalar(connection, "cluster")
    except psycopg.errors.InsufficientPrivilege:
        cluster = "unknown"
    database = _scalar(connection, "database")
    return f"{cluster}/{database}" if database else None


def _mark_of(store: MediaStore) -> Mark | None:
    """The store's mark. Raises StoreRefused where a restore into the store has not ended."""
    mark = ask(store.read_mark())
    if mark is None and ask(store.read_note()) is not None:
        raise StoreRefused(
            f"A backup is being restored into the store of pictures at {store.where}, or that was interrupted: {NOTE} "
            "says so. Restore it to its end, with the same settings: python -m server restore FILE. Where nobody "
            f"wants that any more, empty the store, {NOTE} included."
        )
    return mark


def _first(connection: Connection[TupleRow], store: MediaStore, found: Mark | None, database: str | None) -> Mark:
    """The mark of the store of a database that has none so far."""
    if found is None:
        looked_for, there = _sample(connection, store)
        if looked_for and not there:
            raise StoreRefused(_without(store, looked_for))
        if not looked_for:
            _require_empty(store)
        if looked_for != there:
            _log.warning("Of %d pictures looked for in %s, %d are there.", looked_for, store.where, there)
        mark = Mark(uuid.uuid4().hex, database)
        ask(store.write_mark(mark))
    elif database is None or found.database != database:
        raise StoreRefused(_foreign(store))
    else:
        mark = found  # a start ended between the mark in the store and the record in the database
    connection.execute(_queries()["record"], {"id": mark.id})
    return mark


def _require_empty(store: MediaStore) -> None:
    """That a database without pictures does not take over a store that holds some. Raises StoreRefused."""
    if ask(store.holds_pictures()):
        raise StoreRefused(
            f"The database has no pictures, and the store at {store.where} holds some: most likely it is another "
            "database's, or this is not the database that you mean (TWINLENS_DATABASE_URL, TWINLENS_DATA). Nothing was "
            "written there. Give an empty place with TWINLENS_MEDIA_URL; or, where nobody needs these pictures any "
            "more, remove them first."
        )


def _sample(connection: Connection[TupleRow], store: MediaStore) -> tuple[int, int]:
    """How many pictures were looked for, and how many are there. Where the database has none, the folder is made."""
    keys = _promised(connection)
    if not keys:
        store.make()
    return len(keys), sum(ask(_all(store, keys)))


def _promised(connection: Connection[TupleRow]) -> list[str]:
    """Where the newest and the oldest pictures of the database are to be found in its store."""
    with connection.cursor(row_factory=scalar_row) as cursor:
        keys: list[str] = cursor.execute(_queries()["promised"], {"count": _SAMPLE}).fetchall()
    return keys


async def _all(store: MediaStore, keys: list[str]) -> list[bool]:
    return list(await asyncio.gather(*(store.has(key) for key in keys)))


def ask(question: Coroutine[Any, Any, T]) -> T:
    """The store's answer, in a thread without an event loop. Raises StoreUnavailable when none comes in time."""

    async def bounded() -> T:
        async with asyncio.timeout(_ANSWER_WITHIN_SECONDS):
            return await question

    try:
        return asyncio.run(bounded())
    except TimeoutError as exc:
        raise StoreUnavailable(reason=f"no answer in {_ANSWER_WITHIN_SECONDS:.0f} seconds") from exc


def _queries() -> Queries:
    return Queries.read("store.sql")


def _scalar(connection: Connection[TupleRow], name: str) -> str | None:
    with connection.cursor(row_factory=scalar_row) as cursor:
        found: str | None = cursor.execute(_queries()[name]).fetchone()
    return found


# --- sentences -------------------------------------------------------------------------------------------------------

_REMEDY = (
    "Mount it, or name the right place with TWINLENS_MEDIA_URL or TWINLENS_DATA. Where the pictures have moved without "
    "their mark, or are lost for good: python -m server store --adopt, with the settings of this start."
)
_REMEDY_BEFORE = (
    "Mount it, or name the right place with TWINLENS_MEDIA_URL or TWINLENS_DATA. Where the pictures are lost for good: "
    "python -m server migrate, after which the version before cannot be started any more, and then python -m server "
    "store --adopt --yes."
)


def _away(store: MediaStore, reason: str) -> str:
    return (
        f"The store of pictures at {store.where} cannot be used: {reason}. Nothing was started. Mount it, or name "
        "the right place with TWINLENS_MEDIA_URL or TWINLENS_DATA, and see that this user may read and write there."
    )


def _without(store: MediaStore, looked_for: int, remedy: str = "") -> str:
    return (
        f"The database has pictures, and none of {looked_for} that were looked for is in {store.where}: most likely a "
        f"volume is not mounted there, or it is not the place. Nothing was written. {remedy or _REMEDY}"
    )


def _lost(store: MediaStore) -> str:
    return (
        f"The store of pictures at {store.where} lacks {MARK}, the mark that this database's store has: most likely a "
        f"volume is not mounted there, or it is not the place. Nothing was written. {_REMEDY}"
    )


def _foreign(store: MediaStore) -> str:
    return (
        f"The store of pictures at {store.where} belongs to another database: its mark, {MARK}, is not this "
        "database's. Two databases must not share a store, since each would remove the pictures of the other. Give "
        "this one a place of its own with TWINLENS_MEDIA_URL or TWINLENS_DATA. Where the other database is gone, and "
        "this one is to have its place: python -m server store --adopt, with the settings of this start."
    )
