"""What a row of a feed needs, and what is made of its picture: the same steps on one machine and on many."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from server.batching.embedder import digest_of
from server.catalogue.rows import NewMedia
from server.errors import EncoderFailed, FetchFailed, MediaRejected, TwinlensError, UrlRefused
from server.ingest.feed_writer import FeedWriter, KnownPicture, KnownProduct, Ready, SameFile
from server.ingest.pictures import Mark, Pictures
from server.ingest.spool import Placed
from server.preprocessing.formats import Format

_SUPPOSED_BYTES = 2_000_000  # of a picture whose size is not known until it has come

OF_THE_PICTURE = (MediaRejected, UrlRefused, FetchFailed, EncoderFailed)
"""What is the fault of one picture, or of the model with this one."""


@dataclass(slots=True)
class Work:
    """A row whose picture is to be fetched."""

    placed: Placed
    product: KnownProduct | None
    picture: KnownPicture | None
    size: int
    """Bytes that the picture is supposed to have."""

    def is_news(self, ready: Ready) -> bool:
        """Whether there is anything to write, now that the picture was fetched."""
        if self.product is None or not self.product.same or not self.product.brought:
            return True
        if self.picture is None or ready.vector is not None or ready.media_key != self.picture.media_key:
            return True
        return ready.mark != self.picture.mark


@dataclass(slots=True)
class Made:
    """A row that can be written once its objects are stored."""

    ready: Ready
    placed: Placed
    objects: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        return sum(map(len, self.objects.values()))


@dataclass(frozen=True, slots=True)
class Taken:
    """A row whose picture was fetched."""

    made: Made
    data: bytes | None = None
    """Of a picture that is to be embedded; None where there is nothing to embed."""
    digest: bytes = b""


class Facts(Protocol):
    """What a decoded picture is."""

    @property
    def format(self) -> Format: ...

    @property
    def width(self) -> int: ...

    @property
    def height(self) -> int: ...

    @property
    def thumbnail(self) -> bytes | None: ...


def random_upload(placed: Placed, digest: bytes) -> str:
    """32 hex digits like no others, by which a new media and its objects are called."""
    return uuid.uuid4().hex


class Maker:
    """Finds what rows need, and fetches their pictures."""

    def __init__(
        self,
        writer: FeedWriter,
        pictures: Pictures,
        *,
        reread: bool = False,
        name_upload: Callable[[Placed, bytes], str] = random_upload,
    ) -> None:
        """`reread`: read also what looks unchanged. `name_upload`: what a row's new media is called,
        whose bytes have this digest."""
        self._writer = writer
        self._pictures = pictures
        self._reread = reread
        self._name_upload = name_upload
        self._same = _Lookups(writer)

    async def plan(self, client_id: str, rows: Sequence[Placed]) -> list[Work | Made | Placed]:
        """What each of these rows of a client needs: its picture, or to be written as it is, or nothing at all."""
        products = {one.product.id: one.product for one in rows}
        known = await self._writer.known_products(client_id, list(products.values()))
        places = [(known[one.product.id].key, one.place) for one in rows if one.place and one.product.id in known]
        before = await self._writer.known_pictures(client_id, places) if places else {}
        with_picture = [one for one in rows if one.row.picture is not None]
        looks = await asyncio.to_thread(
            self._pictures.look, [one.row.picture for one in with_picture if one.row.picture is not None]
        )
        seen = dict(zip((one.at for one in with_picture), looks, strict=True))
        said: set[str] = set()
        needs: list[Work | Made | Placed] = []
        for one in rows:
            product = known.get(one.product.id)
            picture = before.get((product.key, one.place)) if product is not None else None
            look = seen.get(one.at)
            # What is said of the product is written with the first of its rows, also where nothing else is new.
            due = (product is None or not product.same or not product.brought) and one.product.id not in said
            if one.row.picture is not None and not self._is_same(picture, look):
                needs.append(Work(one, product, picture, look.size if look is not None else _SUPPOSED_BYTES))
            elif due:
                said.add(one.product.id)
                needs.append(Made(_ready(one, picture), one))
            else:
                needs.append(one)
        return needs

    def _is_same(self, picture: KnownPicture | None, look: Mark | None) -> bool:
        """Whether the picture is sure to be the one that the row brought before, unread."""
        if self._reread or picture is None or not picture.embedded or picture.stamp is None:
            return False
        return picture.mark == look

    async def take(self, work: Work) -> Taken:
        """Fetch a row's picture. One that the product has already needs no model.

        Raises what is the picture's fault (OF_THE_PICTURE), and StorageFailed's kinds.
        """
        ready, before = _ready(work.placed, work.picture), work.picture
        made = Made(ready, work.placed)
        if (picture := work.placed.row.picture) is None:
            return Taken(made)
        known = None if self._reread or before is None or not before.embedded else before.mark
        fetched = await self._pictures.fetch(picture, known)
        if fetched is None:
            return Taken(made)
        ready.mark = fetched.mark
        digest = await digest_of(fetched.data)
        there = SameFile("", digest, before.media_key, before.embedded) if before and before.digest == digest else None
        if there is None and work.product is not None:
            there = await self._same.find(ready.product.client_id, work.product.key, digest)
        ready.replaces = before is not None and before.digest != digest
        ready.media_key = there.media_key if there is not None else None
        return Taken(made) if there is not None and there.embedded else Taken(made, fetched.data, digest)

    def complete(self, taken: Taken, facts: Facts) -> Made:
        """The row with its new media, where the product has none of these bytes; its vector is still to come."""
        ready, data = taken.made.ready, taken.data
        if ready.media_key is not None or data is None:
            return taken.made
        client_id, upload = ready.product.client_id, self._name_upload(taken.made.placed, taken.digest)
        ready.new = NewMedia(
            id=upload,
            product_id=ready.product.id,
            client_id=client_id,
            s3_key=f"media/{client_id}/{upload}.{facts.format.extension}",
            thumbnail_key=f"thumbnails/{client_id}/{upload}.webp" if facts.thumbnail is not None else None,
            content_type=facts.format.content_type,
            bytes=len(data),
            width=facts.width,
            height=facts.height,
            content_digest=taken.digest,
            upload=upload,
        )
        objects = {ready.new.s3_key: data}
        if facts.thumbnail is not None and ready.new.thumbnail_key is not None:
            objects[ready.new.thumbnail_key] = facts.thumbnail
        return Made(ready, taken.made.placed, objects)


def without_picture(work: Work) -> Made | None:
    """A row whose picture failed. What it says of its product is kept where there is the product: prices stay right."""
    if work.product is None or work.product.same:
        return None
    return Made(Ready(work.placed.product, 0, may_make=False), work.placed)


def in_order(batch: Sequence[Made]) -> list[Made]:
    """Clients in turn, and within one the products in order, in which everything locks them."""
    return sorted(batch, key=lambda one: (one.ready.product.client_id, one.ready.product.id, one.ready.place))


def _ready(placed: Placed, picture: KnownPicture | None) -> Ready:
    ready = Ready(placed.product, placed.place)
    if picture is not None:
        ready.media_key, ready.mark = picture.media_key, picture.mark
    return ready


class _Lookups:
    """Asks the database for files that products have already: whatever is asked while one statement runs goes into the
    next one."""

    def __init__(self, writer: FeedWriter) -> None:
        self._writer = writer
        self._waiting: list[tuple[str, str, bytes, asyncio.Future[SameFile | None]]] = []
        self._asking: asyncio.Task[None] | None = None

    async def find(self, client_id: str, product_key: str, digest: bytes) -> SameFile | None:
        answer: asyncio.Future[SameFile | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((client_id, product_key, digest, answer))
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
        return await answer

    async def _ask(self) -> None:
        while self._waiting:
            waiting, self._waiting = self._waiting, []
            for client_id in {client_id for client_id, *_ in waiting}:
                of_client = [(key, digest, answer) for client, key, digest, answer in waiting if client == client_id]
                try:
                    found = await self._writer.same_files(client_id, [(key, digest) for key, digest, _ in of_client])
                except TwinlensError as exc:
                    for *_, answer in of_client:
                        if not answer.done():
                            answer.set_exception(exc)
                    continue
                for key, digest, answer in of_client:
                    if not answer.done():
                        answer.set_result(found.get((key, digest)))
