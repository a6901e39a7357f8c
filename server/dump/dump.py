"""Making a dump: the tables of one moment as Parquet files in a folder, and with them the pictures, if they are wanted.

The files have their names when they are whole, and the manifest, which lists them with their digests, is written last.
So a folder with a manifest holds a whole dump, whenever the command was killed. As with a backup, every row that the
moment has has its bytes, since no server removes any meanwhile (see server/backup/snapshot.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

import msgspec
from psycopg import sql
from psycopg.rows import TupleRow

from server import __version__
from server.backup.pictures import Copied, remember
from server.backup.snapshot import Keeping, Promised, Snapshot, keeping, taken
from server.backup.unfinished import SUFFIX, unfinished
from server.catalogue.rows import SpaceRow
from server.database import preconditions
from server.database.connections import Direct, connect
from server.database.queries import Queries
from server.dump.manifest import FORMAT, MANIFEST, File, Manifest, Space, Table
from server.dump.parts import Bounds, Parts
from server.dump.pictures import OBJECTS, PICTURES, Out
from server.dump.tables import schema_of
from server.errors import BackupRefused, DumpRefused, StorageFailed, StoreRefused
from server.ingest.mark import ask
from server.ingest.storage import MediaStore
from server.operations.progress import ShowProgress

_QUERIES = Queries.read("dump.sql").including("product_api_id", "media_api_id")
_TABLES: tuple[Table, ...] = ("attributes", "products", "media")
_FETCHED = 500
"""Rows in memory at a time: the attributes of each may be a megabyte."""


@dataclass(frozen=True)
class Wanted:
    """What is dumped: the catalogue of a client, or of all clients, with the vectors of the live space, or of all."""

    client: str | None = None
    all_spaces: bool = False
    pictures: bool = False
    """Whether the pictures' bytes are copied, too."""


@dataclass(frozen=True)
class Made:
    """A dump that has been made, and what became of the pictures where they were wanted."""

    manifest: Manifest
    copied: Copied


