"""What a feed brings is written: products, media, vectors, and which row brought what. Many rows in a transaction.

It leaves a row as `Catalogue.put_product` and `Catalogue.add_media` do. Everything that is written is of one client, so
that it can be written as the role that serves, beneath row-level security.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from numpy.typing import NDArray
from psycopg import AsyncConnection
from psycopg.rows import TupleRow, class_row, dict_row, scalar_row
from psycopg.types.json import Jsonb

from server.catalogue.ids import id_elsewhere
from server.catalogue.rows import NewMedia, SpaceRow
from server.catalogue.vectors import halves
from server.database.locks import LOCKS_OF_MEDIA
from server.database.queries import Queries
from server.database.runner import Runner, Work
from server.errors import (
    BadParameter,
    CatalogueBusy,
    CatalogueConflict,
    IngestRefused,
    OutcomeUnknown,
    StoreUnavailable,
    TwinlensError,
    VectorRefused,
)
from server.ingest.pictures import Mark
from server.ingest.spool import Product
from server.preprocessing.readings import READING

T = TypeVar("T")

PAGE = 1_000
"""Rows that are looked at, or removed, in one statement."""

_TRIES = 5
_PAUSE_SECONDS = 0.5

_OF_THE_ROW = (CatalogueConflict, BadParameter, VectorRefused)
"""What is the row's fault, so that the others of its batch can be written without it."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class KnownProduct:
    """A product that the catalogue has. `same`: with the facts that the feed gives."""

    id: str
    key: str
    same: bool
    brought: bool
    """Whether a row notes that the feed has it."""


@dataclass(frozen=True, slots=True)
class KnownPicture:
    """The picture that a row of the feed has brought before. `embedded`: it has a vector in the space."""

    product_key: str
    place: int
    media_key: str
    source: str | None
    size: int | None
    stamp: str | None
    digest: bytes | None
    embedded: bool

    @property
    def mark(self) -> Mark | None:
        if self.source is None or self.size is None:
            return None
        return Mark(self.source, self.size, self.stamp)


@dataclass(frozen=True, slots=True)
class SameFile:
    """A media of the product with the very bytes of a row's picture."""

    product_key: str
    digest: bytes
    media_key: str
    embedded: bool


@dataclass(frozen=True, slots=True)
class Vector:
    """float32[D] of unit length, and whether its picture is blank."""

    embedding: NDArray[Any]
    blank: bool


@dataclass(slots=True)
class Ready:
    """A row that is ready to be written: with its product, and the picture if it has one.

    Of a picture there is either `new`, whose bytes are in the store, or the key of a media that is there. `vector` is
    None where that one has its vector.
    """

    product: Product
    place: int
    may_make: bool = True
    """Whether the product is made where there is none: not by a row whose picture failed."""
    new: NewMedia | None = None
    media_key: str | None = None
    vector: Vector | None = None
    mark: Mark | None = None
    replaces: bool = False
    """Whether the row brought another picture before."""


@dataclass(slots=True)
class Written:
    """What came of a batch."""

    products_made: int = 0
    added: list[Ready] = field(default_factory=list)
    """Those whose picture is a new media now; the others' were there already."""
    failed: list[tuple[Ready, TwinlensError]] = field(default_factory=list)
    unneeded: list[str] = field(default_factory=list)
    """Keys of objects that no row names: of pictures that were there already, or that failed."""

    def take(self, other: Written) -> None:
        self.products_made += other.products_made
        self.added += other.added
        self.failed += other.failed
        self.unneeded += other.unneeded


@dataclass(frozen=True, slots=True)
class Brought:
    """A product (place 0) or picture that the feed has brought. `made`: and made, so that it may take it out again."""

    client_id: str
    key: str
    id: str
    place: int
    media_key: str | None
    made: bool


@dataclass(frozen=True, slots=True)
class Left:
    """A media that rows of the feed made, and that no row names any more."""

    client_id: str
    key: str


