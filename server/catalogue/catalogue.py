"""Products, media, their embeddings, and the matches of a picture: all that is asked of the database.

Each method runs the statement of the same name in `sql/queries.sql`; rows leave as frozen objects. A catalogue works in
one embedding space: it searches that one, and what it stores is stored there.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Any, TypeVar

import numpy as np
import psycopg
from numpy.typing import ArrayLike, NDArray
from pgvector import HalfVector
from psycopg import AsyncConnection
from psycopg.rows import BaseRowFactory, TupleRow, class_row, tuple_row
from psycopg.types.json import Jsonb

from server.catalogue.filters import Filter
from server.catalogue.indexes import INDEX_THRESHOLD, MOST_EF_SEARCH, Index, Indexes, Maintained, mean_recall
from server.catalogue.rows import Digest, Found, IndexAnswer, Match, Media, NewMedia, Plan, Product, SpaceRow
from server.catalogue.similarity import similarity
from server.database.connections import Pool
from server.database.failures import translated
from server.database.queries import Queries
from server.errors import (
    BadParameter,
    CatalogueConflict,
    MediaNotFound,
    OutcomeUnknown,
    ProductIdTaken,
    ProductNotFound,
    VectorRefused,
)

_log = logging.getLogger(__name__)

T = TypeVar("T")


MOST_MATCHES = 1000
NORM_TOLERANCE = 1e-3  # what the database's CHECK allows

MARGIN = 16  # candidates beyond the limit: inner products of halves rank a little differently than their cosines
UNMEASURED_EF_SEARCH = 200  # for an index that was not measured yet: recall 0.993 on 50,000 vectors
INDEXES_KNOWN_FOR = 30.0  # seconds
COMPARISONS_KEPT = 1_000  # in each space: hours of them

# A filter is applied to what an index gives: this many times the candidates are asked for at first, and at most half
# of what ef_search can be, since the far end of what an index gives is not as sure as its beginning.
FILTER_FACTOR = 4
MOST_FILTERED = MOST_EF_SEARCH // 2


# --- the catalogue ---------------------------------------------------------------------------------------------------


class Catalogue:
    """The catalogue of all clients, seen through one embedding space.

    `embedding` is float32[D] of unit length everywhere, D the space's dimensions. It is rounded to halves on its way in
    and on its way to a search alike, so that a picture's cosine to itself is 1. Every method may raise
    CatalogueUnavailable, and BadParameter for a text that the database cannot hold.
    """

    def __init__(self, pool: Pool, space: SpaceRow, *, recall: float = 0.99) -> None:
        """`recall`: what a search through an index must find, on average, of what an exact one would; below 1."""
        self.space = space
        self.on_index_answer: Callable[[IndexAnswer], None] | None = None
        """Called with each search that an index answered."""
        self._pool = pool
        self._indexes = Indexes(space, recall)
        self._queries = Queries.read("queries.sql").of(space.table)
        self._search = {
            near: self._queries.composed("search", near=self._queries.composed(near)).as_bytes(None)
            for near in ("near_exactly", "near_exactly_where", "near_by_index")
        }
        self._known: Mapping[str, Index] = {}
        self._known_at = float("-inf")

    # --- products ----------------------------------------------------------------------------------------------------

    async def put_product(
        self,
        client_id: str,
        product_id: str,
        *,
        name: str,
        sku: str | None = None,
        is_active: bool = True,
        attributes: Mapping[str, Any] | None = None,
    ) -> tuple[Product, bool]:
        """Create a product or change it; the flag says whether it is new. `attributes`: facts to filter searches by.

        Raises ProductIdTaken when another client owns the id, SkuTaken when another product of the client has the SKU.
        """
        parameters = {
            "id": product_id,
            "client_id": client_id,
            "name": name,
            "sku": sku,
            "is_active": is_active,
            "attributes": Jsonb(dict(attributes or {})),
        }

        async def put(connection: AsyncConnection[TupleRow]) -> tuple[Product, bool]:
            cursor = connection.cursor(row_factory=tuple_row)
            row = await (await cursor.execute(self._queries["put_product"], parameters)).fetchone()
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
                if not (await connection.execute(self._queries["lock_product_for_delete"], parameters)).rowcount:
                    raise ProductNotFound
                gone = await (await connection.execute(self._queries["delete_product_media"], parameters)).fetchall()
                await connection.execute(self._queries["delete_product"], parameters)
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
                if not (await connection.execute(self._queries["lock_product"], parameters)).rowcount:
                    raise ProductNotFound
                cursor = connection.cursor(row_factory=class_row(Media))
                added = await (await cursor.execute(self._queries["add_media"], parameters)).fetchone()
                stored = added
                if stored is None:
                    same = {**parameters, "digest": media.content_digest}
                    stored = await (await cursor.execute(self._queries["find_media_by_digest"], same)).fetchone()
                if stored is None:
                    raise CatalogueConflict("The same picture was being deleted at this moment; please try again.")
                await connection.execute(
                    self._queries["add_vector"],
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
            await cursor.execute(self._queries["delete_media"], {"id": media_id, "client_id": client_id})
            gone = await cursor.fetchone()
            if gone is None:
                raise MediaNotFound
            return gone

        return await self._write(delete)

    async def media_vector(self, client_id: str, media_id: str) -> NDArray[np.float32] | None:
        """The media's vector in this space, float32[D], as it is stored; None when it has none."""
        found = await self._read("media_vector", {"media_id": media_id, "client_id": client_id}, tuple_row)
        return found[0][0].to_numpy().astype(np.float32) if found else None

    async def same_files(self, client_id: str, media_id: str, *, limit: int = MOST_MATCHES) -> list[Match]:
        """The client's other active media with the very bytes of this one, by id: what has no vector yet, too."""
        parameters = {"client_id": client_id, "media_id": media_id, "limit": limit}
        return await self._read("same_files", parameters, class_row(Match))

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
        where: Filter | None = None,
    ) -> Found:
        """The nearest active media of the client, best first; among equals `media_id`, then `digest`, then by media id.

        limit: 1 to 1000. min_similarity: a percentage, compared with the rounded one that is shown; nothing that
        reaches it is an empty list. digest: SHA-256 of the query's own bytes, media_id: the media that
        the query is; what has them is a candidate in any case, also before its vector is made. where: what a match must
        be beyond the client's; as many are found as when it were not there, if there are as many. Raises VectorRefused,
        BadParameter.

        A client with an index of its own is searched through it, and again exactly where the index gave less than was
        asked for, or where it cut through the middle of equals.
        """
        if not 1 <= limit <= MOST_MATCHES:
            raise BadParameter(f"The limit must be from 1 to {MOST_MATCHES:,}.")
        where = where or Filter()
        parameters = {
            **self._asked(client_id, self._halves(embedding), limit, where),
            "digest": digest,
            "media_id": media_id,
        }
        found = None
        # Few products have few media: looking at each of those is quicker, and right.
        if where.product_ids is None and (index := (await self._known_indexes()).get(self._indexes.name_of(client_id))):
            found = await self._search_by_index(parameters, index, filtered=where != Filter())
            if found is not None and self.on_index_answer is not None:
                cosines = tuple(match.cosine for match in found)
                self.on_index_answer(IndexAnswer(client_id, parameters["embedding"], limit, where, cosines))
        plan: Plan = "exact" if found is None else "index"
        if found is None:
            found = await self._search_exactly(parameters, filtered=where != Filter())
        if min_similarity is not None:
            found = [match for match in found if similarity(match.cosine) >= min_similarity]
        return Found(found, plan)

    async def search_again(self, answer: IndexAnswer) -> list[float]:
        """The cosines of what an exact search finds where an index gave this answer, best first."""
        asked = self._asked(answer.client_id, answer.embedding, answer.limit, answer.where)
        parameters = {**asked, "digest": None, "media_id": None}
        return [match.cosine for match in await self._search_exactly(parameters, filtered=answer.where != Filter())]

    async def compare(self, answer: IndexAnswer) -> float:
        """What share of an exact search's matches the index had given; kept in the database beside the query."""
        exact = await self.search_again(answer)
        recall = mean_recall([exact], [list(answer.cosines)])
        parameters = {
            "space": self.space.number,
            "client_id": answer.client_id,
            "embedding": answer.embedding,
            "limit": answer.limit,
            "where": Jsonb(answer.where.plain) if answer.where.plain is not None else None,
            "expected": len(exact),
            "found": round(recall * len(exact)),
            "kept": COMPARISONS_KEPT,
        }

        async def keep(connection: AsyncConnection[TupleRow]) -> None:
            async with connection.transaction():
                await connection.execute(self._queries["keep_comparison"], parameters)
                await connection.execute(self._queries["trim_comparisons"], parameters)

        await self._write(keep)
        return recall

    def _asked(self, client_id: str, embedding: HalfVector, limit: int, where: Filter) -> dict[str, Any]:
        return {
            "client_id": client_id,
            "embedding": embedding,
            "limit": limit,
            "product_ids": list(where.product_ids) if where.product_ids is not None else None,
            "kind": where.kind,
            "attributes": where.jsonpath,
        }

    async def _search_exactly(self, parameters: Mapping[str, Any], *, filtered: bool) -> list[Match]:
        name = "near_exactly_where" if filtered else "near_exactly"
        rows = await self._fetch(
            self._search[name], {**parameters, "candidates": parameters["limit"] + MARGIN}, tuple_row
        )
        return [Match(*row[:-2]) for row in rows]

    async def _search_by_index(
        self, parameters: Mapping[str, Any], index: Index, *, filtered: bool
    ) -> list[Match] | None:
        """None where only an exact search can tell."""
        limit = parameters["limit"]
        candidates = limit + MARGIN
        if not filtered:
            return await self._through(parameters, index, candidates) if 2 * limit <= MOST_EF_SEARCH else None
        # How many pass the filter is not known, and near the query it may be all or none: the first candidates tell.
        asked = min(FILTER_FACTOR * candidates, MOST_FILTERED)
        while asked > limit:
            passed: list[Match] = []
            found = await self._through(parameters, index, asked, passed)
            if found is not None or not passed:
                return found
            needed = round(1.3 * asked * candidates / len(passed))
            if asked >= MOST_FILTERED or needed > MOST_FILTERED:
                return None
            asked = max(needed, asked + 1)
        return None

    async def _through(
        self, parameters: Mapping[str, Any], index: Index, candidates: int, passed: list[Match] | None = None
    ) -> list[Match] | None:
        """The matches among so many candidates from the index; None where they are less than was asked for, or where
        what was cut off may be as near as the last one is. `passed` takes them then."""
        limit = parameters["limit"]
        effort = min(max(index.ef_search or UNMEASURED_EF_SEARCH, 2 * candidates), MOST_EF_SEARCH)

        async def search(connection: AsyncConnection[TupleRow]) -> list[TupleRow]:
            # What a pipeline sends is one transaction, there and back once: begin and commit would be two ways more.
            async with connection.pipeline():
                await self._indexes.set_effort(connection, effort)
                cursor = await connection.execute(
                    self._search["near_by_index"], {**parameters, "candidates": candidates}
                )
            return await cursor.fetchall()

        rows = await self._run(search)
        matches = [Match(*row[:-2]) for row in rows]
        if len(matches) == limit:
            count, edge = rows[0][-2:]
            if count < candidates or matches[-1].cosine > edge:
                return matches
        if passed is not None:
            passed.extend(matches)
        return None

    # --- indexes -----------------------------------------------------------------------------------------------------

    async def analyse(self) -> None:
        """Let PostgreSQL count what is there, after much has been added at once: it plans badly until it has.

        It does so by itself about a minute later.
        """
        with translated():
            connection = await AsyncConnection.connect(str(self._pool.conninfo), autocommit=True, connect_timeout=10)
            async with connection:
                await connection.execute(self._queries["analyse"])

    async def maintain_indexes(self, threshold: int = INDEX_THRESHOLD, *, thorough: bool = True) -> Maintained:
        """Give each client with at least `threshold` active media an index of its own; drop those no longer needed.

        As `Indexes.tend` has it.
        """
        with translated():
            tended = await self._indexes.tend(str(self._pool.conninfo), threshold, thorough=thorough)
        if tended != Maintained():
            self._known_at = float("-inf")
        return tended

    async def _known_indexes(self) -> Mapping[str, Index]:
        """The indexes that are whole, by name. An outdated answer costs time, never matches."""
        if time.monotonic() - self._known_at > INDEXES_KNOWN_FOR:
            listed = await self._run(self._indexes.listed)
            self._known = {index.name: index for index in listed if index.valid}
            self._known_at = time.monotonic()
        return self._known

    # --- the border --------------------------------------------------------------------------------------------------

    async def ping(self) -> None:
        """Ask the database for nothing. Raises CatalogueUnavailable when no answer comes, SpaceDropped."""
        await self._read("ping", {}, tuple_row)

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
            with translated():
                try:
                    async with self._pool.connection() as connection:
                        return await work(connection)
                except (psycopg.OperationalError, psycopg.InterfaceError) as exc:
                    if attempt == 2 or connection is None or not connection.broken:
                        raise
                    _log.warning("a connection to the database died and is replaced: %s", exc)
        raise AssertionError("unreachable: the second attempt returns or raises")

    async def _write(self, work: Callable[[AsyncConnection[TupleRow]], Awaitable[T]]) -> T:
        """Run what writes. It runs once more when another transaction got in the way and nothing was written.

        A unique violation may come from a twin of this very request (ON CONFLICT watches one index; a row that another
        transaction is just inserting can trip another index first); the second time the twin is there to be found.
        """
        for attempt in (1, 2):
            connection: AsyncConnection[TupleRow] | None = None
            with translated():
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
        return await self._fetch(self._queries[name], parameters, row_factory)

    async def _fetch(self, query: bytes, parameters: Mapping[str, Any], row_factory: BaseRowFactory[T]) -> list[T]:
        async def read(connection: AsyncConnection[TupleRow]) -> list[T]:
            cursor = connection.cursor(row_factory=row_factory)
            return await (await cursor.execute(query, parameters)).fetchall()

        return await self._run(read)
