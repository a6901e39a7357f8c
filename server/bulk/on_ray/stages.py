"""The stages: decode, encode, write. Each is a worker of Ray's, which takes records and gives records.

Every stage gives one record for one record. What is a picture's fault travels in it, to be told of at the end; so does
what is no row's fault, which ends the run there: an error that a worker raised would be Ray's, with the worker's whole
stack around our sentence. A worker opens what it needs with its first batch, for the same reason.

Whatever a stage does may be done twice: a worker that is lost has its batch done again by another one. Objects have
names that follow from the run and the row, so they are written over. Rows that are there are found to be there.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import Any, Protocol, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from server import __version__
from server.artifact.artifact import Artifact
from server.batching.batcher import Batcher, Lanes
from server.batching.decoding import Decoded, Decoding
from server.batching.fair_queue import Caller
from server.bulk.bringing import Job, pool_for
from server.bulk.on_ray.records import (
    Batch,
    ToEmbed,
    Told,
    Trouble,
    batch_of,
    number_of,
    packed,
    pixels_of,
)
from server.bulk.on_ray.supply import unpacked
from server.database.pool import Pool
from server.database.runner import Runner
from server.engine import open_engine
from server.errors import EncoderFailed, IngestRefused, TwinlensError, first_of_ours
from server.ingest.backups import backup_runs
from server.ingest.feed_writer import FeedWriter, Vector
from server.ingest.letting_go import LettingGo
from server.ingest.making import OF_THE_PICTURE, Made, Maker, Work, in_order, without_picture
from server.ingest.spool import Placed
from server.ingest.storage import MediaStore
from server.operations.logs import log_to_stderr
from server.preprocessing.blank import is_blank
from server.preprocessing.nvimagecodec import JpegDecoder
from server.spaces.reembed import lower_priority

T = TypeVar("T")

_PICTURES_AT_ONCE = 16
_BATCH = 8
_TRIES = 3


class Desk(Protocol):
    """How a worker reaches the supply."""

    async def ask(self, number: int) -> bytes: ...

    def begin(self, stage: str, number: int) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Orders:
    """What every worker of a run is told."""

    job: Job
    url: str
    """Of the database, with the rights of its owner."""
    serving_url: str
    version: str
    """Of Twinlens, that of the command."""
    nonce: bytes
    """Drawn at random for the run."""
    threads: int
    """Of the model, in a worker that encodes on the CPU."""
    gives_way: bool
    """Whether workers let all other processes of their machine go first."""

    def name_upload(self, placed: Placed, digest: bytes) -> str:
        """32 hex digits that nobody can guess, and that the row gets again when it is done again with these bytes."""
        return hashlib.blake2b(f"{placed.at} ".encode() + digest, key=self.nonce, digest_size=16).hexdigest()


class _Loop:
    """An event loop in a thread of its own, which goes on between the batches: connections are looked after."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="stage", daemon=True).start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


class Stage(ABC):
    """What the stages have in common."""

    name = ""

    def __init__(self, orders: Orders, desk: Desk) -> None:
        self._orders = orders
        self._job = orders.job
        self._desk = desk
        self._loop = _Loop()
        # What is opened is never closed: Ray ends the process.
        self._stack = AsyncExitStack()
        self._opened = False
        log_to_stderr(self._job.settings.printable, self._job.settings.log, process=f"ingest-{self.name}")
        if orders.gives_way:
            lower_priority()

    def __call__(self, record: pa.Table) -> pa.Table:
        """One record for one record."""
        self._desk.begin(self.name, number_of(record))
        return self._loop.run(self._step(record))

    async def _step(self, record: pa.Table) -> pa.Table:
        batch = batch_of(record) if "batch" in record.column_names else Batch(number_of(record))
        if batch.trouble is not None:
            return packed(batch)
        try:
            await self._ready()
            return packed(*await self._do(batch, record))
        except TwinlensError as exc:
            return packed(Batch(batch.number, trouble=Trouble.of(exc)))

    async def _ready(self) -> None:
        if self._opened:
            return
        if self._orders.version != __version__:
            raise IngestRefused(
                f"A machine of the cluster has Twinlens {__version__}, and this is {self._orders.version}: install the "
                "same version on all."
            )
        await self._open(self._stack)
        self._opened = True

    @abstractmethod
    async def _open(self, stack: AsyncExitStack) -> None:
        """Open what the stage works with. Raises what is no row's fault."""

    @abstractmethod
    async def _do(self, batch: Batch, record: pa.Table) -> tuple[Batch, NDArray[np.uint8] | None]:
        """The batch as it goes on, with the pixels of its pictures. Raises what is no row's fault."""

    def _writer(self, clients: Pool, owners: Pool) -> FeedWriter:
        return FeedWriter(self._job.feed, self._job.space, Runner(clients), Runner(owners))


