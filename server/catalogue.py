"""Products, media, their embeddings, and the matches of a picture: all that is asked of the database.

Each method runs the statement of the same name in `sql/queries.sql`; rows leave as frozen objects. A catalogue works in
one embedding space: it searches that one, and what it stores is stored there.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, TypeVar

import numpy as np
import psycopg
from numpy.typing import ArrayLike, NDArray
from pgvector import HalfVector
from psycopg import AsyncConnection, sql
from psycopg.rows import BaseRowFactory, TupleRow, class_row, tuple_row
from psycopg_pool import PoolClosed, PoolTimeout, TooManyRequests

from server.database import LOCK_INDEXES, LOCK_SPACES, LOCKS, Pool, connect, load_queries
from server.errors import (
    ArtifactInvalid,
    BadParameter,
    CatalogueBusy,
    CatalogueConflict,
    CatalogueFailed,
    CatalogueUnavailable,
    MediaNotFound,
    OutcomeUnknown,
    Overloaded,
    ProductIdTaken,
    ProductNotFound,
    SkuTaken,
    SpaceNotLive,
    VectorRefused,
)
from server.similarity import similarity

logger = logging.getLogger(__name__)

T = TypeVar("T")

Digest = bytes
"""SHA-256 of a file's bytes, 32 bytes."""

MOST_MATCHES = 1000
MOST_DIMENSIONS = 4000  # of a halfvec in an HNSW index
NORM_TOLERANCE = 1e-3  # what the database's CHECK allows

MARGIN = 16  # candidates beyond the limit: inner products of halves rank a little differently than their cosines
LEAST_EF_SEARCH = 200  # recall 0.993 on 50,000 vectors; 100 gave 0.985
MOST_EF_SEARCH = 1000  # pgvector's limit
INDEX_THRESHOLD = 20_000  # active media of a client; below, looking at each takes less than 30 ms
INDEXES_KNOWN_FOR = 30.0  # seconds


@dataclass(frozen=True)
class Product:
    """A product of a client's."""

    id: str
    client_id: str
    name: str
    sku: str | None
    is_active: bool
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True)
class NewMedia:
    """A media to be added: a picture whose bytes are stored under `s3_key`, with SHA-256 `content_digest`.

    `width` and `height` in pixels, after orientation; `bytes` is the file's size.
    """

    id: str
    product_id: str
    client_id: str
    s3_key: str
    thumbnail_key: str | None
    content_type: str | None
    bytes: int | None
    width: int | None
    height: int | None
    content_digest: Digest
    kind: str = "image"


@dataclass(frozen=True)
class Media:
    """One picture of a product."""

    id: str
    product_id: str
    client_id: str
    kind: str
    status: str
    s3_key: str
    thumbnail_key: str | None
    content_type: str | None
    bytes: int | None
    width: int | None
    height: int | None
    content_digest: Digest | None
    created_at: datetime


@dataclass(frozen=True)
class Match:
    """A media that was found, with its cosine to the query: in [-1, 1], to the sixth decimal."""

    product_id: str
    product_name: str
    media_id: str
    s3_key: str
    width: int | None
    height: int | None
    cosine: float


@dataclass(frozen=True)
class SpaceRow:
    """An embedding space as the database holds it; `number` names its table of vectors."""

    number: int
    id: str
    dimensions: int
    model: str
    live: bool

    @property
    def table(self) -> str:
        return f"twinlens_space_{self.number}"


@dataclass(frozen=True)
class Tended:
    """What `tend_indexes` did: the clients that got an index, and the indexes that went."""

    built: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()


# --- spaces ----------------------------------------------------------------------------------------------------------