def make(
    direct: Direct,
    store: MediaStore,
    folder: Path,
    wanted: Wanted,
    *,
    show: ShowProgress,
    bounds: Bounds | None = None,
) -> Made:
    """Write a dump of the database into a folder, which must be empty or not there.

    Raises DumpRefused, StoreRefused, DatabaseUnusable and its kinds; then nothing is left in the folder.
    """
    with _emptied_on_failure(folder) as file, contextlib.ExitStack() as stack:
        keeper = stack.enter_context(keeping(direct, "A dump with pictures")) if wanted.pictures else None
        promised = stack.enter_context(tempfile.TemporaryFile(dir=folder))
        dump = _Dump(folder, wanted, show, bounds or Bounds())
        try:
            with connect(direct.url) as connection:
                preconditions.require_catalogue(connection)
            with taken(direct) as snapshot:
                if keeper is not None:
                    store.expected = snapshot.described.store
                    ask(store.look())
                described = dump.tables(snapshot, promised)
            copied = dump.pictures(store, promised, keeper) if keeper is not None else Copied()
        except StorageFailed as exc:
            raise StoreRefused(
                f"No dump was made: the store of pictures at {store.where} cannot be used ({exc.reason})."
            ) from exc
        os.sync()  # names and pictures are on the disk before the manifest says so
        manifest = dump.manifest(described, copied)
        # As readable as the files that it lists: nothing in it is secret.
        os.fchmod(file.fileno(), (folder / manifest.files[0].path).stat().st_mode & 0o777)
        file.write(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
    return Made(manifest, copied)


@dataclass(frozen=True)
class _Described:
    """What was dumped but for the files, and how many objects it promises."""

    at: str
    products: int
    media: int
    spaces: tuple[Space, ...]
    objects: int


class _Dump:
    def __init__(self, folder: Path, wanted: Wanted, show: ShowProgress, bounds: Bounds) -> None:
        self._folder = folder
        self._wanted = wanted
        self._show = show
        self._bounds = bounds
        self._id = uuid.uuid4().hex
        self._files: list[File] = []
        self._objects = 0

    def tables(self, snapshot: Snapshot, promised: IO[bytes]) -> _Described:
        """Write the tables, and remember what they promise of the store where pictures are wanted."""
        one = {"client": self._wanted.client}
        ((products,),) = self._all(snapshot, "count_products", one)
        ((media,),) = self._all(snapshot, "count_media", one)
        if self._wanted.client is not None and not products:
            raise DumpRefused(f"The catalogue has no products of a client {self._wanted.client!r}. Nothing was made.")
        ((attributes,),) = self._all(snapshot, "count_attributes", one)
        rows = [SpaceRow(*row) for row in self._all(snapshot, "spaces", {"every": self._wanted.all_spaces})]
        progress = self._show(attributes + products + media * (1 + len(rows)), "rows")
        for table in _TABLES:
            self._table(snapshot, _QUERIES.composed(table), self._parts(table), progress.add)
        spaces = []
        for row in rows:
            parts = self._parts(
                "vectors", space=row.id, below=f"vectors/{row.short_id}", dimensions=row.dimensions, model=row.model
            )
            statement = _QUERIES.of(row.table).composed("vectors")
            vectors = self._table(snapshot, statement, parts, progress.add)
            spaces.append(Space(row.id, row.dimensions, row.model, row.live, vectors))
        progress.clear()
        if self._wanted.pictures:
            found = snapshot.stream(_QUERIES.composed("objects"), one, at_once=_FETCHED)
            self._objects = remember((Promised(*row) for row in found), promised)
        at = snapshot.described.at.isoformat(timespec="seconds")
        return _Described(at, products, media, tuple(spaces), self._objects)

    def pictures(self, store: MediaStore, promised: IO[bytes], keeper: Keeping) -> Copied:
        """Copy what was remembered."""
        parts = self._parts("pictures", below=OBJECTS)
        progress = self._show(self._objects, "pictures and thumbnails")
        copied = asyncio.run(Out(store, self._folder, parts, progress).copy(promised))
        keeper.require()
        self._files += parts.close()
        return copied

    def manifest(self, described: _Described, copied: Copied) -> Manifest:
        return Manifest(
            format=FORMAT,
            id=self._id,
            twinlens=__version__,
            created_at=described.at,
            client=self._wanted.client,
            with_pictures=self._wanted.pictures,
            products=described.products,
            media=described.media,
            pictures=copied.objects,
            spaces=described.spaces,
            files=tuple(self._files),
        )

    def _parts(self, table: Table, *, space: str | None = None, below: str | None = None, **of_vectors: Any) -> Parts:
        schema = schema_of(table, dump=self._id, space=space, **of_vectors)
        return Parts(self._folder, table, schema, self._bounds, space=space, below=below)

    def _table(self, snapshot: Snapshot, statement: sql.Composed, parts: Parts, on_rows: Any) -> int:
        """How many rows were written."""
        rows = snapshot.stream(statement, {"client": self._wanted.client}, at_once=_FETCHED)
        written = 0
        while some := list(islice(rows, _FETCHED)):
            parts.add(some)
            written += len(some)
            on_rows(len(some))
        self._files += parts.close()
        return written

    def _all(self, snapshot: Snapshot, name: str, parameters: Mapping[str, object]) -> list[TupleRow]:
        return [tuple(row) for row in snapshot.stream(_QUERIES.composed(name), parameters, at_once=_FETCHED)]


@contextmanager
def _emptied_on_failure(folder: Path) -> Iterator[IO[bytes]]:
    """The manifest's file, in a folder that is made where it is not there, and left as it was where the block fails.

    Raises DumpRefused where there is something in it, where another process writes it, and for what the system refuses.
    """
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if there := next(iter(sorted(folder.iterdir())), None):
            raise DumpRefused(
                f"{folder} is not empty: it holds {there.name}. Give a new folder, or empty this one; a folder without "
                f"{MANIFEST} holds a dump that was never finished."
            )
        with unfinished(folder / MANIFEST) as file:
            try:
                yield file
            except BaseException:
                for one in (*_TABLES, "vectors", OBJECTS, PICTURES):
                    shutil.rmtree(folder / one, ignore_errors=True)
                (folder / f"{PICTURES}{SUFFIX}").unlink(missing_ok=True)
                raise
    except BaseException as exc:
        if made:
            with contextlib.suppress(OSError):
                folder.rmdir()
        if isinstance(exc, BackupRefused):
            cause = exc.__cause__
            raise (_unwritten(folder, cause) if isinstance(cause, OSError) else DumpRefused(exc.sentence)) from exc
        if isinstance(exc, OSError):
            raise _unwritten(folder, exc) from exc
        raise


def _unwritten(folder: Path, error: OSError) -> DumpRefused:
    # pyarrow's errors have the number, and a page of words.
    said = os.strerror(error.errno) if error.errno is not None else str(error)
    return DumpRefused(f"{folder} could not be written: {said}. Nothing is left of it.")
