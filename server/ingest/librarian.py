"""A picture joins the catalogue: its bytes in the store, its row and vector in the database, all or nothing."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from server.batching.embedder import Embedded, Embedder, digest_of
from server.batching.fair_queue import Caller
from server.catalogue.batches import Applied, Change
from server.catalogue.catalogue import Catalogue
from server.catalogue.placing import Put
from server.catalogue.rows import ANYTHING, Expected, Media, NewMedia, Product
from server.database.cancelling import end
from server.database.outcome import writing
from server.errors import (
    BytesMissing,
    OutcomeUnknown,
    PictureTaken,
    TwinlensError,
)
from server.ingest.letting_go import LettingGo
from server.ingest.storage import MediaStore
from server.preprocessing.proposals import Proposal

T = TypeVar("T")

_CLOSING_SECONDS = 3.0

_log = logging.getLogger(__name__)


class Librarian:
    """Adds pictures to products, and removes pictures and products."""

    def __init__(
        self,
        embedder: Embedder,
        catalogue: Catalogue,
        store: MediaStore,
        on_remain: Callable[[Sequence[str]], None] = lambda _: None,
        *,
        own: bool = True,
        backup_runs: Callable[[], Awaitable[bool]] | None = None,
    ) -> None:
        """`on_remain`, `own`, `backup_runs`: as LettingGo has them."""
        self._letting_go = LettingGo(store, on_remain, own=own, backup_runs=backup_runs)
        self._embedder = embedder
        self._catalogue = catalogue
        self._store = store
        self._at_work: set[asyncio.Task[Any]] = set()

    async def close(self) -> None:
        """Wait for the work that was begun, also where its caller has left; for some seconds, and then it is ended."""
        if self._at_work:
            _, late = await asyncio.wait(self._at_work, timeout=_CLOSING_SECONDS)
            await end(*late)

    async def _to_its_end(self, work: Coroutine[Any, Any, T]) -> T:
        """Await work that must not stop between store and database when its caller leaves or its deadline passes."""
        with writing():
            task = asyncio.create_task(work)
            self._at_work.add(task)
            task.add_done_callback(self._at_work.discard)
            try:
                return await asyncio.shield(task)
            except asyncio.CancelledError:
                task.add_done_callback(_say_how_it_ended)  # nobody else will be told
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
        new = _new(client_id, product_id, None, data, picture, digest)

        async def add() -> tuple[tuple[Media, bool], bool]:
            added = await self._catalogue.add_media(new, picture.embedding, blank=picture.blank)
            return added, added[1]

        return await self._to_its_end(self._keep(new, data, picture, add))

    async def put(
        self, client_id: str, media_id: str, product_id: str, data: bytes, *, within: float
    ) -> tuple[Media, bool]:
        """Make a media of this id with a picture within that many seconds, or give it this picture and this product;
        the media, and whether it is new.

        Where it has these bytes already, no model is asked. Raises ProductNotFound; PictureTaken where another media of
        the product has these bytes; the kinds of MediaRejected, Overloaded, StorageFailed, CatalogueUnavailable; then
        all is as it was.
        """
        await self._catalogue.get_product(client_id, product_id)
        digest = await digest_of(data)
        same = await self._catalogue.find_media_by_digest(client_id, product_id, digest)
        if same is not None and same.id != media_id:
            raise PictureTaken
        known = same or await self._catalogue.find_media(client_id, media_id)
        if (
            known is not None
            and known.content_digest == digest
            and await self._catalogue.media_vector(client_id, media_id) is not None
        ):
            if known.product_id == product_id:
                return known, False
            return await self._move(client_id, media_id, product_id, digest), False
        caller = Caller(client_id, "bulk")
        picture = await self._embedder.embed(data, within=within, thumbnail=True, caller=caller, digest=digest)
        new = _new(client_id, product_id, media_id, data, picture, digest)

        async def put() -> tuple[Put, bool]:
            return await self._catalogue.placing.put_media(new, picture.embedding, blank=picture.blank), True

        async def keep() -> Put:
            done = await self._keep(new, data, picture, put)
            await self._letting_go.let_go(*done.gone)
            return done

        done = await self._to_its_end(keep())
        return done.media, done.created

    async def move(self, client_id: str, media_id: str, product_id: str) -> Media:
        """Have a media belong to another product. Raises MediaNotFound, ProductNotFound, PictureTaken."""
        # A change that waits for the database so long that its request is over never begins.
        await self._catalogue.get_media(client_id, media_id)
        return await self._move(client_id, media_id, product_id)

    async def _move(self, client_id: str, media_id: str, product_id: str, digest: bytes | None = None) -> Media:
        return await self._to_its_end(
            self._catalogue.placing.move_media(client_id, media_id, product_id, digest=digest)
        )

    async def _keep(
        self, new: NewMedia, data: bytes, picture: Embedded, write: Callable[[], Awaitable[tuple[T, bool]]]
    ) -> T:
        """Store the bytes first and the row last, so that every row has its bytes.

        `write` writes the row; it gives what it wrote, and whether the row names the bytes that were stored.
        """
        kept, stored = False, False
        try:
            await self._store.put(new.s3_key, data)
            stored = True
            if picture.thumbnail is not None and new.thumbnail_key is not None:
                await self._store.put(new.thumbnail_key, picture.thumbnail)
            written, kept = await write()
        except (OutcomeUnknown, asyncio.CancelledError):
            kept = True  # the row may have been committed, and must then have its bytes
            _log.warning("Kept in the media store, although the catalogue may have no row for it: %s", new.s3_key)
            raise
        finally:
            if not kept:
                # Where nothing could be stored, that is what is said; that nothing could be deleted either is no news.
                await self._letting_go.discard(new.s3_key, new.thumbnail_key, quiet=not stored)
        return written

    async def remove(self, client_id: str, media_id: str) -> Media:
        """Remove a media, row first. Raises MediaNotFound."""
        # A deletion that waits for the database so long that its request is over never begins.
        await self._catalogue.get_media(client_id, media_id)
        return await self._to_its_end(self._remove(client_id, media_id))

    async def _remove(self, client_id: str, media_id: str) -> Media:
        media = await self._catalogue.delete_media(client_id, media_id)
        await self._letting_go.let_go(media.s3_key, media.thumbnail_key)
        return media

    async def remove_product(self, client_id: str, product_id: str, *, expected: Expected = ANYTHING) -> Product:
        """Remove a product with all its media, rows first; gives what it was.

        Raises ProductNotFound, PreconditionFailed.
        """
        # A deletion that waits for the database so long that its request is over never begins.
        await self._catalogue.get_product(client_id, product_id)
        return await self._to_its_end(self._remove_product(client_id, product_id, expected))

    async def _remove_product(self, client_id: str, product_id: str, expected: Expected) -> Product:
        product, keys = await self._catalogue.delete_product(client_id, product_id, expected=expected)
        await self._letting_go.let_go(*keys)
        return product

    async def apply(
        self, client_id: str, changes: Sequence[Change | TwinlensError], *, atomic: bool = False
    ) -> Applied:
        """Apply a batch of changes to products, rows first, as `Batches.apply`."""
        return await self._to_its_end(self._apply(client_id, changes, atomic))

    async def _apply(self, client_id: str, changes: Sequence[Change | TwinlensError], atomic: bool) -> Applied:
        applied = await self._catalogue.batches.apply(client_id, changes, atomic=atomic)
        await self._letting_go.let_go(*applied.keys)
        return applied

    async def thumbnail(self, media: Media) -> bytes:
        """The thumbnail of a media as WebP, made again where the store has none.

        Raises the kinds of MediaRejected, and those of StorageFailed: BytesMissing where the picture is lost, too.
        """
        if media.thumbnail_key is not None:
            with contextlib.suppress(BytesMissing):
                return await self._store.get(media.thumbnail_key)
        return await self._embedder.thumbnail(await self._store.get(media.s3_key), Caller(media.client_id))

    async def propose(self, media: Media) -> list[Proposal]:
        """Which parts of a media's picture show something.

        Raises the kinds of MediaRejected, and those of StorageFailed: BytesMissing where the picture is lost.
        """
        return await self._embedder.propose(await self._store.get(media.s3_key), Caller(media.client_id))


def _new(
    client_id: str, product_id: str, media_id: str | None, data: bytes, picture: Embedded, digest: bytes
) -> NewMedia:
    """A media to be, whose objects are named after the upload; so is the media itself where no id is given."""
    upload = uuid.uuid4().hex
    return NewMedia(
        id=media_id or upload,
        product_id=product_id,
        client_id=client_id,
        s3_key=f"media/{client_id}/{upload}.{picture.format.extension}",
        thumbnail_key=f"thumbnails/{client_id}/{upload}.webp",
        content_type=picture.format.content_type,
        bytes=len(data),
        width=picture.width,
        height=picture.height,
        content_digest=digest,
        upload=upload,
    )


def _say_how_it_ended(task: asyncio.Task[Any]) -> None:
    """Say why work has failed whose caller left before its end."""
    if task.cancelled() or (error := task.exception()) is None:
        return
    if isinstance(error, TwinlensError):
        _log.warning("What a caller had begun, and left, was not carried out: %s", error.line)
    else:
        _log.error("What a caller had begun, and left, failed", exc_info=error)