class FeedWriter:
    """Reads and writes what one feed has to do with one space.

    Every method may raise CatalogueUnavailable and its kinds.
    """

    def __init__(self, feed: str, space: SpaceRow, runner: Runner, owners: Runner) -> None:
        """`runner`: for the rows of one client at a time; `owners`: with the rights of the tables' owner."""
        self.feed = feed
        self.space = space
        self._runner = runner
        self._owners = owners
        self._queries = Queries.read("feeds.sql").of(space.table).including("product_api_id")

    # --- what is there -----------------------------------------------------------------------------------------------

    async def known_products(self, client_id: str, products: Sequence[Product]) -> dict[str, KnownProduct]:
        """Those of these products of a client that the catalogue has, by their ids."""
        parameters = {"client_id": client_id, "feed": self.feed, **_columns_of(products)}
        found = await self._read(client_id, "known_products", parameters, KnownProduct)
        return {one.id: one for one in found}

    async def known_pictures(
        self, client_id: str, places: Sequence[tuple[str, int]]
    ) -> dict[tuple[str, int], KnownPicture]:
        """What the feed's rows have brought so far at these places of products, whose keys are given."""
        parameters = {
            "client_id": client_id,
            "feed": self.feed,
            "keys": [key for key, _ in places],
            "places": [place for _, place in places],
        }
        found = await self._read(client_id, "known_pictures", parameters, KnownPicture)
        return {(one.product_key, one.place): one for one in found}

    async def same_files(self, client_id: str, files: Sequence[tuple[str, bytes]]) -> dict[tuple[str, bytes], SameFile]:
        """Those of these files, by the key of the product and the SHA-256, that the product has already."""
        found = await self._read(client_id, "same_files", _files(client_id, files), SameFile)
        return {(one.product_key, one.digest): one for one in found}

    async def _read(self, client_id: str, name: str, parameters: Mapping[str, Any], kind: type[T]) -> list[T]:
        return await self._runner.fetch(self._queries[name], parameters, class_row(kind), name, client=client_id)

    # --- writing -----------------------------------------------------------------------------------------------------

    async def write(self, client_id: str, batch: Sequence[Ready]) -> Written:
        """Write rows of one client, all of them together; and one by one where one of them is at fault.

        Raises IngestRefused where another space has become the live one.
        """
        try:
            return await self._write(client_id, batch)
        except _OF_THE_ROW as exc:
            if len(batch) == 1:
                return Written(failed=[(batch[0], exc)], unneeded=_objects(batch))
        written = Written()
        for one in batch:
            written.take(await self.write(client_id, [one]))
        return written

    async def _write(self, client_id: str, batch: Sequence[Ready]) -> Written:
        """As `write`. What is tried again is either not there or found there, so nothing is written twice."""
        for attempt in range(1, _TRIES + 1):
            try:
                return await self._runner.write(partial(self._add, client_id, batch), "ingest", client=client_id)
            except (CatalogueBusy, OutcomeUnknown) as exc:
                if attempt == _TRIES:
                    raise
                _log.info("A batch of %d rows is written again: %s", len(batch), exc.line)
            await asyncio.sleep(_PAUSE_SECONDS * attempt)
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _add(self, client_id: str, batch: Sequence[Ready], connection: AsyncConnection[TupleRow]) -> Written:
        written = Written()
        async with connection.transaction():
            await connection.execute(self._queries["brief_locks"])
            await self._require_live(connection)
            made = await self._put_products(connection, client_id, batch)
            keys = await self._lock_products(connection, client_id, {one.product.id for one in batch})
            there = [one for one in batch if one.product.id in keys]
            media = await self._add_media(connection, client_id, there, keys, written)
            await self._add_vectors(connection, there, media)
            await self._bring(connection, client_id, there, keys, media, made)
        written.products_made = len(made)
        return written

    async def _require_live(self, connection: AsyncConnection[TupleRow]) -> None:
        cursor = connection.cursor(row_factory=scalar_row)
        if not await (await cursor.execute(self._queries["live"], {"space": self.space.number})).fetchone():
            raise IngestRefused(
                "Another embedding space has become the live one, so no more is written into this one. What is written "
                "stays. Run this again with the model of the live space."
            )

    async def _put_products(
        self, connection: AsyncConnection[TupleRow], client_id: str, batch: Sequence[Ready]
    ) -> set[str]:
        """The ids of the products that were made."""
        products = {one.product.id: one.product for one in batch}
        may_make = {one.product.id for one in batch if one.may_make}
        parameters = {
            "client_id": client_id,
            "elsewhere": [id_elsewhere(client_id, one) for one in products],
            "may_make": [one in may_make for one in products],
            **_columns_of(products.values()),
        }
        cursor = connection.cursor(row_factory=scalar_row)
        return set(await (await cursor.execute(self._queries["put_products"], parameters)).fetchall())

    async def _lock_products(
        self, connection: AsyncConnection[TupleRow], client_id: str, ids: Iterable[str]
    ) -> dict[str, str]:
        """The products' keys by their ids; without those that are not there."""
        found = await connection.execute(self._queries["lock_products"], {"client_id": client_id, "ids": list(ids)})
        return {one[0]: one[1] for one in await found.fetchall()}

    async def _add_media(
        self,
        connection: AsyncConnection[TupleRow],
        client_id: str,
        batch: Sequence[Ready],
        keys: Mapping[str, str],
        written: Written,
    ) -> dict[int, str]:
        """Add the new media; gives the key of each row's media, by the place of the row in the batch."""
        new = [(at, one.new, keys[one.product.id]) for at, one in enumerate(batch) if one.new is not None]
        media = {at: one.media_key for at, one in enumerate(batch) if one.media_key is not None}
        if not new:
            return media
        await connection.execute(self._queries["hold"], {"ids": [one.id for _, one, _ in new], "locks": LOCKS_OF_MEDIA})
        parameters = {
            "client_id": client_id,
            "ids": [one.id for _, one, _ in new],
            "product_keys": [key for _, _, key in new],
            "s3_keys": [one.s3_key for _, one, _ in new],
            "thumbnail_keys": [one.thumbnail_key for _, one, _ in new],
            "types": [one.content_type for _, one, _ in new],
            "bytes": [one.bytes for _, one, _ in new],
            "widths": [one.width for _, one, _ in new],
            "heights": [one.height for _, one, _ in new],
            "digests": [one.content_digest for _, one, _ in new],
        }
        await connection.execute(self._queries["add_media"], parameters)
        files = _files(client_id, [(key, one.content_digest) for _, one, key in new])
        cursor = connection.cursor(row_factory=class_row(SameFile))
        found = {
            (one.product_key, one.digest): one.media_key
            for one in await (await cursor.execute(self._queries["same_files"], files)).fetchall()
        }
        for at, one, key in new:
            stored = found.get((key, one.content_digest))
            if stored is None:
                held_up = StoreUnavailable("This picture took too long to be kept; please bring it in again.")
                written.failed.append((batch[at], held_up))
            else:
                media[at] = stored
            if stored == one.id:
                written.added.append(batch[at])
            else:
                written.unneeded += _objects([batch[at]])
        return media

    async def _add_vectors(
        self, connection: AsyncConnection[TupleRow], batch: Sequence[Ready], media: Mapping[int, str]
    ) -> None:
        vectors = {media[at]: one.vector for at, one in enumerate(batch) if one.vector is not None and at in media}
        if not vectors:
            return
        parameters = {
            "space": self.space.number,
            "reading": READING,
            "keys": list(vectors),
            "embeddings": [halves(one.embedding, self.space.dimensions) for one in vectors.values()],
            "blank": [one.blank for one in vectors.values()],
        }
        await connection.execute(self._queries["add_vectors"], parameters)

    async def _bring(
        self,
        connection: AsyncConnection[TupleRow],
        client_id: str,
        batch: Sequence[Ready],
        keys: Mapping[str, str],
        media: Mapping[int, str],
        made: set[str],
    ) -> None:
        """Note what the rows have brought."""
        about = {"feed": self.feed, "client_id": client_id}
        products = {one.product.id: keys[one.product.id] for one in batch}
        brought = {"keys": list(products.values()), "made": [one in made for one in products]}
        await connection.execute(self._queries["bring_products"], {**about, **brought})
        pictures = [(batch[at], key) for at, key in sorted(media.items()) if batch[at].place]
        if not pictures:
            return
        places = {
            **about,
            "keys": [keys[one.product.id] for one, _ in pictures],
            "places": [one.place for one, _ in pictures],
            "media": [key for _, key in pictures],
        }
        await connection.execute(self._queries["leave_pictures"], places)
        marks = [one.mark for one, _ in pictures]
        parameters = {
            **places,
            "made": [one.new is not None and one.new.id == key for one, key in pictures],
            "sources": [mark and mark.source for mark in marks],
            "sizes": [mark and mark.size for mark in marks],
            "stamps": [mark and mark.stamp for mark in marks],
        }
        await connection.execute(self._queries["bring_pictures"], parameters)

    # --- what has left the feed --------------------------------------------------------------------------------------

    async def brought(self) -> AsyncIterator[list[Brought]]:
        """All that the feed has brought, page by page: by client, product and place."""
        at: dict[str, Any] = {"client_id": "", "key": "", "place": -1}
        while True:
            parameters = {**at, "feed": self.feed, "most": PAGE}
            page = await self._owners.fetch(self._queries["brought"], parameters, class_row(Brought), "brought")
            if not page:
                return
            yield page
            last = page[-1]
            at = {"client_id": last.client_id, "key": last.key, "place": last.place}

    async def leave(self, pictures: Sequence[Brought]) -> None:
        """Note that the rows of these pictures have left the feed."""
        parameters = {
            "feed": self.feed,
            "keys": [one.key for one in pictures],
            "places": [one.place for one in pictures],
        }
        await self._owners.write(self._running("leave", parameters), "leave")

    async def left(self) -> list[Left]:
        """Some of the media that the feed's rows made and that no row names any more; none where there are none."""
        await self._owners.write(self._running("forget_left", {"feed": self.feed}), "forget_left")
        parameters = {"feed": self.feed, "most": PAGE}
        return await self._owners.fetch(self._queries["left"], parameters, class_row(Left), "left")

    async def remove_media(self, client_id: str, keys: Sequence[str]) -> tuple[int, list[str]]:
        """Delete those of these media that no row of a feed names; how many, and the keys of their objects."""
        parameters = {"client_id": client_id, "keys": list(keys)}

        async def remove(connection: AsyncConnection[TupleRow]) -> list[dict[str, Any]]:
            cursor = connection.cursor(row_factory=dict_row)
            return await (await cursor.execute(self._queries["remove_media"], parameters)).fetchall()

        gone = await self._runner.write(remove, "remove_media", client=client_id)
        return len(gone), [key for one in gone for key in (one["s3_key"], one["thumbnail_key"]) if key is not None]

    async def remove_products(self, client_id: str, products: Sequence[Brought]) -> int:
        """The feed no longer has these products: delete those that it made and that have no picture left; how many."""
        made = [one.key for one in products if one.made]

        async def remove(connection: AsyncConnection[TupleRow]) -> int:
            about = {"client_id": client_id, "feed": self.feed}
            cursor = connection.cursor(row_factory=scalar_row)
            async with connection.transaction():
                asked = {**about, "keys": made}
                held = await (await cursor.execute(self._queries["lock_for_removal"], asked)).fetchall()
                count = await (
                    await cursor.execute(self._queries["remove_products"], {**about, "keys": held})
                ).fetchone()
                every = {**about, "keys": [one.key for one in products]}
                await connection.execute(self._queries["forget_products"], every)
            return int(count or 0)

        return await self._runner.write(remove, "remove_products", client=client_id)

    def _running(self, name: str, parameters: Mapping[str, Any]) -> Work[None]:
        async def run(connection: AsyncConnection[TupleRow]) -> None:
            await connection.execute(self._queries[name], parameters)

        return run


def _columns_of(products: Iterable[Product]) -> dict[str, list[Any]]:
    """What is said of products, as the statements take it."""
    many = list(products)
    return {
        "ids": [one.id for one in many],
        "names": [one.name for one in many],
        "skus": [one.sku for one in many],
        "is_active": [one.is_active for one in many],
        "attributes": [None if one.attributes is None else Jsonb(dict(one.attributes)) for one in many],
    }


def _files(client_id: str, files: Sequence[tuple[str, bytes]]) -> dict[str, Any]:
    return {"client_id": client_id, "keys": [key for key, _ in files], "digests": [digest for _, digest in files]}


def _objects(batch: Sequence[Ready]) -> list[str]:
    """The keys of the objects that were stored for these rows."""
    new = [one.new for one in batch if one.new is not None]
    return [key for one in new for key in (one.s3_key, one.thumbnail_key) if key is not None]
