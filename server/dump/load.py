"""Loading a dump into a database, beside what it holds: rows are added, and none that is there is changed.

Everything that can be wrong is looked for before anything is written: each file against its digest, the space of the
vectors against the live one, each row against the row that the database has of it. Then, in this order:

1. the pictures, where the dump has them, so that every row has its bytes;
2. what attributes are declared as, and the products;
3. the media;
4. the vectors. Until they are in, servers embed no pictures that lack one.

Each batch of rows is a transaction of its own, and finds what is there already. So a load that was killed at any moment
is run again, and goes on; and one that has ended changes nothing the second time.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
from pgvector.psycopg import register_vector
from psycopg.rows import class_row, dict_row, scalar_row

from server.access import audit
from server.artifact.artifact import Artifact
from server.backup.snapshot import keeping
from server.catalogue.ids import id_elsewhere
from server.catalogue.rows import SpaceRow
from server.database import isolation, migrations
from server.database.connections import Direct, connect
from server.database.locks import LOCKS_OF_MAINTENANCE
from server.database.queries import Queries
from server.database.session import SessionConnection
from server.dump.manifest import File, Manifest, Space, Table, sha256_of
from server.dump.parts import batches, require_columns
from server.dump.pictures import In, file_of
from server.dump.tables import columns_of, schema_of
from server.errors import DumpRefused, StorageFailed, StoreRefused
from server.ingest.mark import settle
from server.ingest.storage import MediaStore
from server.operations.progress import Progress, ShowProgress
from server.settings import Settings
from server.spaces.spaces import SpaceDescription, find_live_space, open_space
from server.wording import counted

_QUERIES = Queries.read("dump.sql").including("product_api_id", "media_api_id")
_QUERIES = _QUERIES.including("given_attributes", "given_products", "given_media")
_COMPARED: tuple[Table, ...] = ("attributes", "products", "media")
_ONE_OF: Mapping[str, str] = {
    "unlike_attributes": "declared attribute",
    "unlike_products": "product",
    "unlike_media": "media",
}
_EXAMPLES = 3
_MEGABYTE = 1_000_000
_TRIES = 5

_IN_THE_WAY = (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure, psycopg.errors.UniqueViolation)
"""What transactions of servers can cause; the batch is tried again."""

_REFUSED = (psycopg.errors.IntegrityError, psycopg.errors.DataError)
"""What the database says of a row that it cannot have."""


@dataclass(frozen=True)
class Wanted:
    """What is loaded of a dump. `keep`: rows that are there, and otherwise, stay as they are, and are no error."""

    vectors: bool = True
    pictures: bool = True
    keep: bool = False


@dataclass
class Loaded:
    """What a load has added to the database and the store."""

    products: int = 0
    media: int = 0
    vectors: int = 0
    attributes: int = 0
    """Attributes that are now declared, and were not."""
    pictures: int = 0
    """Objects in the store, thumbnails included."""
    kept: int = 0
    """Products, media and declared attributes that are there, and otherwise than in the dump; they were left as they
    are."""
    twins: int = 0
    """Media that are left out: their product has another media with the same bytes."""
    gone: int = 0
    """Media that could not be loaded: their product is not there."""
    examples: list[str] = field(default_factory=list)


# --- before anything is written --------------------------------------------------------------------------------------


def check(folder: Path, manifest: Manifest, wanted: Wanted, show: ShowProgress) -> None:
    """Compare every file that is to be loaded with its digest, and its columns with ours. Raises DumpRefused."""
    files = [one for one in manifest.files if _is_wanted(one, wanted)]
    progress, rest = show(max(1, sum(one.bytes for one in files) // _MEGABYTE), "MB of tables checked"), 0

    def on_piece(size: int) -> None:
        nonlocal rest
        whole, rest = divmod(rest + size, _MEGABYTE)
        progress.add(whole)

    for one in files:
        _compare(folder / one.path, bytes.fromhex(one.sha256), on_piece)
        require_columns(folder, one, _schema(manifest, one))
    progress.clear()
    if wanted.pictures and manifest.with_pictures:
        progress = show(manifest.pictures, "pictures and thumbnails checked")
        for key, digest, _ in _objects(folder, manifest):
            _compare(folder / file_of(digest, key), digest)
            progress.add(1)
        progress.clear()


def _compare(path: Path, digest: bytes, on_piece: Callable[[int], None] = lambda _: None) -> None:
    try:
        found = sha256_of(path, on_piece)
    except OSError as exc:
        raise DumpRefused(f"The dump is not whole: {path} cannot be read ({exc.strerror or exc}).") from exc
    if found != digest:
        raise DumpRefused(f"The dump is damaged: {path} is not what was written there. Take another copy of the dump.")


def _is_wanted(file: File, wanted: Wanted) -> bool:
    return {"vectors": wanted.vectors, "pictures": wanted.pictures}.get(file.table, True)


def _schema(manifest: Manifest, file: File) -> pa.Schema:
    space = manifest.space(file.space) if file.space is not None else None
    dimensions = space.dimensions if space is not None else 0
    return schema_of(file.table, dump=manifest.id, space=file.space, dimensions=dimensions)


def _objects(folder: Path, manifest: Manifest) -> Iterator[tuple[str, bytes, int]]:
    """The objects of the dump: key, SHA-256 and size."""
    for file in manifest.files_of("pictures"):
        for batch in batches(folder, file, _schema(manifest, file)):
            columns = columns_of(batch)
            yield from zip(columns["key"], columns["digest"], columns["bytes"], strict=True)


def make_ready(settings: Settings, url: str, manifest: Manifest, wanted: Wanted) -> SpaceRow | None:
    """Have the database hold a catalogue that the dump fits; the space that its vectors go into, where it has them.

    An empty one gets its tables, and the space of the artifact that the settings name. Raises DumpRefused where the
    live space is another one, DatabaseUnusable, ArtifactInvalid.
    """
    with connect(url) as connection:
        there = bool(migrations.look(connection).applied)
        live = find_live_space(connection) if there else None
    described = None
    if wanted.vectors and manifest.spaces:
        if live is None:
            described = SpaceDescription.of(Artifact.read(settings.model), settings.precision)
            _space_of(manifest, described.id, f"the artifact {settings.model} makes")
        else:
            _space_of(manifest, live, "the database has live")
    if there:
        migrations.require_migrated(url, writing=True)
    else:
        migrations.migrate_directly(settings, url)
        isolation.arrange(url, settings.serving_url)
    if described is not None:
        return open_space(url, described)
    if live is None or not wanted.vectors or not manifest.spaces:
        return None
    with connect(url) as connection, connection.cursor(row_factory=class_row(SpaceRow)) as cursor:
        row = cursor.execute(_QUERIES["live_space"]).fetchone()
    if row is None or row.id != live:
        raise DumpRefused("The live space was switched at this moment. Nothing was loaded; run the command again.")
    return row


def _space_of(manifest: Manifest, space_id: str, whose: str) -> Space:
    """The dump's space with this id. Raises DumpRefused."""
    found = manifest.space(space_id)
    if found is None:
        there = ", ".join(map(str, manifest.spaces))
        raise DumpRefused(
            f"The dump has vectors of {there}, and {whose} the space {space_id[:12]}: vectors of different spaces "
            "cannot be compared. Nothing was changed. For an empty database, name the dump's artifact with "
            "TWINLENS_MODEL; for another one add --without-vectors, and servers embed the pictures whose bytes are in "
            "the store."
        )
    return found


