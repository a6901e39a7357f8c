"""From the rows of a feed to the catalogue: plan, fetch, embed, store, write, all at the same time.

Each stage hands on to the next through a queue of a few places, so that memory does not grow with the feed, and the
model has pictures to embed while bytes are stored and rows are written. Bytes are stored before rows are written; what
a crash leaves in the store without a row is swept.

Nothing is remembered but what is in the database, batch by batch. So whatever ends a run, the next one finds what it
has written, and begins with the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Protocol

from server.batching.embedder import Embedded
from server.batching.fair_queue import Caller
from server.errors import EncoderFailed, TwinlensError, first_of_ours
from server.ingest.feed_writer import FeedWriter, Vector
from server.ingest.making import OF_THE_PICTURE, Made, Maker, Work, in_order, without_picture
from server.ingest.pictures import Pictures
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
_EMBED_WITHIN_SECONDS = 600.0
_TRIES = 3


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
        self._maker = Maker(writer, pictures, reread=reread)
        self._let_go = let_go
        self._at_once = at_once
        self._stop = stop
        self._on_failed = on_failed
        self._on_done = on_done
        self._room = _Room(_BYTES_AT_ONCE)
        self._todo: asyncio.Queue[Work | None] = asyncio.Queue(2 * at_once)
        self._made: asyncio.Queue[Made | None] = asyncio.Queue(2 * BATCH)
        self._stored: asyncio.Queue[list[Made] | None] = asyncio.Queue(_STORED_AHEAD)

    async def run(self, rows: Iterator[Placed]) -> Counts:
        """Bring in all rows; rows of a client, and of a product, follow one another.

        Raises what is no single row's fault: StorageFailed's kinds, CatalogueUnavailable's, IngestRefused. What is
        written by then stays.
        """
        with first_of_ours():
            async with asyncio.TaskGroup() as group:
                group.create_task(self._plan_all(rows))
                group.create_task(self._make_all())
                group.create_task(self._store_all())
                group.create_task(self._write_all())
        return self.counts

    # --- which rows need anything ------------------------------------------------------------------------------------

    async def _plan_all(self, rows: Iterator[Placed]) -> None:
        while not self._stop.is_set() and (chunk := await asyncio.to_thread(lambda: list(islice(rows, PLANNED)))):
            for client_id, many in groupby(chunk, key=lambda one: one.product.client_id):
                await self._plan(client_id, list(many))
        await self._todo.put(None)

    async def _plan(self, client_id: str, rows: Sequence[Placed]) -> None:
        for need in await self._maker.plan(client_id, rows):
            match need:
                case Work():
                    await self._todo.put(need)
                case Made():
                    await self._made.put(need)
                case Placed():
                    self._done(unchanged=1)

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
            made: Made | None = None
            held = 0
            try:
                made = await self._make(work)
                held = made.bytes
            except OF_THE_PICTURE as exc:
                self._fail(work.placed, exc)
                made = without_picture(work)
            finally:
                await self._room.settle(work.size, held)
            if made is not None and work.is_news(made.ready):
                await self._made.put(made)
            elif made is not None:
                self._done(unchanged=1)
        await self._todo.put(None)  # for the next of those who wait

    async def _make(self, work: Work) -> Made:
        """Raises what is the picture's fault, and StorageFailed's kinds."""
        taken = await self._maker.take(work)
        if taken.data is None:
            return taken.made
        picture = await self._to_vector(work.placed.product.client_id, taken.data, taken.digest)
        self.counts.embedded += 1
        made = self._maker.complete(taken, picture)
        made.ready.vector = Vector(picture.embedding, picture.blank)
        return made

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

    async def _gather(self) -> tuple[list[Made], bool]:
        """The next batch, and whether more may come. A batch waits for its last row no longer than a second."""
        batch: list[Made] = []
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
            for client_id, many in groupby(in_order(batch), key=lambda one: one.ready.product.client_id):
                await self._write(client_id, list(many))

    async def _write(self, client_id: str, batch: Sequence[Made]) -> None:
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