def open_space(
    url: str, *, space_id: str, dimensions: int, model: str, manifest: Mapping[str, Any], artifact_path: str
) -> SpaceRow:
    """The row of an artifact's space, which must be the live one; a database without a live space takes it as such.

    `space_id`: 64 hex digits. Safe to call from many processes at once; needs a migrated database. Raises SpaceNotLive
    when another space is live, ArtifactInvalid when the database cannot hold such vectors, DatabaseUnusable when the
    database cannot be reached.
    """
    if not 1 <= dimensions <= MOST_DIMENSIONS:
        raise ArtifactInvalid(
            f"The model makes vectors of {dimensions:,} dimensions; the database can index at most {MOST_DIMENSIONS:,}."
        )
    queries = load_queries()
    manifest_text = json.dumps(manifest)

    def find() -> SpaceRow | None:
        with connection.cursor(row_factory=class_row(SpaceRow)) as cursor:
            return cursor.execute(queries["find_space"].encode(), {"id": space_id}).fetchone()

    with connect(url) as connection, connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", (LOCKS, LOCK_SPACES))
        live = connection.execute(queries["find_live_space"].encode()).fetchone()
        if live is not None and live[0] != space_id:
            raise SpaceNotLive(space_id, live[0])
        parameters = {
            "id": space_id,
            "dimensions": dimensions,
            "model": model,
            "manifest": manifest_text,
            "path": artifact_path,
        }
        if find() is None:
            connection.execute(queries["register_space"].encode(), parameters)
        row = find()
        if row is None or row.dimensions != dimensions:
            raise ArtifactInvalid(
                f"The artifact has {dimensions:,} dimensions, but the database knows its space with "
                f"{row.dimensions if row else 0:,}."
            )
        connection.execute(queries["note_artifact"].encode(), {**parameters, "number": row.number})
        if live is None:
            connection.execute(queries["make_live"].encode(), {"number": row.number})
            row = SpaceRow(row.number, row.id, row.dimensions, row.model, live=True)
    return row


# --- the catalogue ---------------------------------------------------------------------------------------------------