# --- loading ---------------------------------------------------------------------------------------------------------


def load(
    direct: Direct,
    store: MediaStore,
    folder: Path,
    manifest: Manifest,
    space: SpaceRow | None,
    wanted: Wanted,
    *,
    show: ShowProgress,
) -> Loaded:
    """Load a dump that has been checked. `space`: what its vectors go into; None: they are left out.

    Raises DumpRefused, StoreRefused, DatabaseUnusable and its kinds; what was loaded by then stays, and the same
    command goes on.
    """
    pictures = wanted.pictures and manifest.with_pictures
    with contextlib.ExitStack() as stack:
        keeper = stack.enter_context(keeping(direct, "Loading pictures")) if pictures else None
        connection = stack.enter_context(connect(direct.url, lasting=True, pooling=direct.pooling))
        loading = _Loading(connection, folder, manifest, wanted)
        loading.compare(show)
        if keeper is not None:
            # Rows that are not there yet promise nothing: but for the keeper, a sweep could take these for orphans.
            loading.loaded.pictures = _put(direct, store, folder, manifest, show)
            os.sync()
            keeper.require()
        loading.begin(space)
        loading.rows(space, show)
    return loading.loaded


def _put(direct: Direct, store: MediaStore, folder: Path, manifest: Manifest, show: ShowProgress) -> int:
    """How many objects were put into the store."""
    settle(direct.url, store)
    progress = show(manifest.pictures, "pictures and thumbnails")
    into = In(store, folder, progress)
    try:
        asyncio.run(into.put(_objects(folder, manifest)))
    except StorageFailed as exc:
        raise StoreRefused(
            f"The load has not ended: the store of pictures at {store.where} cannot be used ({exc.reason}). No row was "
            "loaded. See to it, then run the same command again."
        ) from exc
    progress.clear()
    return into.stored


