"""Products, media, their embeddings, and the matches of a picture: all that is asked of the database.

Each method runs the statement of the same name in `sql/queries.sql`; rows leave as frozen objects. A catalogue works in
one embedding space: it searches that one, and what it stores is stored there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike
from pgvector import HalfVector
from psycopg import AsyncConnection
from psycopg.rows import BaseRowFactory, TupleRow, args_row, class_row, dict_row, kwargs_row, tuple_row
from psycopg.types.json import Jsonb

from server.catalogue.batches import Batches
from server.catalogue.declared import Declarations, Declared, types_of
from server.catalogue.facets import Asked, Counts, FacetCounter
from server.catalogue.filters import MOST_ATTRIBUTES, AttributeType, Conditions, Filter
from server.catalogue.ids import id_elsewhere
from server.catalogue.indexes import INDEX_THRESHOLD, Maintained
from server.catalogue.lexicon import Lexicon
from server.catalogue.lists import Lists
from server.catalogue.placing import Placing
from server.catalogue.rows import (
    ANYTHING,
    MOST_MATCHES,
    Digest,
    Expected,
    Found,
    Match,
    Media,
    MediaVector,
    NewMedia,
    Product,
    ProductFile,
    ProductPatch,
    Query,
    SpaceRow,
)
from server.catalogue.search import Searcher
from server.catalogue.turns import Turns
from server.catalogue.vectors import halves
from server.catalogue.words import Words
from server.database.connections import Direct, connection_of_its_own
from server.database.failures import translated
from server.database.locks import LOCK_TIMEOUT_SECONDS, LOCKS_OF_MEDIA
from server.database.pool import Pool
from server.database.queries import Queries
from server.database.replica import Replica
from server.database.runner import Runner
from server.errors import (
    BadParameter,
    CatalogueConflict,
    MediaNotFound,
    PreconditionFailed,
    ProductNotFound,
    StoreUnavailable,
)
from server.preprocessing.readings import READING

T = TypeVar("T")

_AT_ONCE = 3  # writes of one product: where somebody has locked it, they wait, each on one of the few connections
_TRIES = 3  # of a statement that a twin of the same request can leave without a row; the next one finds the twin's


class Catalogue:
    """The catalogue of all clients, seen through one embedding space.

    `embedding` is float32[D] of unit length everywhere, D the space's dimensions. Every method may raise
    CatalogueUnavailable, and BadParameter for a text that the database cannot hold.
    """

    def __init__(
        self,
        pool: Pool,
        space: SpaceRow,
        *,
        recall: float = 0.99,
        direct: Direct | None = None,
        replica: Replica | None = None,
        background: Pool | None = None,
    ) -> None:
        """`recall`: the share of an exact search's matches that a search through an index must find on average; below
        1. `direct`: where indexes are built and measured; without it, where the pool connects to. `replica`: where
        searches run, and nothing else. `background`: the owner's connections, for what concerns all clients; without
        it, `pool` is the owner's."""
        self.space = space
        self._runner = Runner(pool)
        self._turns = Turns(_AT_ONCE, LOCK_TIMEOUT_SECONDS)
        self._background = Runner(background or pool)
        queries = Queries.read("queries.sql").of(space.table)
        queries = queries.including("product_api_id", "media_api_id")
        self._queries = queries.including("product_columns", "media_columns", "match_columns", "card_columns")
        self.lists = Lists(self._runner, self._queries)
        self.declarations = Declarations(self._runner)
        self.lexicon = Lexicon(self._background)
        self.words = Words(replica or self._runner, self._queries, isolated=self._runner.role is not None)
        self.placing = Placing(self._queries, self._runner, self._turns, space)
        self.batches = Batches(self._queries, self._runner)
        self.facets = FacetCounter(self._queries, self._runner, space, replica)
        self.searcher = Searcher(
            self._queries,
            self._runner,
            space,
            recall,
            direct or Direct(self._background.url),
            replica,
            self._background,
        )

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
        expected: Expected = ANYTHING,
    ) -> tuple[Product, bool]:
        """Create a product or change it; gives it, and whether it is new. `attributes`: facts to filter searches by.

        The id is unique within the client. Raises SkuTaken when another product of the client has the SKU, and
        PreconditionFailed where the product is not what is expected.
        """
        parameters = {
            "id": product_id,
            "elsewhere": id_elsewhere(client_id, product_id),
            "client_id": client_id,
            "name": name,
            "sku": sku,
            "is_active": is_active,
            "attributes": Jsonb(dict(attributes or {})),
            **expected.parameters,
        }

        async def put(connection: AsyncConnection[TupleRow]) -> tuple[Product, bool]:
            cursor = connection.cursor(row_factory=kwargs_row(_put))
            for _ in range(_TRIES):
                stored = await (await cursor.execute(self._queries["put_product"], parameters)).fetchone()
                if stored is not None:
                    return stored
                if not expected.anything:
                    raise PreconditionFailed
            raise CatalogueConflict("This product was being created or deleted at this moment; please try again.")

        async with self._turns.turn((client_id, "product", product_id)):
            return await self._runner.write(put, "put_product", client=client_id, answers=_itself)

    async def products_as_made(self, client_id: str, ids: Sequence[str]) -> list[Product]:
        """Those of these products that have no attributes, and that nobody has changed since they were made."""
        return await self._read("products_as_made", {"client_id": client_id, "ids": list(ids)}, class_row(Product))

    async def patch_product(
        self, client_id: str, product_id: str, patch: ProductPatch, *, expected: Expected = ANYTHING
    ) -> Product:
        """Change some of a product; gives all of it. Raises ProductNotFound, SkuTaken, PreconditionFailed, and
        BadParameter where it would have too many attributes."""
        if expected.absent:
            raise PreconditionFailed
        parameters = {
            **asdict(patch),
            "removed": list(patch.removed),
            "attributes": Jsonb(dict(patch.attributes)),
            "id": product_id,
            "client_id": client_id,
            **expected.parameters,
        }

        async def change(connection: AsyncConnection[TupleRow]) -> Product:
            async with connection.transaction():
                cursor = connection.cursor(row_factory=class_row(Product))
                changed = await (await cursor.execute(self._queries["patch_product"], parameters)).fetchone()
                if changed is None:
                    await cursor.execute(self._queries["get_product"], parameters)
                    raise PreconditionFailed if await cursor.fetchone() is not None else ProductNotFound
                # One that older SQL has given more can still be renamed.
                if patch.attributes and len(changed.attributes) > MOST_ATTRIBUTES:
                    raise BadParameter(
                        f"The product would have {len(changed.attributes):,} attributes; {MOST_ATTRIBUTES} is the most."
                    )
            return changed

        async with self._turns.turn((client_id, "product", product_id)):
            return await self._runner.write(change, "patch_product", client=client_id, answers=_itself)

    async def get_product(self, client_id: str, product_id: str) -> Product:
        """Raises ProductNotFound."""
        found = await self._read("get_product", {"id": product_id, "client_id": client_id}, class_row(Product))
        if not found:
            raise ProductNotFound
        return found[0]

    async def delete_product(
        self, client_id: str, product_id: str, *, expected: Expected = ANYTHING
    ) -> tuple[Product, list[str]]:
        """Delete a product with its media; gives what it was, and the keys of their bytes and thumbnails in the store.

        Raises ProductNotFound, PreconditionFailed.
        """
        parameters = {"id": product_id, "client_id": client_id}

        async def delete(connection: AsyncConnection[TupleRow]) -> tuple[Product, list[str]]:
            async with connection.transaction():
                locked = connection.cursor(row_factory=kwargs_row(_locked))
                await locked.execute(self._queries["lock_product_for_delete"], parameters)
                if (found := await locked.fetchone()) is None:
                    raise ProductNotFound
                product, key = found
                if expected.absent or (expected.versions is not None and product.updated_at not in expected.versions):
                    raise PreconditionFailed
                row = {"client_id": client_id, "key": key}
                cursor = connection.cursor(row_factory=dict_row)
                gone = await (await cursor.execute(self._queries["delete_product_media"], row)).fetchall()
                await connection.execute(self._queries["delete_product"], row)
            keys = [media[key] for media in gone for key in ("s3_key", "thumbnail_key")]
            return product, [key for key in keys if key is not None]

        async with self._turns.turn((client_id, "product", product_id)):
            return await self._runner.write(delete, "delete_product", client=client_id, answers=_product_of)

    # --- media -------------------------------------------------------------------------------------------------------

    async def add_media(self, media: NewMedia, embedding: ArrayLike, *, blank: bool = False) -> tuple[Media, bool]:
        """Add a media together with its vector; gives the stored media, and whether it is new. `blank`: it is one.

        When the product has a media of the same bytes already, that media is given, and gets its vector in this space
        if it has none. Raises ProductNotFound, VectorRefused; CatalogueConflict where the client has a media of this
        id; StoreUnavailable where the upload was held up for so long that a sweep of the store has removed its bytes.
        """
        parameters = {**asdict(media), "elsewhere": id_elsewhere(media.client_id, media.id), "locks": LOCKS_OF_MEDIA}
        vector = halves(embedding, self.space.dimensions)

        async def add(connection: AsyncConnection[TupleRow]) -> tuple[Media, bool]:
            async with connection.transaction():
                product = await (await connection.execute(self._queries["lock_product"], parameters)).fetchone()
                if product is None:
                    raise ProductNotFound
                cursor = connection.cursor(row_factory=kwargs_row(_kept))
                row_of = {**parameters, "product_key": product[0]}
                added = await (await cursor.execute(self._queries["add_media"], row_of)).fetchone()
                found = added
                if found is None:
                    same = {**parameters, "digest": media.content_digest}
                    found = await (await cursor.execute(self._queries["find_media_by_digest"], same)).fetchone()
                if found is None:
                    if (await connection.execute(self._queries["was_swept"], parameters)).rowcount:
                        raise StoreUnavailable("This upload took too long to be kept; please send the picture again.")
                    if (await connection.execute(self._queries["has_media"], parameters)).rowcount:
                        raise CatalogueConflict("Another media of this client has this id.")
                    raise CatalogueConflict("The same picture was being deleted at this moment; please try again.")
                stored, key = found
                row = {
                    "space": self.space.number,
                    "key": key,
                    "embedding": vector,
                    "blank": blank,
                    "reading": READING,
                }
                if (await connection.execute(self._queries["add_vector"], row)).rowcount:
                    stored = replace(stored, blank=blank)
            return stored, added is not None

        async with self._turns.turn((media.client_id, "product", media.product_id)):
            return await self._runner.write(add, "add_media", client=media.client_id, answers=_itself)

    async def find_media_by_digest(self, client_id: str, product_id: str, digest: Digest) -> Media | None:
        """The media of the product whose bytes have this SHA-256."""
        parameters = {"client_id": client_id, "product_id": product_id, "digest": digest}
        found = await self._read("find_media_by_digest", parameters, kwargs_row(_kept))
        return found[0][0] if found else None

    async def get_media(self, client_id: str, media_id: str) -> Media:
        """Raises MediaNotFound."""
        found = await self.find_media(client_id, media_id)
        if found is None:
            raise MediaNotFound
        return found

    async def find_media(self, client_id: str, media_id: str) -> Media | None:
        """The media; None where there is none."""
        found = await self._read("get_media", {"id": media_id, "client_id": client_id}, class_row(Media))
        return found[0] if found else None

    async def delete_media(self, client_id: str, media_id: str) -> Media:
        """Delete a media with its vectors; gives what it was. Raises MediaNotFound."""

        async def delete(connection: AsyncConnection[TupleRow]) -> Media:
            cursor = connection.cursor(row_factory=class_row(Media))
            await cursor.execute(self._queries["delete_media"], {"id": media_id, "client_id": client_id})
            gone = await cursor.fetchone()
            if gone is None:
                raise MediaNotFound
            return gone

        async with self._turns.turn((client_id, "media", media_id)):
            return await self._runner.write(delete, "delete_media", client=client_id, answers=_itself)

    async def media_vector(self, client_id: str, media_id: str) -> MediaVector | None:
        """The media's vector in this space, as it is stored; None when it has none."""
        found = await self._read("media_vector", {"media_id": media_id, "client_id": client_id}, args_row(_vector))
        return found[0] if found else None

    async def declare(
        self, client_id: str, types: Mapping[str, AttributeType], searchable: Sequence[str] | None = None
    ) -> Declared:
        """As `Declarations.declare`; and products are found by what is searchable from now on, where there are no more
        than some thousands. The others follow within minutes."""
        declared = await self.declarations.declare(client_id, types, searchable)
        await self.lexicon.begin(client_id)
        return declared

    async def could_find(self, client_id: str, media_id: str, within: Filter) -> bool:
        """Whether a search of the client's among what passes this filter could find the media."""
        conditions = Conditions.of(within, types=await types_of(self._runner, client_id, within.names))
        parameters = {
            "client_id": client_id,
            "media_id": media_id,
            "product_ids": conditions.product_ids,
            "kind": conditions.kind,
            "attributes": conditions.jsonpath,
        }
        return bool(await self._read("media_found", parameters, tuple_row))

    async def same_files(self, client_id: str, media_id: str, *, limit: int = MOST_MATCHES) -> list[Match]:
        """The client's other active media with the very bytes of this one, by id; also those without a vector yet."""
        parameters = {"client_id": client_id, "media_id": media_id, "limit": limit}
        return await self._read("same_files", parameters, class_row(Match))

    async def digests(self, client_id: str) -> set[ProductFile]:
        """Product and SHA-256 of every media of the client that has a vector in this space."""
        return set(await self._read("digests", {"client_id": client_id}, class_row(ProductFile)))

    # --- search and indexes ------------------------------------------------------------------------------------------

    async def search(self, query: Query) -> Found:
        """As `Searcher.search`."""
        return await self.searcher.search(query)

    async def count(self, query: Query, asked: Asked) -> Counts:
        """As `FacetCounter.count`."""
        return await self.facets.count(query, asked)

    async def maintain_indexes(self, threshold: int = INDEX_THRESHOLD, *, thorough: bool = True) -> Maintained:
        """As `Searcher.maintain_indexes`."""
        return await self.searcher.maintain_indexes(threshold, thorough=thorough)

    async def analyse(self) -> None:
        """Have PostgreSQL count its rows after many were added at once: it plans badly until it has.

        By itself it does so about a minute later.
        """
        with translated():
            async with connection_of_its_own(self._background.url) as connection:
                await connection.execute(self._queries["analyse"])

    async def ping(self, within: float | None = None) -> None:
        """Ask the database for nothing, on a connection that is there within that many seconds.

        Raises CatalogueUnavailable when no answer comes, SpaceDropped.
        """

        async def ping(connection: AsyncConnection[TupleRow]) -> None:
            await connection.execute(self._queries["ping"])

        await self._runner.read(ping, "ping", patience=within)

    async def _read(self, name: str, parameters: Mapping[str, Any], row_factory: BaseRowFactory[T]) -> list[T]:
        statement, client_id = self._queries[name], parameters["client_id"]
        return await self._runner.fetch(statement, parameters, row_factory, name, client=client_id)


def _vector(embedding: HalfVector, blank: bool) -> MediaVector:
    return MediaVector(embedding.to_numpy().astype(np.float32), blank)


def _put(*, created: bool, **product: Any) -> tuple[Product, bool]:
    return Product(**product), created


def _locked(*, key: str, **product: Any) -> tuple[Product, str]:
    """A product, and its id in the database."""
    return Product(**product), key


def _itself(made: object) -> object:
    """What is written is what the answer is made of."""
    return made


def _product_of(deleted: tuple[Product, list[str]]) -> Product:
    return deleted[0]


def _kept(*, key: str, **media: Any) -> tuple[Media, str]:
    """A media, and its id in the database."""
    return Media(**media), key