class Catalogue:
    """The catalogue of all clients, seen through one embedding space.

    `embedding` is float32[D] of unit length everywhere, D the space's dimensions. It is rounded to halves on its way in
    and on its way to a search alike, so that a picture's cosine to itself is 1. Every method may raise
    CatalogueUnavailable, and BadParameter for a text that the database cannot hold.
    """

    def __init__(self, pool: Pool, space: SpaceRow) -> None:
        self.space = space
        self._pool = pool
        queries = load_queries()
        self._create_index = sql.SQL(queries.pop("create_index"))
        self._drop_index = sql.SQL(queries.pop("drop_index"))
        table = sql.Identifier(space.table)
        self._queries = {name: sql.SQL(text).format(space=table).as_bytes(None) for name, text in queries.items()}
        self._indexes: frozenset[str] = frozenset()
        self._indexes_read_at = float("-inf")

    # --- products ----------------------------------------------------------------------------------------------------

    async def put_product(
        self, client_id: str, product_id: str, *, name: str, sku: str | None = None, is_active: bool = True
    ) -> tuple[Product, bool]:
        """Create a product or change it; the flag says whether it is new.

        Raises ProductIdTaken when another client owns the id, SkuTaken when another product of the client has the SKU.
        """
        parameters = {"id": product_id, "client_id": client_id, "name": name, "sku": sku, "is_active": is_active}

        async def put(connection: AsyncConnection[TupleRow]) -> tuple[Product, bool]:
            cursor = connection.cursor(row_factory=tuple_row)
            row = await (await cursor.execute(self._query("put_product"), parameters)).fetchone()
            if row is None:
                raise ProductIdTaken
            return Product(*row[:-1]), row[-1]

        return await self._write(put)

    async def get_product(self, client_id: str, product_id: str) -> Product:
        """Raises ProductNotFound."""
        found = await self._read("get_product", {"id": product_id, "client_id": client_id}, class_row(Product))
        if not found:
            raise ProductNotFound
        return found[0]

    async def delete_product(self, client_id: str, product_id: str) -> list[str]:
        """Delete a product with its media; gives the keys under which their bytes and thumbnails are stored.

        Raises ProductNotFound.
        """
        parameters = {"id": product_id, "client_id": client_id}

        async def delete(connection: AsyncConnection[TupleRow]) -> list[str]:
            async with connection.transaction():
                if not (await connection.execute(self._query("lock_product_for_delete"), parameters)).rowcount:
                    raise ProductNotFound
                gone = await (await connection.execute(self._query("delete_product_media"), parameters)).fetchall()
                await connection.execute(self._query("delete_product"), parameters)
            return [key for keys in gone for key in keys if key is not None]

        return await self._write(delete)

    # --- media -------------------------------------------------------------------------------------------------------

    async def add_media(self, media: NewMedia, embedding: ArrayLike) -> tuple[Media, bool]:
        """Add a media together with its vector; the flag says whether it is new.

        When the product has the same bytes already, that media is given, and a vector that it lacks in this space is
        filled in. Raises ProductNotFound, VectorRefused.
        """
        parameters = asdict(media)
        vector = self._halves(embedding)

        async def add(connection: AsyncConnection[TupleRow]) -> tuple[Media, bool]:
            async with connection.transaction():
                if not (await connection.execute(self._query("lock_product"), parameters)).rowcount:
                    raise ProductNotFound
                cursor = connection.cursor(row_factory=class_row(Media))
                added = await (await cursor.execute(self._query("add_media"), parameters)).fetchone()
                stored = added
                if stored is None:
                    same = {**parameters, "digest": media.content_digest}
                    stored = await (await cursor.execute(self._query("find_media_by_digest"), same)).fetchone()
                if stored is None:
                    raise CatalogueConflict("The same picture was being deleted at this moment; please try again.")
                await connection.execute(
                    self._query("add_vector"),
                    {"space": self.space.number, "media_id": stored.id, "embedding": vector},
                )
            return stored, added is not None

        return await self._write(add)

    async def find_media_by_digest(self, client_id: str, product_id: str, digest: Digest) -> Media | None:
        """The media of the product whose bytes have this SHA-256."""
        parameters = {"client_id": client_id, "product_id": product_id, "digest": digest}
        found = await self._read("find_media_by_digest", parameters, class_row(Media))
        return found[0] if found else None

    async def get_media(self, client_id: str, media_id: str) -> Media:
        """Raises MediaNotFound."""
        found = await self._read("get_media", {"id": media_id, "client_id": client_id}, class_row(Media))
        if not found:
            raise MediaNotFound
        return found[0]

    async def delete_media(self, client_id: str, media_id: str) -> Media:
        """Delete a media with its vectors; gives what it was. Raises MediaNotFound."""

        async def delete(connection: AsyncConnection[TupleRow]) -> Media:
            cursor = connection.cursor(row_factory=class_row(Media))
            await cursor.execute(self._query("delete_media"), {"id": media_id, "client_id": client_id})
            gone = await cursor.fetchone()
            if gone is None:
                raise MediaNotFound
            return gone

        return await self._write(delete)

    async def media_vector(self, client_id: str, media_id: str) -> NDArray[np.float32] | None:
        """The media's vector in this space, float32[D], as it is stored; None when it has none."""
        found = await self._read("media_vector", {"media_id": media_id, "client_id": client_id}, tuple_row)
        return found[0][0].to_numpy().astype(np.float32) if found else None

    async def digests(self, client_id: str) -> set[tuple[str, Digest]]:
        """Product id and SHA-256 of every media of the client that has a vector in this space."""
        return set(await self._read("digests", {"client_id": client_id}, tuple_row))

    # --- search ------------------------------------------------------------------------------------------------------

    async def search(
        self,
        client_id: str,
        embedding: ArrayLike,
        *,
        limit: int = 24,
        min_similarity: float | None = None,
        digest: Digest | None = None,
        media_id: str | None = None,
    ) -> list[Match]:
        """The nearest active media of the client, best first; among equals `media_id`, then `digest`, then by media id.

        limit: 1 to 1000. min_similarity: a percentage, compared with the rounded one that is shown; nothing that
        reaches it is an empty list. digest: SHA-256 of the query's own bytes, media_id: the media that
        the query is; what has them is a candidate in any case. Raises VectorRefused, BadParameter.
        """
        if not 1 <= limit <= MOST_MATCHES:
            raise BadParameter(f"The limit must be from 1 to {MOST_MATCHES:,}.")
        parameters = {
            "client_id": client_id,
            "embedding": self._halves(embedding),
            "limit": limit,
            "candidates": limit + MARGIN,
            "digest": digest,
            "media_id": media_id,
        }
        ef_search = max(LEAST_EF_SEARCH, 2 * limit)
        matches: list[Match] = []
        if ef_search <= MOST_EF_SEARCH and self._index_of(client_id) in await self._known_indexes():
            matches = await self._search_by_index(parameters, ef_search)
        if len(matches) < limit:  # no index, or one that came back with less than there may be
            matches = await self._read("search_exactly", parameters, class_row(Match))
        if min_similarity is None:
            return matches
        return [match for match in matches if similarity(match.cosine) >= min_similarity]

    async def _search_by_index(self, parameters: Mapping[str, Any], ef_search: int) -> list[Match]:
        async def search(connection: AsyncConnection[TupleRow]) -> list[Match]:
            async with connection.transaction():
                await connection.execute(self._query("set_search_effort"), {"ef_search": ef_search})
                cursor = connection.cursor(row_factory=class_row(Match))
                return await (await cursor.execute(self._query("search_by_index"), parameters)).fetchall()

        return await self._run(search)

    # --- indexes -----------------------------------------------------------------------------------------------------

    async def analyse(self) -> None:
        """Let PostgreSQL count what is there, after much has been added at once: it plans badly until it has.

        It does so by itself about a minute later.
        """
        with _translated():
            connection = await AsyncConnection.connect(str(self._pool.conninfo), autocommit=True, connect_timeout=10)
            async with connection:
                await connection.execute(
                    sql.SQL("ANALYZE products, media, {space}").format(space=sql.Identifier(self.space.table))
                )

    async def tend_indexes(self, threshold: int = INDEX_THRESHOLD) -> Tended:
        """Give each client with at least `threshold` active media an index of its own; drop those no longer needed.

        An index goes when its client has less than half the threshold. Those that an interrupted build left behind are
        dropped and built anew. Takes a connection of its own, minutes at worst, and stops neither searches nor writes.
        When another process is at it already, nothing is done.
        """
        with _translated():
            connection = await AsyncConnection.connect(str(self._pool.conninfo), autocommit=True, connect_timeout=10)
            async with connection:
                locks = (LOCKS, LOCK_INDEXES)
                locked = await (await connection.execute("SELECT pg_try_advisory_lock(%s, %s)", locks)).fetchone()
                if locked is None or not locked[0]:
                    return Tended()
                tended = await self._tend(connection, threshold)
        self._indexes_read_at = float("-inf")
        return tended

    async def _tend(self, connection: AsyncConnection[TupleRow], threshold: int) -> Tended:
        least = {"least": max(1, threshold // 2)}
        rows = await (await connection.execute(self._query("list_large_clients"), least)).fetchall()
        clients: dict[str, int] = dict(rows)
        kept = {self._index_of(client) for client in clients}
        present: set[str] = set()
        dropped: list[str] = []
        for name, valid in await self._list_indexes(connection):
            if valid and name in kept:
                present.add(name)
                continue
            await connection.execute(self._drop_index.format(index=sql.Identifier(name)))
            dropped.append(name)
            logger.info("dropped the index %s", name)
        built = []
        for client, count in clients.items():
            name = self._index_of(client)
            if count < threshold or name in present:
                continue
            began = time.monotonic()
            await connection.execute(
                self._create_index.format(
                    index=sql.Identifier(name), space=sql.Identifier(self.space.table), client=sql.Literal(client)
                )
            )
            built.append(client)
            logger.info("built the index %s over %d vectors in %.1f s", name, count, time.monotonic() - began)
        return Tended(tuple(built), tuple(dropped))

    async def _list_indexes(self, connection: AsyncConnection[TupleRow]) -> list[tuple[str, bool]]:
        rows = await (await connection.execute(self._query("list_indexes"), {"table": self.space.table})).fetchall()
        return [(name, valid) for name, valid in rows if name.startswith(self._index_prefix)]

    async def _known_indexes(self) -> frozenset[str]:
        """Names of the indexes that are whole. An outdated answer costs time, never matches."""
        if time.monotonic() - self._indexes_read_at > INDEXES_KNOWN_FOR:
            listed = await self._run(self._list_indexes)
            self._indexes = frozenset(name for name, valid in listed if valid)
            self._indexes_read_at = time.monotonic()
        return self._indexes

    @property
    def _index_prefix(self) -> str:
        return f"{self.space.table}_hnsw_"

    def _index_of(self, client_id: str) -> str:
        # A client's id can be longer than a name in PostgreSQL may be.
        return self._index_prefix + hashlib.sha256(client_id.encode("utf-8", "surrogatepass")).hexdigest()[:24]

    # --- the border --------------------------------------------------------------------------------------------------

    async def ping(self) -> None:
        """Ask the database for nothing. Raises CatalogueUnavailable when no answer comes."""
        await self._read("ping", {}, tuple_row)

    def _query(self, name: str) -> bytes:
        return self._queries[name]

    def _halves(self, embedding: ArrayLike) -> HalfVector:
        """float[D] as the halves that are stored. Raises VectorRefused unless finite, unit length and D long."""
        try:
            vector = np.asarray(embedding, dtype=np.float32)
        except (TypeError, ValueError) as exc:
            raise VectorRefused("The vector must be a list of numbers.") from exc
        if vector.shape != (self.space.dimensions,):
            shape = " x ".join(map(str, vector.shape)) or "no"
            raise VectorRefused(f"The vector has {shape} dimensions; this space has {self.space.dimensions:,}.")
        if not np.isfinite(vector).all():
            raise VectorRefused("The vector must be finite: it holds NaN or infinity.")
        with np.errstate(over="ignore"):
            halves = vector.astype(np.float16)
        norm = float(np.linalg.norm(halves.astype(np.float64)))
        if not abs(norm - 1.0) <= NORM_TOLERANCE:
            raise VectorRefused(f"The vector must be of unit length; its length is {norm:.6g}.")
        return HalfVector(halves)

    async def _run(self, work: Callable[[AsyncConnection[TupleRow]], Awaitable[T]]) -> T:
        """Run what only reads. When the connection dies under it, it runs once more on another."""
        for attempt in (1, 2):
            connection: AsyncConnection[TupleRow] | None = None
            with _translated():
                try:
                    async with self._pool.connection() as connection:
                        return await work(connection)
                except (psycopg.OperationalError, psycopg.InterfaceError) as exc:
                    if attempt == 2 or connection is None or not connection.broken:
                        raise
                    logger.warning("a connection to the database died and is replaced: %s", exc)
        raise AssertionError("unreachable: the second attempt returns or raises")

    async def _write(self, work: Callable[[AsyncConnection[TupleRow]], Awaitable[T]]) -> T:
        """Run what writes. It runs once more when another transaction got in the way and nothing was written.

        A unique violation may come from a twin of this very request (ON CONFLICT watches one index; a row that another
        transaction is just inserting can trip another index first); the second time the twin is there to be found.
        """
        for attempt in (1, 2):
            connection: AsyncConnection[TupleRow] | None = None
            with _translated():
                try:
                    async with self._pool.connection() as connection:
                        return await work(connection)
                except (
                    psycopg.errors.UniqueViolation,
                    psycopg.errors.DeadlockDetected,
                    psycopg.errors.SerializationFailure,
                ):
                    if attempt == 2:
                        raise
                except (psycopg.OperationalError, psycopg.InterfaceError) as exc:
                    if connection is not None and connection.broken:
                        raise OutcomeUnknown from exc
                    raise
        raise AssertionError("unreachable: the second attempt returns or raises")

    async def _read(self, name: str, parameters: Mapping[str, Any], row_factory: BaseRowFactory[T]) -> list[T]:
        async def read(connection: AsyncConnection[TupleRow]) -> list[T]:
            cursor = connection.cursor(row_factory=row_factory)
            return await (await cursor.execute(self._query(name), parameters)).fetchall()

        return await self._run(read)


@contextmanager
def _translated() -> Iterator[None]:
    """psycopg's errors in our words."""
    try:
        yield
    except TooManyRequests as exc:  # more wait for a connection than the pool lets
        raise Overloaded from exc
    except (PoolTimeout, PoolClosed) as exc:
        raise CatalogueUnavailable from exc
    except (psycopg.errors.LockNotAvailable, psycopg.errors.QueryCanceled) as exc:
        raise CatalogueBusy from exc
    except psycopg.errors.DiskFull as exc:
        raise CatalogueUnavailable("The database's disk is full; nothing was written.") from exc
    except psycopg.errors.UniqueViolation as exc:
        if exc.diag.constraint_name == "products_clientId_sku_key":
            raise SkuTaken from exc
        raise CatalogueConflict(f"The catalogue holds this already: {exc.diag.message_detail}") from exc
    except psycopg.errors.ForeignKeyViolation as exc:
        raise CatalogueConflict("What this belongs to was deleted at the same moment.") from exc
    except psycopg.errors.CheckViolation as exc:
        if (exc.diag.constraint_name or "").endswith("_embedding_check"):
            raise VectorRefused from exc
        raise BadParameter(f"A value is out of its bounds ({exc.diag.constraint_name}).") from exc
    except (psycopg.DataError, psycopg.errors.ProgramLimitExceeded, UnicodeEncodeError) as exc:
        raise BadParameter("A text or number is one that the database cannot hold.") from exc
    except (psycopg.OperationalError, psycopg.InterfaceError) as exc:
        raise CatalogueUnavailable from exc
    except psycopg.Error as exc:
        raise CatalogueFailed from exc
