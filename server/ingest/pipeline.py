"""From the rows of a feed to the catalogue: plan, fetch, embed, store, write, all at the same time.

Each stage hands on to the next through a queue of a few places, so that memory does not grow with the feed, and the
model has pictures to embed while bytes are stored and rows are written. Bytes are stored before rows are written; what
a crash leaves in the store without a row is swept.

Nothing is remembered but what is in the database, batch by batch. So whatever ends a run, the next one finds what it
has written, and begins with the rest.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice
from typing import Protocol

from server.batching.embedder import Embedded, digest_of
from server.batching.fair_queue import Caller
from server.catalogue.rows import NewMedia
from server.errors import EncoderFailed, FetchFailed, MediaRejected, TwinlensError, UrlRefused
from server.ingest.feed_writer import FeedWriter, KnownPicture, KnownProduct, Ready, SameFile, Vector
from server.ingest.pictures import Fetched, Mark, Pictures
from server.ingest.spool import Placed
from server.ingest.storage import MediaStore

PLANNED = 256
"""Rows that are compared with the catalogue in one go."""

BATCH = 64
"""Rows that are written in one transaction. So many pictures at most, and those in between, are embedded again after a
crash."""

_BATCH_BYTES = 16_000_000
_BATCH_SECONDS = 1.0
_STORED_AHEAD = 2
_BYTES_AT_ONCE = 128_000_000
_SUPPOSED_BYTES = 2_000_000  # of a picture whose size is not known until it has come
_EMBED_WITHIN_SECONDS = 600.0
_TRIES = 3

_OF_THE_PICTURE = (MediaRejected, UrlRefused, FetchFailed, EncoderFailed)
"""What is the fault of one picture, or of the model with this one."""


class Embeds(Protocol):
    """What makes vectors of pictures: `Embedder.embed`."""

    async def embed(
        self, data: bytes, *, within: float, thumbnail: bool, caller: Caller, digest: bytes
    ) -> Embedded: ...


@dataclass(frozen=True, slots=True)
class Failed:
    """A row that could not be brought in, and why."""

    placed: Placed
    error: TwinlensError


@dataclass(slots=True)
class Counts:
    """What has become of the rows so far."""

    rows: int = 0
    unchanged: int = 0
    """Rows of which nothing had to be written."""
    embedded: int = 0
    """Pictures that the model has seen."""
    added: int = 0
    """New media."""
    replaced: int = 0
    """Rows whose picture is another one than before."""
    products_made: int = 0
    failed: int = 0


@dataclass(slots=True)
class _Work:
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
class _Made:
    """A row that can be written once its objects are stored."""

    ready: Ready
    placed: Placed
    objects: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        return sum(map(len, self.objects.values()))


class Pipeline:
    """Brings rows into the catalogue."""

    def __init__(
        self,
        *,
        writer: FeedWriter,
        embedder: Embeds,
        store: MediaStore,
        pictures: Pictures,
        let_go: Callable[[Sequence[str]], Awaitable[None]],
        at_once: int,
        stop: asyncio.Event,
        on_failed: Callable[[Failed], None],
        on_done: Callable[[int], None] = lambda _: None,
        reread: bool = False,
    ) -> None:
        """`let_go`: sees to objects that no row names. `at_once`: pictures that are fetched and embedded at one time.
        `stop`: once it is set, no other row is begun, and those that were begun are written. `on_done` is told how many
        rows are done. `reread`: read also what looks unchanged."""
        self.counts = Counts()
        self._writer = writer
        self._embedder = embedder
        self._store = store
        self._pictures = pictures
        self._let_go = let_go
        self._at_once = at_once
        self._stop = stop
        self._on_failed = on_failed
        self._on_done = on_done
        self._reread = reread
        self._room = _Room(_BYTES_AT_ONCE)
        self._same = _Lookups(writer)
        self._todo: asyncio.Queue[_Work | None] = asyncio.Queue(2 * at_once)
        self._made: asyncio.Queue[_Made | None] = asyncio.Queue(2 * BATCH)
        self._stored: asyncio.Queue[list[_Made] | None] = asyncio.Queue(_STORED_AHEAD)

    async def run(self, rows: Iterator[Placed]) -> Counts:
        """Bring in all rows; rows of a client, and of a product, follow one another.

        Raises what is no single row's fault: StorageFailed's kinds, CatalogueUnavailable's, IngestRefused. What is
        written by then stays.
        """
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._plan_all(rows))
                group.create_task(self._make_all())
                group.create_task(self._store_all())
                group.create_task(self._write_all())
        except ExceptionGroup as exc:
            if (ours := exc.subgroup(TwinlensError)) is None:
                raise
            raise _innermost(ours) from exc
        return self.counts

    # --- which rows need anything ------------------------------------------------------------------------------------

    async def _plan_all(self, rows: Iterator[Placed]) -> None:
        while not self._stop.is_set() and (chunk := await asyncio.to_thread(lambda: list(islice(rows, PLANNED)))):
            for client_id, many in groupby(chunk, key=lambda one: one.product.client_id):
                await self._plan(client_id, list(many))
        await self._todo.put(None)

    async def _plan(self, client_id: str, rows: Sequence[Placed]) -> None:
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
        for one in rows:
            product = known.get(one.product.id)
            picture = before.get((product.key, one.place)) if product is not None else None
            look = seen.get(one.at)
            # What is said of the product is written with the first of its rows, also where nothing else is new.
            due = (product is None or not product.same or not product.brought) and one.product.id not in said
            if one.row.picture is not None and not self._is_same(picture, look):
                size = look.size if look is not None else _SUPPOSED_BYTES
                await self._todo.put(_Work(one, product, picture, size))
            elif due:
                said.add(one.product.id)
                await self._made.put(_Made(self._ready(one, picture), one))
            else:
                self._done(unchanged=1)

    def _is_same(self, picture: KnownPicture | None, look: Mark | None) -> bool:
        """Whether the picture is sure to be the one that the row brought before, unread."""
        if self._reread or picture is None or not picture.embedded or picture.stamp is None:
            return False
        return picture.mark == look

    def _ready(self, placed: Placed, picture: KnownPicture | None) -> Ready:
        ready = Ready(placed.product, placed.place)
        if picture is not None:
            ready.media_key, ready.mark = picture.media_key, picture.mark
        return ready

    # --- fetching and embedding --------------------------------------------------------------------------------------

    async def _make_all(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(self._at_once):
                group.create_task(self._make_some())
        await self._made.put(None)

    async def _make_some(self) -> None:
        while (work := await self._todo.get()) is not None:
            if self._stop.is_set():
                continue
            await self._room.take(work.size)
            made: _Made | None = None
            held = 0
            try:
                made = await self._make(work)
                held = made.bytes
            except _OF_THE_PICTURE as exc:
                made = self._without(work, exc)
            finally:
                await self._room.settle(work.size, held)
            if made is not None and work.is_news(made.ready):
                await self._made.put(made)
            elif made is not None:
                self._done(unchanged=1)
        await self._todo.put(None)  # for the next of those who wait

    def _without(self, work: _Work, error: TwinlensError) -> _Made | None:
        """A row whose picture failed. What it says of its product is kept where there is the product: prices stay
        right."""
        self._fail(work.placed, error)
        if work.product is None or work.product.same:
            return None
        return _Made(Ready(work.placed.product, 0, may_make=False), work.placed)

    async def _make(self, work: _Work) -> _Made:
        """Raises what is the picture's fault, and StorageFailed's kinds."""
        ready = self._ready(work.placed, work.picture)
        if (picture := work.placed.row.picture) is None:
            return _Made(ready, work.placed)
        known = None if self._reread or work.picture is None or not work.picture.embedded else work.picture.mark
        fetched = await self._pictures.fetch(picture, known)
        return _Made(ready, work.placed) if fetched is None else await self._embed(work, ready, fetched)

    async def _embed(self, work: _Work, ready: Ready, fetched: Fetched) -> _Made:
        """What is to be written of a picture. Pictures that the product has already need no model."""
        data, before = fetched.data, work.picture
        ready.mark = fetched.mark
        client_id = ready.product.client_id
        digest = await digest_of(data)
        there = SameFile("", digest, before.media_key, before.embedded) if before and before.digest == digest else None
        if there is None and work.product is not None:
            there = await self._same.find(client_id, work.product.key, digest)
        ready.replaces = before is not None and before.digest != digest
        ready.media_key = there.media_key if there is not None else None
        if there is not None and there.embedded:
            return _Made(ready, work.placed)
        picture = await self._to_vector(client_id, data, digest)
        self.counts.embedded += 1
        ready.vector = Vector(picture.embedding, picture.blank)
        if there is not None:
            return _Made(ready, work.placed)
        upload = uuid.uuid4().hex
        ready.new = NewMedia(
            id=upload,
            product_id=ready.product.id,
            client_id=client_id,
            s3_key=f"media/{client_id}/{upload}.{picture.format.extension}",
            thumbnail_key=f"thumbnails/{client_id}/{upload}.webp" if picture.thumbnail is not None else None,
            content_type=picture.format.content_type,
            bytes=len(data),
            width=picture.width,
            height=picture.height,
            content_digest=digest,
            upload=upload,
        )
        objects = {ready.new.s3_key: data}
        if picture.thumbnail is not None and ready.new.thumbnail_key is not None:
            objects[ready.new.thumbnail_key] = picture.thumbnail
        return _Made(ready, work.placed, objects)

    async def _to_vector(self, client_id: str, data: bytes, digest: bytes) -> Embedded:
        for attempt in range(1, _TRIES + 1):
            try:
                return await self._embedder.embed(
                    data,
                    within=_EMBED_WITHIN_SECONDS,
                    thumbnail=True,
                    caller=Caller(client_id, "bulk"),
                    digest=digest,
                )
            except EncoderFailed:
                if attempt == _TRIES:
                    raise
        raise AssertionError("unreachable: the last attempt returns or raises")

    # --- storing and writing -----------------------------------------------------------------------------------------

    async def _store_all(self) -> None:
        going_on = True
        while going_on:
            batch, going_on = await self._gather()
            if batch:
                objects = {key: data for one in batch for key, data in one.objects.items()}
                if objects:
                    await self._store.put_all(objects)
                for one in batch:
                    await self._room.settle(one.bytes, 0)
                    one.objects = {}
                await self._stored.put(batch)
        await self._stored.put(None)

    async def _gather(self) -> tuple[list[_Made], bool]:
        """The next batch, and whether more may come. A batch waits for its last row no longer than a second."""
        batch: list[_Made] = []
        size = 0
        loop = asyncio.get_running_loop()
        deadline: float | None = None
        while len(batch) < BATCH and size < _BATCH_BYTES:
            try:
                async with asyncio.timeout_at(deadline):
                    one = await self._made.get()
            except TimeoutError:
                break
            if one is None:
                return batch, False
            batch.append(one)
            size += one.bytes
            deadline = deadline or loop.time() + _BATCH_SECONDS
        return batch, True

    async def _write_all(self) -> None:
        while (batch := await self._stored.get()) is not None:
            # Clients in turn, and within one the products in order, in which everything locks them.
            batch.sort(key=lambda one: (one.ready.product.client_id, one.ready.product.id, one.ready.place))
            for client_id, many in groupby(batch, key=lambda one: one.ready.product.client_id):
                await self._write(client_id, list(many))

    async def _write(self, client_id: str, batch: Sequence[_Made]) -> None:
        written = await self._writer.write(client_id, [one.ready for one in batch])
        failed = {id(ready): error for ready, error in written.failed}
        counts = self.counts
        counts.products_made += written.products_made
        counts.added += len(written.added)
        if written.unneeded:
            await self._let_go(written.unneeded)
        for one in batch:
            if not one.ready.may_make:
                continue  # of a row that has failed, and is counted
            if (error := failed.get(id(one.ready))) is not None:
                self._fail(one.placed, error)
            else:
                counts.replaced += one.ready.replaces
                self._done()

    def _fail(self, placed: Placed, error: TwinlensError) -> None:
        self._on_failed(Failed(placed, error))
        self.counts.failed += 1
        self._done()

    def _done(self, *, unchanged: int = 0) -> None:
        self.counts.rows += 1
        self.counts.unchanged += unchanged
        self._on_done(1)


class _Room:
    """So many bytes of pictures are in memory at one time; one that is larger than all of it has it to itself."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._taken = 0
        self._news = asyncio.Condition()

    async def take(self, count: int) -> None:
        """Wait until there is room for so many bytes."""
        async with self._news:
            await self._news.wait_for(lambda: not self._taken or self._taken + count <= self._size)
            self._taken += count

    async def settle(self, taken: int, count: int) -> None:
        """Of what was taken for it, a picture needs so many bytes, or none any more."""
        async with self._news:
            self._taken += count - taken
            self._news.notify_all()


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


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
