"""Pending pictures: media whose rows another system has written, with their bytes in the store, are embedded.

The database has a queue of them (0016_pending.sql). A try is counted before it begins, and what is being tried is
marked with the number of the worker that does it (see seats.py). So several work side by side, what a killed worker had
in hand is taken by another one, and a picture that kills whoever reads it is set aside in the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
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
from server.database.locks import LOCKS_OF_EMBEDDING, LOCKS_OF_MEDIA
from server.database.pool import Pool
from server.database.queries import Queries
from server.database.seats import Seat
from server.errors import (
    BytesMissing,
    BytesRemain,
    CatalogueBusy,
    DeadlineMissed,
    EncoderFailed,
    MediaRejected,
    StorageFailed,
    StoreUnavailable,
    TwinlensError,
    UploadTooLarge,
    first_of_ours,
)
from server.ingest.storage import MediaStore, is_ours
from server.preprocessing.readings import READING
from server.spaces.backfill import BATCH, IN_THE_WAY, in_transaction

MOST_ATTEMPTS = 5
"""So often a picture is tried that is missing, or that something else than the picture keeps from being embedded."""

MOST_DEATHS = 3
"""So often a picture is tried by a process that ends meanwhile."""

PAUSE_SECONDS = 30.0
"""Before the second try; before each later one, four times as long as before the one before."""

_LONGEST_PAUSE_SECONDS = 3600.0
_AFTER_A_DEATH_SECONDS = 30.0
_EMBED_WITHIN_SECONDS = 600.0
_READ_WITHIN_SECONDS = 120.0
_LOOK_WITHIN_SECONDS = 30.0
_MOST_IN_A_ROUND = 2000
_TRIES = 3
_BUSY_PAUSE_SECONDS = 1.0

DIED = "process_ended"
"""The code of a try that ended with its process; those of the other tries are the codes of `server.errors`."""
_DIED = "The process that was embedding this picture ended before it was done: killed, or out of memory."
_INTERNAL = "internal_error"

Row = TypeVar("Row")
T = TypeVar("T")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Claimed:
    """A media that this worker has taken. `claim` tells the try from every other one; `attempts` counts it already."""

    id: str
    product_id: str
    client_id: str
    s3_key: str
    thumbnail_key: str | None
    claim: str
    attempts: int
    deaths: int

    @property
    def has_thumbnail(self) -> bool:
        """Whether the other system has made one. A thumbnail of ours is of the picture that was there before."""
        key = self.thumbnail_key
        return key is not None and not (is_ours(key) and key.startswith(f"thumbnails/{self.client_id}/"))


@dataclass(frozen=True, slots=True)
class _Made:
    """A picture that was embedded, the size of its file in bytes, and the upload that names its new thumbnail."""

    media: Claimed
    picture: Embedded
    size: int
    upload: str | None

    @property
    def thumbnail_key(self) -> str:
        """Of the new thumbnail, where there is one."""
        return f"thumbnails/{self.media.client_id}/{self.upload}.webp"


@dataclass(slots=True)
class Tally:
    """How many pictures are ready now, were set aside as failed, are to be tried again later, and how many others were
    changed or deleted while they were tried."""

    embedded: int = 0
    set_aside: int = 0
    put_off: int = 0
    changed: int = 0

    @property
    def tried(self) -> int:
        return self.embedded + self.set_aside + self.put_off + self.changed

    def __iadd__(self, more: Tally) -> Tally:
        self.embedded += more.embedded
        self.set_aside += more.set_aside
        self.put_off += more.put_off
        self.changed += more.changed
        return self


class Pending:
    """Embeds pending pictures for one space, with an embedder of that space.

    Every method may raise CatalogueUnavailable and its kinds.
    """

    def __init__(
        self,
        pool: Pool,
        space: SpaceRow,
        embedder: Embedder,
        store: MediaStore,
        *,
        at_once: int,
        most_bytes: int,
        pause: float = PAUSE_SECONDS,
    ) -> None:
        """`at_once`: pictures that are fetched and embedded at one time; `most_bytes`: of a picture's file. Both bound
        memory. `pause`: seconds before a second try."""
        self._pool = pool
        self._space = space
        self._embedder = embedder
        self._store = store
        self._at_once = at_once
        self._most_bytes = most_bytes
        self._pause = pause
        self._queries = Queries.read("pending.sql").of(space.table)

    # --- the queue ---------------------------------------------------------------------------------------------------

    async def tidy(self) -> None:
        """Give back what ended workers had taken, and queue what no trigger has queued."""
        dead = {"locks": LOCKS_OF_EMBEDDING, "code": DIED, "reason": _DIED}
        dead |= {"most": MOST_DEATHS, "pause": _AFTER_A_DEATH_SECONDS}
        if freed := await self._write("free_the_dead", dead):
            _log.warning("Pictures that a process was embedding when it ended, and that are tried again: %d.", freed)
        await self._write("queue_strays")

    async def give_back(self, worker: int) -> None:
        """Give back what this worker has taken, as if it had not been tried."""
        await self._write("give_back", {"worker": worker})

    async def next_due(self) -> float | None:
        """In how many seconds the next picture is due; None where there is none."""
        found: list[float] = await self._rows("next_due", row=scalar_row)
        return found[0] if found else None

    # --- embedding it ------------------------------------------------------------------------------------------------

    async def embed(
        self,
        seat: Seat,
        *,
        stop: asyncio.Event,
        alone: bool = False,
        on_done: Callable[[Tally], None] = lambda _: None,
    ) -> Tally:
        """Embed what is due, until nothing is, or some thousand pictures are done; what came of them.

        `seat`: what is taken is marked with its number; once it is lost, nothing else is taken. `alone`: one picture
        after the other, of those that were being tried when a process ended, and no other ones: if one of them was to
        blame, it takes no others with it. `stop`: once it is set, no other picture is begun, and those that were begun
        are brought to their end.

        Raises StoreUnavailable when the store does not answer, Overloaded; what was not brought to its end is given
        back then.
        """
        tally, waiting, made = Tally(), deque[Claimed](), list[_Made]()
        taking, left = asyncio.Lock(), _MOST_IN_A_ROUND

        def count(more: Tally) -> None:
            nonlocal tally
            tally += more
            on_done(more)

        async def take() -> Claimed | None:
            nonlocal left
            async with taking:
                if stop.is_set() or seat.lost:
                    return None
                if not waiting and left > 0:
                    asked = {"worker": seat.number, "alone": alone, "most": 1 if alone else self._at_once}
                    waiting.extend(await self._rows("claim", asked, row=class_row(Claimed)))
                    left = left - len(waiting) if waiting else 0
                return waiting.popleft() if waiting else None

        async def write(least: int) -> None:
            while len(made) >= least and made:
                batch, made[:] = made[:BATCH], made[BATCH:]
                count(await self._keep(batch))

        async def work() -> None:
            while (media := await take()) is not None:
                outcome = await self._try(media)
                if isinstance(outcome, _Made):
                    made.append(outcome)
                    await write(1 if alone else BATCH)
                else:
                    count(outcome)
            await write(1)  # nothing is left to begin, so nobody waits for a full batch

        try:
            with first_of_ours():
                async with asyncio.TaskGroup() as group:
                    for _ in range(1 if alone else self._at_once):
                        group.create_task(work())
        finally:
            # Where that cannot be done now, whoever began this gives back what is left, once the database is there.
            with contextlib.suppress(TwinlensError):
                await write(1)
                await self.give_back(seat.number)
        return tally

    async def _try(self, media: Claimed) -> _Made | Tally:
        """A picture with its vector, and its thumbnail in the store; or what has become of it."""
        if media.deaths >= MOST_DEATHS:
            return await self._set_aside(media, DIED, _DIED)
        try:
            data = await self._fetch(media.s3_key)
            caller = Caller(media.client_id, "bulk")
            upload = None if media.has_thumbnail else uuid.uuid4().hex
            picture = await self._embedder.embed(
                data, within=_EMBED_WITHIN_SECONDS, thumbnail=upload is not None, caller=caller
            )
            made = _Made(media, picture, len(data), upload)
            if picture.thumbnail is not None:
                await self._store.put(made.thumbnail_key, picture.thumbnail)
        except MediaRejected as exc:
            return await self._set_aside(media, exc.code, exc.sentence)
        except StoreUnavailable:  # away, or full: that is no picture's fault
            raise
        except (StorageFailed, EncoderFailed, DeadlineMissed) as exc:
            return await self._put_off(media, exc.code, exc.sentence)
        except TwinlensError:
            raise
        except Exception as exc:  # one picture, whatever it is, must not keep all others from being embedded
            _log.exception("To embed the media %s (%s) failed", media.id, media.s3_key)
            reason = f"The fault is ours and has been logged ({type(exc).__name__})."
            return await self._put_off(media, _INTERNAL, reason)
        return made

    async def _fetch(self, key: str) -> bytes:
        """The bytes of a picture. Raises UploadTooLarge, BytesMissing, StorageFailed; StoreUnavailable where the store
        does not answer."""
        try:
            async with asyncio.timeout(_READ_WITHIN_SECONDS):
                opened = await self._store.open(key, at_once=self._most_bytes)
                if opened.size > self._most_bytes:
                    raise UploadTooLarge(f"The file has {opened.size:,} bytes; at most {self._most_bytes:,} are read.")
                return b"".join([piece async for piece in opened.pieces])
        except BytesMissing:
            raise
        except (StorageFailed, TimeoutError) as exc:
            await look(self._store)  # a key from another system may be one that no store can read
            reason = exc.reason if isinstance(exc, StorageFailed) else "it was not read in time"
            raise StorageFailed(f"The picture cannot be read from the store: {reason}") from exc

    # --- what comes of it --------------------------------------------------------------------------------------------

    async def _put_off(self, media: Claimed, code: str, reason: str) -> Tally:
        """Have the media tried again later, unless it was tried often enough."""
        if media.attempts >= MOST_ATTEMPTS:
            return await self._set_aside(media, code, reason)
        await self._later(media, code, reason)
        return Tally(put_off=1)

    async def _later(self, media: Claimed, code: str, reason: str) -> None:
        pause = min(self._pause * 4 ** (media.attempts - 1), _LONGEST_PAUSE_SECONDS)
        _log.info("The media %s (%s) is tried again later: %s", media.id, media.s3_key, reason)
        parameters = {"media_id": media.id, "claim": media.claim, "pause": pause, "code": code, "reason": reason}
        await self._write("put_off", parameters)

    async def _set_aside(self, media: Claimed, code: str, reason: str) -> Tally:
        """Make the media failed, with the reason."""
        parameters: dict[str, Any] = {
            "media_id": media.id,
            "product_ids": [media.product_id],
            "ids": [media.id],
            "claims": [media.claim],
            "claim": media.claim,
            "s3_key": media.s3_key,
            "code": code,
            "reason": reason,
        }

        async def set_aside(connection: AsyncConnection[TupleRow]) -> bool:
            await connection.execute(self._queries["hold_products"], parameters)
            await connection.execute(self._queries["hold_media"], parameters)
            there = (await connection.execute(self._queries["set_aside"], parameters)).rowcount
            await connection.execute(self._queries["say_why" if there else "forget"], parameters)
            return bool(there)

        try:
            there = await self._until_free(set_aside)
        except CatalogueBusy:
            await self._later(media, code, reason)
            return Tally(put_off=1)
        if not there:
            return Tally(changed=1)
        fields = {"event": "picture_set_aside", "media": media.id, "code": code}
        said = "The media %s (%s) cannot be embedded, and is set aside as failed: %s"
        _log.warning(said, media.id, media.s3_key, reason, extra={"fields": fields})
        return Tally(set_aside=1)

    async def _keep(self, batch: list[_Made]) -> Tally:
        """Store what was made of these pictures. Where the database breaks, their rows may have been committed."""
        ready: set[str] = set()
        came = Tally()
        try:
            ready = await in_transaction(self._pool, partial(self._store_all, batch))
        except (*IN_THE_WAY, psycopg.errors.UniqueViolation):
            for one in batch:
                try:
                    ready |= await self._until_free(partial(self._store_all, [one]))
                except CatalogueBusy as exc:
                    came += await self._put_off(one.media, exc.code, exc.sentence)
        # The new thumbnails of what has changed meanwhile. What cannot be deleted is left to those who sweep the store.
        with contextlib.suppress(BytesRemain):
            await self._store.delete(*(one.thumbnail_key for one in batch if one.media.id not in ready and one.upload))
        came += Tally(embedded=len(ready), changed=len(batch) - len(ready) - came.tried)
        return came

    async def _store_all(self, batch: Sequence[_Made], connection: AsyncConnection[TupleRow]) -> set[str]:
        """Within a transaction: rows, vectors, and what was known before; the ids of those that are ready now."""
        queries, number = self._queries, self._space.number
        parameters: dict[str, Any] = {
            "product_ids": sorted({one.media.product_id for one in batch}),
            "ids": [one.media.id for one in batch],
            "claims": [one.media.claim for one in batch],
            "s3_keys": [one.media.s3_key for one in batch],
            "content_types": [one.picture.format.content_type for one in batch],
            "sizes": [one.size for one in batch],
            "widths": [one.picture.width for one in batch],
            "heights": [one.picture.height for one in batch],
            "digests": [one.picture.digest for one in batch],
            "uploads": [one.upload for one in batch],
            "thumbnail_keys": [one.thumbnail_key for one in batch],
            "locks": LOCKS_OF_MEDIA,
            "number": number,
        }
        uploads = {**parameters, "uploads": sorted(one.upload for one in batch if one.upload is not None)}
        await connection.execute(queries["hold_uploads"], uploads)
        await connection.execute(queries["hold_products"], parameters)
        cursor = connection.cursor()
        before: dict[str, bytes | None] = dict(
            await (await cursor.execute(queries["hold_media"], parameters)).fetchall()
        )
        ready = {id for (id,) in await (await cursor.execute(queries["make_ready"], parameters)).fetchall()}
        rows = [
            {
                "number": number,
                "media_id": one.media.id,
                "embedding": HalfVector(one.picture.embedding.astype(np.float16)),
                "blank": one.picture.blank,
                "reading": READING,
            }
            for one in batch
            if one.media.id in ready
        ]
        if rows:
            await connection.cursor().executemany(queries["put_vector"], rows)
        of_ready = {"ids": sorted(ready), "number": number}
        await connection.execute(queries["forget_unreadable"], of_ready)
        await connection.execute(queries["forget_unread"], of_ready)
        new = {one.media.id for one in batch if before.get(one.media.id) != one.picture.digest} & ready
        await connection.execute(queries["forget_vectors"], {**of_ready, "ids": sorted(new)})
        await connection.execute(queries["forget"], parameters)
        return ready

    async def _until_free(self, work: Callable[[AsyncConnection[TupleRow]], Awaitable[T]]) -> T:
        """Run a transaction again where others are in its way. Raises CatalogueBusy."""
        for _ in range(_TRIES):
            try:
                return await in_transaction(self._pool, work)
            except (*IN_THE_WAY, psycopg.errors.UniqueViolation):
                await asyncio.sleep(_BUSY_PAUSE_SECONDS)
        raise CatalogueBusy

    # --- statements --------------------------------------------------------------------------------------------------

    async def _write(self, name: str, parameters: dict[str, Any] | None = None) -> int:
        """Run a statement in a transaction of its own; how many rows it changed."""
        with translated():
            async with self._pool.connection() as connection:
                return (await connection.execute(self._queries[name], parameters)).rowcount

    async def _rows(
        self, name: str, parameters: dict[str, Any] | None = None, *, row: AsyncRowFactory[Row]
    ) -> list[Row]:
        with translated():
            async with self._pool.connection() as connection:
                cursor = connection.cursor(row_factory=row)
                return await (await cursor.execute(self._queries[name], parameters)).fetchall()


async def look(store: MediaStore) -> None:
    """As `MediaStore.look`, within some seconds: a network drive that hangs does not even say that it is away."""
    try:
        async with asyncio.timeout(_LOOK_WITHIN_SECONDS):
            await store.look()
    except TimeoutError as exc:
        raise StoreUnavailable(reason=f"{store.where} did not answer in time") from exc
