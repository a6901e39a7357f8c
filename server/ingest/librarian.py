"""A picture joins the catalogue: its bytes in the store, its row and vector in the database, all or nothing."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Coroutine
from typing import Any, TypeVar

from server.batching.embedder import Embedded, Embedder, digest_of
from server.batching.fair_queue import Caller
from server.catalogue.catalogue import Catalogue
from server.catalogue.rows import Media, NewMedia, Product
from server.errors import MediaNotFound, OutcomeUnknown, StorageFailed, TwinlensError
from server.ingest.storage import MediaStore

T = TypeVar("T")

_log = logging.getLogger(__name__)


class Librarian:
    """Adds pictures to products, and removes pictures and products."""

    def __init__(self, embedder: Embedder, catalogue: Catalogue, store: MediaStore) -> None:
        self._embedder = embedder
        self._catalogue = catalogue
        self._store = store
        self._at_work: set[asyncio.Task[Any]] = set()

    async def close(self) -> None:
        """Wait for the work that was begun, also where its caller has left."""
        await asyncio.gather(*self._at_work, return_exceptions=True)

    async def _to_its_end(self, work: Coroutine[Any, Any, T]) -> T:
        """Await work that must not stop between store and database when its caller leaves or its deadline passes."""
        task = asyncio.create_task(work)
        self._at_work.add(task)
        task.add_done_callback(self._at_work.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_tell)
            raise

    async def add(self, client_id: str, product_id: str, data: bytes, *, within: float) -> tuple[Media, bool]:
        """Add a picture to a product within that many seconds; the media, and whether it is new.

        Where the product has a media of the same bytes already, that media is given. Raises ProductNotFound, the kinds
        of MediaRejected, Overloaded, StorageFailed, CatalogueUnavailable; then nothing is left behind.
        """
        await self._catalogue.get_product(client_id, product_id)
        digest = await digest_of(data)
        known = await self._catalogue.find_media_by_digest(client_id, product_id, digest)
        if known is not None and await self._catalogue.media_vector(client_id, known.id) is not None:
            return known, False
        caller = Caller(client_id, "bulk")
        picture = await self._embedder.embed(data, within=within, thumbnail=True, caller=caller, digest=digest)
        media_id = uuid.uuid4().hex
        key = f"media/{client_id}/{media_id}.{picture.format.extension}"
        thumbnail_key = f"thumbnails/{client_id}/{media_id}.webp"
        new = NewMedia(
            id=media_id,
            product_id=product_id,
            client_id=client_id,
            s3_key=key,
            thumbnail_key=thumbnail_key,
            content_type=picture.format.content_type,
            bytes=len(data),
            width=picture.width,
            height=picture.height,
            content_digest=digest,
        )
        return await self._to_its_end(self._keep(new, data, picture))

    async def _keep(self, new: NewMedia, data: bytes, picture: Embedded) -> tuple[Media, bool]:
        """Store the bytes first and the row last, so that every row has its bytes."""
        kept = False
        try:
            await self._store.put(new.s3_key, data)
            if picture.thumbnail is not None and new.thumbnail_key is not None:
                await self._store.put(new.thumbnail_key, picture.thumbnail)
            media, kept = await self._catalogue.add_media(new, picture.embedding)
        except StorageFailed:
            kept = True  # nothing that the store would delete either; a second line in the log would say the same
            with contextlib.suppress(StorageFailed):
                await self._store.delete(*(key for key in (new.s3_key, new.thumbnail_key) if key))
            raise
        except OutcomeUnknown:
            kept = True  # the row may have been committed, and must then have its bytes
            _log.warning("Kept in the media store, although the catalogue may have no row for it: %s", new.s3_key)
            raise
        finally:
            if not kept:
                await self._sweep(new.s3_key, new.thumbnail_key)
        return media, kept

    async def remove(self, client_id: str, media_id: str) -> Media:
        """Remove a media, row first. Raises MediaNotFound."""
        return await self._to_its_end(self._remove(client_id, media_id))

    async def _remove(self, client_id: str, media_id: str) -> Media:
        media = await self._catalogue.delete_media(client_id, media_id)
        await self._sweep(media.s3_key, media.thumbnail_key)
        return media

    async def remove_product(self, client_id: str, product_id: str) -> Product:
        """Remove a product with all its media, rows first. Raises ProductNotFound."""
        return await self._to_its_end(self._remove_product(client_id, product_id))

    async def _remove_product(self, client_id: str, product_id: str) -> Product:
        product = await self._catalogue.get_product(client_id, product_id)
        await self._sweep(*await self._catalogue.delete_product(client_id, product_id))
        return product

    async def thumbnail(self, client_id: str, media_id: str) -> bytes:
        """The thumbnail of a media as WebP, made again where the store has none.

        Raises MediaNotFound, the kinds of MediaRejected, StorageFailed.
        """
        media = await self._catalogue.get_media(client_id, media_id)
        if media.thumbnail_key is not None:
            with contextlib.suppress(MediaNotFound):
                return await self._store.get(media.thumbnail_key)
        return await self._embedder.thumbnail(await self._store.get(media.s3_key), Caller(client_id))

    async def _sweep(self, *keys: str | None) -> None:
        """Delete objects that no row names any more."""
        try:
            await self._store.delete(*(key for key in keys if key))
        except StorageFailed as exc:
            _log.warning("The catalogue has no row for it any more, but its bytes remain: %s", exc.line)


def _tell(task: asyncio.Task[Any]) -> None:
    """Log what went wrong after the request had ended, with its caller gone or its deadline over: nobody else can."""
    if task.cancelled() or (error := task.exception()) is None:
        return
    if isinstance(error, TwinlensError):
        _log.warning("A change failed after its request had ended: %s", error.line)
    else:
        _log.error("A change failed after its request had ended.", exc_info=error)