class _Loading:
    def __init__(self, connection: SessionConnection, folder: Path, manifest: Manifest, wanted: Wanted) -> None:
        register_vector(connection)
        self._connection = connection
        self._folder = folder
        self._manifest = manifest
        self._wanted = wanted
        self.loaded = Loaded()

    def compare(self, show: ShowProgress) -> None:
        """That no row is there already, and otherwise than in the dump. Raises DumpRefused."""
        if self._scalar("is_empty"):
            return
        rows = sum(file.rows for table in _COMPARED for file in self._manifest.files_of(table))
        progress, unlike = show(rows, "rows compared"), 0
        examples: list[str] = []
        for table in _COMPARED:
            for _, batch in self._batches(table):
                with self._transaction():
                    found = self._unlike(f"unlike_{table}", batch)
                unlike += len(found)
                examples += found[: _EXAMPLES - len(examples)]
                progress.add(len(batch["clientId"]))
        progress.clear()
        if unlike and not self._wanted.keep:
            raise DumpRefused(
                f"The database has {counted(unlike, 'row')} of the dump, and otherwise: {', '.join(examples)}"
                f"{', ...' if unlike > len(examples) else ''}. Nothing was changed. Add --keep to leave those as they "
                "are and load the rest, or load into an empty database."
            )
        self.loaded.kept, self.loaded.examples = unlike, examples

    def begin(self, space: SpaceRow | None) -> None:
        """Say in the audit that rows are being loaded, and have the servers leave their vectors to us."""
        with self._transaction():
            audit.record(self._connection, "load", client_id=self._manifest.client, object=self._manifest.id)
        if space is not None and self._connection.per_transaction is None:
            lock = {"locks": LOCKS_OF_MAINTENANCE, "number": space.number}
            self._connection.execute(_QUERIES["pause_backfill"], lock)

    def rows(self, space: SpaceRow | None, show: ShowProgress) -> None:
        """Add what is not there."""
        found = self._manifest.space(space.id) if space is not None else None
        vectors = found.vectors if found is not None else 0
        rows = sum(file.rows for table in _COMPARED for file in self._manifest.files_of(table))
        progress = show(rows + vectors, "rows")
        self._each("attributes", None, self._add_attributes, progress)
        self._each("products", None, self._add_products, progress)
        self._each("media", None, self._add_media, progress)
        if space is not None:
            statement = _QUERIES.of(space.table)
            number = space.number

            def add_vectors(batch: dict[str, list[Any]]) -> None:
                self.loaded.vectors += self._added(statement["add_vectors"], {**batch, "number": number})

            self._each("vectors", space.id, add_vectors, progress)
            self._connection.execute(statement["analyse_vectors"])
        self._connection.execute(_QUERIES["analyse"])
        progress.clear()

    def _each(
        self, table: Table, space: str | None, add: Callable[[dict[str, list[Any]]], None], progress: Progress
    ) -> None:
        for file, batch in self._batches(table, space):
            for attempt in range(1, _TRIES + 1):
                try:
                    with self._transaction():
                        add(batch)
                    break
                except _IN_THE_WAY as exc:
                    if attempt == _TRIES:
                        raise self._refused(file, exc) from exc
                except _REFUSED as exc:
                    raise self._refused(file, exc) from exc
            progress.add(len(batch["clientId"]))

    def _refused(self, file: File, error: psycopg.Error) -> DumpRefused:
        said = error.diag.message_primary or type(error).__name__
        return DumpRefused(
            f"The database refuses rows of {self._folder / file.path}: {said}. What was loaded before them stays; the "
            "same command goes on from there."
        )

    def _add_attributes(self, batch: dict[str, list[Any]]) -> None:
        self.loaded.attributes += self._added(_QUERIES["add_attributes"], batch)
        self._require_like("unlike_attributes", batch)

    def _add_products(self, batch: dict[str, list[Any]]) -> None:
        self.loaded.products += self._added(_QUERIES["add_products"], batch)
        self._require_like("unlike_products", batch)

    def _add_media(self, batch: dict[str, list[Any]]) -> None:
        added = self._added(_QUERIES["add_media"], batch)
        if added < len(batch["id"]):
            with self._connection.cursor(row_factory=dict_row) as cursor:
                known = cursor.execute(_QUERIES["known_media"], batch).fetchone() or {"there": 0, "twins": 0}
            self.loaded.twins += known["twins"]
            self.loaded.gone += len(batch["id"]) - known["there"] - known["twins"]
            self._require_like("unlike_media", batch)
        self.loaded.media += added

    def _require_like(self, statement: str, batch: Mapping[str, list[Any]]) -> None:
        """That nobody has changed what was compared. Raises DumpRefused."""
        if not self._wanted.keep and (unlike := self._unlike(statement, batch)):
            raise DumpRefused(
                f"Somebody has changed these while the dump was loaded: {', '.join(unlike[:_EXAMPLES])}. What was "
                "loaded before them stays. Add --keep to leave those as they are, and load the rest."
            )

    def _unlike(self, statement: str, batch: Mapping[str, list[Any]]) -> list[str]:
        what = _ONE_OF[statement]
        with self._connection.cursor(row_factory=dict_row) as cursor:
            found = cursor.execute(_QUERIES[statement], batch).fetchall()
        return [
            f"{what} {one['id']} of client {one['client_id']}"
            + (" (another product has its SKU)" if one["by_sku"] else "")
            for one in found
        ]

    def _added(self, statement: bytes, batch: Mapping[str, Any]) -> int:
        with self._connection.cursor(row_factory=scalar_row) as cursor:
            return int(cursor.execute(statement, batch).fetchone() or 0)

    def _batches(self, table: Table, space: str | None = None) -> Iterator[tuple[File, dict[str, list[Any]]]]:
        for file in self._manifest.files_of(table, space):
            for batch in batches(self._folder, file, _schema(self._manifest, file)):
                columns = columns_of(batch)
                if "id" in columns:
                    ids = zip(columns["clientId"], columns["id"], strict=True)
                    columns["elsewhere"] = [id_elsewhere(client, one) for client, one in ids]
                yield file, columns

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._connection.transaction():
            self._connection.execute(_QUERIES["one_by_one"])
            yield

    def _scalar(self, name: str) -> object:
        with self._connection.cursor(row_factory=scalar_row) as cursor:
            return cursor.execute(_QUERIES[name]).fetchone()
