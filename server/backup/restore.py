"""Restoring a backup into an empty database and an empty store.

All of the file is compared with its digests before anything is opened. Then, in this order:

1. a note in the store, which says that a restore is going on: a server refuses such a store;
2. the pictures;
3. the database, in one transaction that ends with this version's schema and the id of the store's new mark;
4. the mark, and the note's end.

So whenever it is interrupted, no server starts on a part of it, and restoring the same file again ends well: up to 3
the database is empty, and after it only the mark is lacking.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from psycopg import sql
from psycopg.rows import scalar_row

from server.backup import manifest as manifests
from server.backup.archive import DUMP, MANIFEST, Archive
from server.backup.load import Loader
from server.backup.manifest import Manifest
from server.backup.shelves import Shelves
from server.database import preconditions
from server.database.connections import Direct, connect
from server.database.migrations import lock_migrations
from server.database.queries import Queries
from server.database.session import SessionConnection
from server.errors import BackupRefused, StorageFailed, StoreRefused
from server.ingest.mark import ask, identity
from server.ingest.storage import Mark, MediaStore
from server.operations.progress import ShowProgress

_QUERIES = Queries.read("backup.sql")
_MEGABYTE = 1_000_000
_NONE: tuple[str, ...] = ()


@dataclass(frozen=True)
class Restored:
    """What a restore has made."""

    objects: int
    """Pictures and thumbnails that were stored; 0 where the pictures were left out."""
    migrations: tuple[str, ...]
    """Those that the backup lacked, and that were applied."""


def check(archive: Archive, show: ShowProgress) -> Manifest:
    """Compare all of a backup with its digests, and see that this version can restore it. Raises BackupRefused."""
    try:
        manifest = manifests.read(archive.read(archive.head()[MANIFEST]))
        progress, rest = show(max(1, archive.bytes // _MEGABYTE), "MB checked"), 0

        def on_piece(size: int) -> None:
            nonlocal rest
            whole, rest = divmod(rest + size, _MEGABYTE)
            progress.add(whole)

        archive.check(on_piece)
        progress.clear()
    except BackupRefused as exc:
        raise BackupRefused(f"{exc.sentence} Nothing was changed.") from exc
    return manifest


def restore(
    direct: Direct,
    store: MediaStore,
    archive: Archive,
    manifest: Manifest,
    *,
    with_media: bool,
    show: ShowProgress,
    say: Callable[[str], None],
) -> Restored:
    """Make the database, and with `with_media` the store, what the backup holds. It has been checked.

    `say` is told what begins. Raises BackupRefused where one of them is not empty, or where the dump does not fit the
    database; StoreRefused, DatabaseUnusable and its kinds.
    """
    with connect(direct.url, lasting=True, pooling=direct.pooling) as connection:
        lock_migrations(connection)  # no server makes its tables meanwhile
        shelves = Shelves(store, archive, manifest)
        objects, applied = 0, _NONE
        try:
            filled = _values(connection, "filled", schema=_fitting_schema(connection, manifest))
            note = ask(shelves.left(_recorded(connection))) if filled and with_media else None
            if note is not None:
                objects = manifest.objects
            elif filled:
                raise BackupRefused(
                    f"The database holds tables already ({', '.join(filled[:3])}...): a backup is restored into an "
                    "empty one. Nothing was changed. Give another one with TWINLENS_DATABASE_URL or TWINLENS_DATA."
                )
            else:
                loader = Loader(direct.url, connection, manifest)
                if with_media:
                    note = asyncio.run(shelves.prepare())
                    objects = asyncio.run(shelves.fill(show(manifest.objects, "pictures and thumbnails")))
                    os.sync()  # pictures are on the disk before rows promise them
                say("Restoring the database.")
                applied = loader.load(archive, archive.head()[DUMP], store_id=None if note is None else note.mark)
            if note is not None:
                ask(shelves.finish(Mark(note.mark, identity(connection))))
        except StorageFailed as exc:
            raise StoreRefused(
                f"The restore has not ended: the store of pictures at {store.where} cannot be used ({exc.reason}). See "
                "to it, then run the same command again."
            ) from exc
        tables = _values(connection, "tables", schema=manifest.schema)
        named = sql.SQL(", ").join(sql.Identifier(manifest.schema, one) for one in tables)
        connection.execute(_QUERIES.composed("analyse", tables=named))
    return Restored(objects, applied)


def _fitting_schema(connection: SessionConnection, manifest: Manifest) -> str:
    """The schema of the backup's tables, where this database can have them. Raises BackupRefused, DatabaseUnfit."""
    preconditions.require_writable(connection)
    seen, pgvector = preconditions.look(connection), preconditions.find_pgvector(connection)
    role = preconditions.quoted(seen.role)
    if seen.schema != manifest.schema:
        name = preconditions.quoted(manifest.schema)
        raise BackupRefused(
            f"The backup's catalogue lies in the schema {manifest.schema}, and the search_path of {seen.role} leads to "
            f"{seen.schema}. Nothing was changed. Run CREATE SCHEMA IF NOT EXISTS {name}; ALTER ROLE {role} IN "
            f"DATABASE {preconditions.quoted(seen.database)} SET search_path = {name}"
        )
    if pgvector is not None and pgvector.schema != manifest.vector_schema:
        raise BackupRefused(
            f"pgvector lies in the schema {pgvector.schema} of the database {seen.database}, and the backup wants it "
            f"in {manifest.vector_schema}. Nothing was changed. Let an administrator run there ALTER EXTENSION vector "
            f"SET SCHEMA {preconditions.quoted(manifest.vector_schema)}"
        )
    return manifest.schema


def _recorded(connection: SessionConnection) -> str | None:
    """The id of the database's store, where it has one."""
    found = _values(connection, "store") if _values(connection, "has_stores")[0] else []
    return found[0] if found else None


def _values(connection: SessionConnection, name: str, **parameters: object) -> list[Any]:
    with connection.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute(_QUERIES[name], parameters).fetchall()
