"""Backfill: embeds media that are in the catalogue, with their bytes in the store, and have no vector in a space yet.

`reembed` does this for a new space, and each server for its own space. Nothing is remembered beside the tables: a media
is missing when it has no vector. Media that cannot be embedded are recorded with the reason.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import psycopg
from pgvector import HalfVector
from psycopg import AsyncConnection
from psycopg.rows import AsyncRowFactory, TupleRow, class_row, scalar_row

from server.batching.embedder import Embedded, Embedder
from server.batching.fair_queue import Caller
from server.catalogue.rows import SpaceRow
from server.database.failures import translated
from server.database.pool import Pool
from server.errors import (
    BytesMissing,
    CatalogueBusy,
    EncoderFailed,
    MediaRejected,
    StorageFailed,
    TwinlensError,
    first_of_ours,
)
from server.ingest.storage import MediaStore
from server.preprocessing.readings import READING
from server.spaces.spaces import EARLIEST, LATEST, Horizon, queries_of

PAGE = 2000
"""Media that are looked at in one statement."""

BATCH = 24
"""Vectors that are written in one transaction."""

_EMBED_WITHIN_SECONDS = 600.0
_TRIES = 3
_PAUSE_SECONDS = 1.0
# Less than deadlock_timeout: when a batch and another transaction wait for each other, it is the batch that gives up.
_LOCK_TIMEOUT_SECONDS = 0.5

IN_THE_WAY = (
    psycopg.errors.ForeignKeyViolation,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.LockNotAvailable,
    psycopg.errors.SerializationFailure,
)
"""What other transactions cause: a media was deleted at the same moment, or its row is in use."""

Row = TypeVar("Row")
T = TypeVar("T")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MissingMedia:
    """A media without a vector in the space; `described`: its row has size, type, width, height and digest."""

    id: str
    product_id: str
    client_id: str
    s3_key: str
    described: bool


@dataclass(frozen=True)
class _Page:
    """Where a page ends, as transaction and media id, and which media of the page are missing."""

    revision: str
    id: str
    missing: list[str]


@dataclass(frozen=True, slots=True)
class _Made:
    """A media that was embedded, and how many bytes its file has."""

    media: MissingMedia
    picture: Embedded
    size: int


@dataclass(slots=True)
class Backfilled:
    """The result of a backfill: how many media got a vector, and the ids of those that cannot be embedded."""

    embedded: int = 0
    unreadable_ids: list[str] = field(default_factory=list)

    @property
    def tried(self) -> int:
        return self.embedded + len(self.unreadable_ids)


class Backfill:
    """Backfills one space from the store, with an embedder of that space.

    Every method may raise CatalogueUnavailable and its kinds.
    """

    def __init__(self, pool: Pool, space: SpaceRow, embedder: Embedder, store: MediaStore, *, at_once: int) -> None:
        """`at_once`: pictures that are fetched and embedded at one time, which bounds memory."""
        self.space = space
        self._pool = pool
        self._embedder = embedder
        self._store = store
        self._at_once = at_once
        self._queries = queries_of(space)

    # --- what is missing ---------------------------------------------------------------------------------------------

    async def horizon(self) -> Horizon:
        """What is visible at this moment."""
        (horizon,) = await self._read("horizon", row=class_row(Horizon))
        return horizon

    async def missing(self, since: str = EARLIEST, until: str = LATEST) -> AsyncIterator[list[str]]:
        """Ids of missing media, page by page: of those added by the transaction `since` or later, before `until`."""
        last = _Page(since, "", [])
        while True:
            at = {"revision": last.revision, "id": last.id, "until": until, "most": PAGE}
            pages = await self._read("next_page", at, row=class_row(_Page))
            if not pages:
                return
            (last,) = pages
            if last.missing:
                yield last.missing

    async def never_tried(self, ids: Sequence[str]) -> list[str]:
        """Those of these media of which no failure is recorded."""
        return await self._read("never_tried", {"ids": list(ids), "number": self.space.number}, row=scalar_row)

    async def due_again(self, most: int) -> list[str]:
        """At most so many media that could not be embedded a while ago; the more often one failed, the longer ago."""
        return await self._read("due_again", {"number": self.space.number, "most": most}, row=scalar_row)

    # --- embedding it ------------------------------------------------------------------------------------------------

    async def fill(
        self,
        ids: Iterable[str],
        *,
        on_done: Callable[[Backfilled], None] | None = None,
        describe: bool = True,
        stop: asyncio.Event | None = None,
    ) -> Backfilled:
        """Embed those of these media that still lack a vector, and write the vectors in batches.

        A process that dies loses one batch at most, and the pictures that it was working on.

        `on_done` is called after each batch, and for each media that cannot be embedded. `describe`: fill in what a
        media's row lacks. `stop`: once it is set, no other media is begun, and those that were begun are written.
        Raises StorageFailed when the store does not answer, Overloaded; what is written stays.
        """
        filled = Backfilled()
        made: list[_Made] = []
        todo = iter(await self._describe(list(ids)))

        async def write(least: int) -> None:
            while len(made) >= least and made:
                batch, made[:] = made[:BATCH], made[BATCH:]
                await self._write(batch, describe)
                count(Backfilled(embedded=len(batch)))

        def count(more: Backfilled) -> None:
            filled.embedded += more.embedded
            filled.unreadable_ids += more.unreadable_ids
            if on_done is not None:
                on_done(more)

        async def work() -> None:
            for media in todo:
                if stop is not None and stop.is_set():
                    return
                if (one := await self._embed(media)) is None:
                    count(Backfilled(unreadable_ids=[media.id]))
                else:
                    made.append(one)
                    await write(BATCH)

        try:
            with first_of_ours():
                async with asyncio.TaskGroup() as group:
                    for _ in range(self._at_once):
                        group.create_task(work())
        finally:
            await write(1)
        return filled

    async def _describe(self, ids: Sequence[str]) -> list[MissingMedia]:
        return await self._read("describe", {"ids": list(ids)}, row=class_row(MissingMedia))

    async def _embed(self, media: MissingMedia) -> _Made | None:
        """A media's vector from its bytes; None when it cannot be embedded, and the reason is recorded then."""
        for attempt in range(1, _TRIES + 1):
            try:
                data = await self._store.get(media.s3_key)
                caller = Caller(media.client_id, "bulk")
                return _Made(
                    media, await self._embedder.embed(data, within=_EMBED_WITHIN_SECONDS, caller=caller), len(data)
                )
            except (BytesMissing, MediaRejected) as exc:
                reason: TwinlensError = exc
                break
            except EncoderFailed as exc:
                reason = exc
            except StorageFailed as exc:
                reason = exc
                if attempt == _TRIES and not await self._store_answers():
                    raise
            await asyncio.sleep(_PAUSE_SECONDS * attempt)
        _log.warning("The media %s (%s) cannot be embedded: %s", media.id, media.s3_key, reason.sentence)
        parameters = {"number": self.space.number, "media_id": media.id, "reason": reason.sentence}
        with translated():
            async with self._pool.connection() as connection:
                await connection.execute(self._queries["note_unreadable"], parameters)
        return None

    async def _store_answers(self) -> bool:
        """Whether the store answers at all: a key from a legacy schema may be one that it cannot read."""
        try:
            await self._store.look()
        except StorageFailed:
            return False
        return True

    async def _write(self, batch: list[_Made], describe: bool) -> None:
        # Sorted by product, the order in which everything locks products.
        batch = sorted(batch, key=lambda one: (one.media.product_id, one.media.id))
        for one in batch:
            if describe and not one.media.described:
                await self._add_facts(one)
        try:
            await self._add_vectors(batch)
        except IN_THE_WAY:
            for one in batch:
                await self._add_alone(one)

    async def _add_alone(self, one: _Made) -> None:
        for _ in range(_TRIES):
            try:
                await self._add_vectors([one])
            except psycopg.errors.ForeignKeyViolation:
                return  # deleted meanwhile
            except IN_THE_WAY:
                await asyncio.sleep(_PAUSE_SECONDS)
            else:
                return
        raise CatalogueBusy

    async def _add_vectors(self, batch: Sequence[_Made]) -> None:
        number = self.space.number
        rows: list[dict[str, Any]] = [
            {
                "number": number,
                "media_id": one.media.id,
                "s3_key": one.media.s3_key,
                "embedding": HalfVector(one.picture.embedding.astype(np.float16)),
                "blank": one.picture.blank,
                "reading": READING,
            }
            for one in batch
        ]

        async def add(connection: AsyncConnection[TupleRow]) -> None:
            ids = [one.media.id for one in batch]
            await connection.execute(self._queries["hold_products"], {"ids": ids})
            await connection.cursor().executemany(self._queries["fill_vector"], rows)
            await connection.execute(self._queries["forget_unreadable"], {"number": number, "ids": ids})

        await in_transaction(self._pool, add)

    async def _add_facts(self, one: _Made) -> None:
        picture = one.picture
        parameters: dict[str, Any] = {
            "media_id": one.media.id,
            "product_id": one.media.product_id,
            "content_type": picture.format.content_type,
            "bytes": one.size,
            "width": picture.width,
            "height": picture.height,
            "digest": picture.digest,
        }

        async def add(connection: AsyncConnection[TupleRow]) -> None:
            await connection.execute(self._queries["hold_product"], parameters)
            await connection.execute(self._queries["add_facts"], parameters)

        try:
            try:
                await in_transaction(self._pool, add)
            except psycopg.errors.UniqueViolation:  # a media with the same bytes got the digest at this moment
                parameters["digest"] = None
                await in_transaction(self._pool, add)
        except IN_THE_WAY:
            _log.info("The row of the media %s is in use, so what it lacks is not filled in.", one.media.id)

    async def _read(
        self, name: str, parameters: dict[str, Any] | None = None, *, row: AsyncRowFactory[Row]
    ) -> list[Row]:
        with translated():
            async with self._pool.connection() as connection:
                cursor = connection.cursor(row_factory=row)
                return await (await cursor.execute(self._queries[name], parameters)).fetchall()


async def in_transaction(pool: Pool, work: Callable[[AsyncConnection[TupleRow]], Awaitable[T]]) -> T:
    """Run a transaction that waits for locks only briefly.

    Raises psycopg's errors of `IN_THE_WAY` and UniqueViolation as they are, and otherwise CatalogueUnavailable's kinds.
    """
    passed: psycopg.Error
    with translated():
        try:
            async with pool.connection() as connection, connection.transaction():
                milliseconds = round(_LOCK_TIMEOUT_SECONDS * 1000)
                await connection.execute(f"SET LOCAL lock_timeout = {milliseconds}".encode())
                return await work(connection)
        except (*IN_THE_WAY, psycopg.errors.UniqueViolation) as exc:
            passed = exc
    raise passed