class Decode(Stage):
    """Asks for rows, finds what they need, fetches their pictures, stores those that are new, and makes pixels."""

    name = "decode"

    async def _open(self, stack: AsyncExitStack) -> None:
        job, settings = self._job, self._job.settings
        spec = Artifact.read(settings.model).spec
        # A connection is needed for a moment in each batch, and there may be hundreds of workers.
        clients = await stack.enter_async_context(pool_for(settings, self._orders.serving_url, job.role, least=0))
        self._store = job.store()
        await self._store.look()
        pictures = job.pictures(self._store, await stack.enter_async_context(job.fetcher()))
        self._maker = Maker(
            self._writer(clients, clients), pictures, reread=job.reread, name_upload=self._orders.name_upload
        )
        read_jpeg = JpegDecoder(None) if settings.decoder == "nvimagecodec" else None
        self._decoding = Decoding(spec, max_pixels=settings.max_pixels, threads=1, read_jpeg=read_jpeg)

    async def _do(self, batch: Batch, record: pa.Table) -> tuple[Batch, NDArray[np.uint8] | None]:
        rows = unpacked(await self._desk.ask(batch.number))
        needs: list[Work | Made | Placed] = []
        for client_id, many in groupby(rows, key=lambda one: one.product.client_id):
            needs += await self._maker.plan(client_id, list(many))
        work: list[Work] = []
        for need in needs:
            match need:
                case Work():
                    work.append(need)
                case Made():
                    batch.to_write.append(need)
                case Placed():
                    batch.told.append(Told(need.at, "unchanged"))
        pixels = await self._make_all(batch, work)
        return batch, np.stack(pixels) if pixels else None

    async def _make_all(self, batch: Batch, work: list[Work]) -> list[NDArray[np.uint8]]:
        """The pixels of the pictures that need the model."""
        waiting, pixels = iter(work), list[NDArray[np.uint8]]()

        async def some() -> None:
            for one in waiting:
                try:
                    made, decoded = await self._make(one)
                except OF_THE_PICTURE as exc:
                    batch.told.append(Told(one.placed.at, "failed", trouble=Trouble.of(exc)))
                    if (left := without_picture(one)) is not None:
                        batch.to_write.append(left)
                    continue
                if decoded is not None:
                    batch.to_embed.append(ToEmbed(made, without_picture(one)))
                    pixels.append(decoded.pixels)
                elif one.is_news(made.ready):
                    batch.to_write.append(made)
                else:
                    batch.told.append(Told(one.placed.at, "unchanged"))

        with first_of_ours():
            async with asyncio.TaskGroup() as group:
                for _ in range(_PICTURES_AT_ONCE):
                    group.create_task(some())
        return pixels

    async def _make(self, work: Work) -> tuple[Made, Decoded | None]:
        """Stored here, so that a picture's bytes pass between machines no more than need be."""
        taken = await self._maker.take(work)
        if taken.data is None:
            return taken.made, None
        caller = Caller(work.placed.product.client_id, "bulk")
        decoded = await self._decoding.decode(taken.data, caller, thumbnail=True)
        made = self._maker.complete(taken, decoded)
        if made.objects:
            await self._store.put_all(made.objects)
        return Made(made.ready, made.placed), decoded


class Encode(Stage):
    """Makes the vectors of pixels, with a model of its own."""

    name = "encode"

    async def _open(self, stack: AsyncExitStack) -> None:
        settings = self._job.settings
        if settings.device == "cpu":
            settings = replace(settings, threads=self._orders.threads, batch=settings.batch or _BATCH)
        artifact = Artifact.read(settings.model)
        artifact.check_files(artifact.files_to_run(settings.precision))
        # Ray shows a worker the one GPU that is its own, whose number is 0 then.
        engine = await stack.enter_async_context(open_engine(settings, artifact, words=False, decoding=1))
        if engine.encoder.space.id != self._job.space.id:
            raise IngestRefused(
                f"A machine of the cluster has another model at {settings.model} than this one: put the same artifact "
                "there."
            )
        self._tower: Batcher | Lanes = engine.embedder.towers["image"]
        self._size = artifact.spec.size

    async def _do(self, batch: Batch, record: pa.Table) -> tuple[Batch, NDArray[np.uint8] | None]:
        if not batch.to_embed:
            return batch, None
        pixels = pixels_of(record, len(batch.to_embed), self._size)
        with first_of_ours():
            async with asyncio.TaskGroup() as group:
                for one, its in zip(batch.to_embed, pixels, strict=True):
                    group.create_task(self._embed(batch, one, its))
        batch.to_embed = []
        return batch, None

    async def _embed(self, batch: Batch, one: ToEmbed, pixels: NDArray[np.uint8]) -> None:
        made = one.made
        for attempt in range(1, _TRIES + 1):
            try:
                encoded = await self._tower.encode(pixels, Caller(made.ready.product.client_id, "bulk"))
            except EncoderFailed as exc:
                if attempt < _TRIES:
                    continue
                batch.told.append(Told(made.placed.at, "failed", trouble=Trouble.of(exc)))
                if made.ready.new is not None:
                    keys = (made.ready.new.s3_key, made.ready.new.thumbnail_key)
                    batch.unneeded += [key for key in keys if key is not None]
                if one.otherwise is not None:
                    batch.to_write.append(one.otherwise)
                return
            else:
                break
        made.ready.vector = Vector(encoded.embedding, is_blank(pixels))
        batch.embedded.add(made.placed.at)
        batch.to_write.append(made)


class Write(Stage):
    """Writes rows, those of few products together, and tells what has become of them."""

    name = "write"

    async def _open(self, stack: AsyncExitStack) -> None:
        job, settings = self._job, self._job.settings
        clients = await stack.enter_async_context(pool_for(settings, self._orders.serving_url, job.role, least=0))
        owners = await stack.enter_async_context(pool_for(settings, self._orders.url, None, least=0))
        self._writes = self._writer(clients, owners)
        store: MediaStore = job.store()
        self._letting_go = LettingGo(store, own=job.standing.own, backup_runs=partial(backup_runs, owners))

    async def _do(self, batch: Batch, record: pa.Table) -> tuple[Batch, NDArray[np.uint8] | None]:
        for client_id, many in groupby(in_order(batch.to_write), key=lambda one: one.ready.product.client_id):
            await self._write(client_id, list(many), batch)
        if batch.unneeded:
            await self._letting_go.let_go(*batch.unneeded)
        # Its rows are written, and nobody reads them any more.
        done = Batch(batch.number, told=batch.told, products_made=batch.products_made)
        return done, None

    async def _write(self, client_id: str, rows: Iterable[Made], batch: Batch) -> None:
        rows = list(rows)
        written = await self._writes.write(client_id, [one.ready for one in rows])
        failed = {id(ready): error for ready, error in written.failed}
        added = {id(ready) for ready in written.added}
        batch.products_made += written.products_made
        batch.unneeded += written.unneeded
        for one in rows:
            if not one.ready.may_make:
                continue  # of a row that has failed, and was told of
            at, embedded = one.placed.at, one.placed.at in batch.embedded
            if (error := failed.get(id(one.ready))) is not None:
                batch.told.append(Told(at, "failed", embedded, trouble=Trouble.of(error)))
            else:
                told = Told(at, "written", embedded, added=id(one.ready) in added, replaced=one.ready.replaces)
                batch.told.append(told)
