"""Rereading: looks again at what earlier versions of the readers have read, and corrects what they misread.

When a reader is mended, a picture that it misread has a wrong vector, and no search finds it by itself any more. So the
servers of a space look once at each media that an earlier version has read: they fetch it, decode it as it is read now
and as it was read then, and embed it again only where the two differ. What is the same is not written: how far they
are stands in one row for the whole space, not beside each vector.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from pgvector import HalfVector
from psycopg.rows import AsyncRowFactory, class_row, scalar_row

from server.batching.decoding import Seen
from server.batching.embedder import Embedded, Embedder, digest_of
from server.batching.fair_queue import Caller
from server.catalogue.rows import SpaceRow
from server.database.failures import translated
from server.database.pool import Pool
from server.database.queries import Queries
from server.errors import BytesMissing, EncoderFailed, MediaRejected, StorageFailed, TwinlensError, first_of_ours
from server.ingest.storage import MediaStore, is_ours
from server.preprocessing.readings import READING

Turn = Callable[[], AbstractAsyncContextManager[None]]
"""Holds what lets one server of the space at a time work."""

_PAGE = 1000
_MEDIA_IN_A_TURN = 50
_FAILED_TRIED_AGAIN = 20
_PAUSE_SECONDS = 0.05
_EMBED_WITHIN_SECONDS = 600.0

_SAME_COSINE = 0.9999
"""Two vectors with at least this cosine are of the same pixels: halves and the order of sums differ by less."""

_OTHER_BYTES = "The bytes in the store are not those that were embedded."

Row = TypeVar("Row")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Place:
    """Up to where the space has been looked through: a transaction, and the id of a media that it added."""

    revision: str
    id: str


@dataclass(frozen=True)
class _Page:
    """Where a page ends; and of what an earlier version has read the first media, in order, and where they end."""

    revision: str
    id: str
    earlier: list[str]
    earlier_revision: str | None

    @property
    def end(self) -> _Place:
        """Up to where everything is done, once those media are."""
        if self.earlier_revision is not None and len(self.earlier) == _MEDIA_IN_A_TURN:
            return _Place(self.earlier_revision, self.earlier[-1])
        return _Place(self.revision, self.id)


@dataclass(frozen=True)
class _Earlier:
    """A media as its rows have it, with the vector that an earlier version of the readers has made."""

    id: str
    product_id: str
    client_id: str
    s3_key: str
    thumbnail_key: str | None
    digest: bytes | None
    width: int | None
    height: int | None
    embedding: HalfVector
    blank: bool
    reading: int

    @property
    def own_thumbnail_key(self) -> str | None:
        """The key of a thumbnail that is ours to write: not that of one which another application has made."""
        key = self.thumbnail_key
        return key if key is not None and is_ours(key) and key.startswith(f"thumbnails/{self.client_id}/") else None


@dataclass
class Reread:
    """How many media were looked at again, how many of them corrected, and how many could not be looked at."""

    looked_at: int = 0
    corrected: int = 0
    failed: int = 0

    def __iadd__(self, more: Reread) -> Reread:
        self.looked_at += more.looked_at
        self.corrected += more.corrected
        self.failed += more.failed
        return self


class Rereading:
    """Rereads one space, with an embedder of that space. Every method may raise CatalogueUnavailable and its kinds."""

    def __init__(
        self,
        pool: Pool,
        space: SpaceRow,
        embedder: Embedder,
        store: MediaStore,
        *,
        at_once: int,
        thumbnails: bool = True,
    ) -> None:
        """`at_once`: pictures that are fetched and decoded at one time. `thumbnails`: replace those of pictures that
        were misread; not in a store that is another database's."""
        self._pool = pool
        self._space = space
        self._embedder = embedder
        self._store = store
        self._at_once = at_once
        self._thumbnails = thumbnails
        self._queries = Queries.read("readings.sql").of(space.table)
        self._of_space = {"number": space.number, "reading": READING}
        self._begun = False

    async def reread(self, turn: Turn) -> AsyncIterator[Reread]:
        """Look again at all that is left, a few media in each turn, and at some that could not be looked at before.

        Raises StorageFailed where the store does not answer, Overloaded; the next time then begins where this ended.
        """
        if not self._begun:
            await self._write("begin")
            self._begun = True
        while (page := await self._next_page()) is not None:
            if page.earlier:
                async with turn():
                    page = await self._next_page()  # another server may have had its turn
                    if page is None:
                        break
                    done = await self._look_at(page.earlier)
                    moved = await self._move(page.end)
            else:
                done, moved = Reread(), await self._move(page.end)
            yield done
            if not moved:
                break  # until the transactions have ended that may still add something here
            await asyncio.sleep(_PAUSE_SECONDS)
        if due := await self._read("due_again", {"most": _FAILED_TRIED_AGAIN}, row=scalar_row):
            async with turn():
                done = await self._look_at(due)
            yield done

    async def _move(self, place: _Place) -> bool:
        """Whether the space counts as looked through further than before, now that it is up to this place."""
        return bool(await self._write("move", {"revision": place.revision, "id": place.id}))

    async def _next_page(self) -> _Page | None:
        places = await self._read("place", row=class_row(_Place))
        if not places:
            return None  # a server of a later version is at it
        at = {"revision": places[0].revision, "id": places[0].id, "most": _PAGE, "at_once": _MEDIA_IN_A_TURN}
        pages = await self._read("next_page", at, row=class_row(_Page))
        return pages[0] if pages else None

    async def _look_at(self, ids: Sequence[str]) -> Reread:
        """Look again at those of these media that an earlier version has read."""
        done = Reread()
        if not ids:
            return done
        described = await self._read("describe", {"ids": list(ids)}, row=class_row(_Earlier))
        todo = iter(described)

        async def work() -> None:
            for media in todo:
                done.looked_at += 1
                try:
                    corrected = await self._look(media)
                except (StorageFailed, MediaRejected, EncoderFailed) as exc:
                    if isinstance(exc, StorageFailed) and not isinstance(exc, BytesMissing):
                        await self._store.look()  # a key from another application may be one that no store can read
                    done.failed += 1
                    await self._note(media, exc.sentence)
                except TwinlensError:
                    raise
                except Exception as exc:  # one picture, whatever it is, must not keep all others from being looked at
                    _log.exception("Looking again at the media %s failed", media.id)
                    done.failed += 1
                    await self._note(media, f"The fault is ours and has been logged ({type(exc).__name__}).")
                else:
                    done.corrected += corrected

        with first_of_ours():
            async with asyncio.TaskGroup() as group:
                for _ in range(self._at_once):
                    group.create_task(work())
        if gone := [*{*ids} - {media.id for media in described}]:
            await self._write("forget_unread", {"ids": gone})
        return done

    async def _look(self, media: _Earlier) -> bool:
        """Whether the media had to be corrected. Raises BytesMissing, StorageFailed, MediaRejected, EncoderFailed."""
        data = await self._store.get(media.s3_key)
        digest = await digest_of(data)
        if media.digest is not None and digest != media.digest:
            raise MediaRejected(_OTHER_BYTES)
        caller = Caller(media.client_id, "bulk")
        seen = await self._embedder.look(data, media.reading, caller)
        picture = None
        if seen.otherwise:
            picture = await self._embedder.embed(
                data, within=_EMBED_WITHIN_SECONDS, thumbnail=True, caller=caller, digest=digest
            )
            if _cosine(picture, media) >= _SAME_COSINE:
                picture = None
        if picture is None and (seen.width, seen.height, seen.blank) == (media.width, media.height, media.blank):
            await self._write("forget_unread", {"ids": [media.id]})
            return False
        await self._correct(media, seen, picture)
        return True

    async def _correct(self, media: _Earlier, seen: Seen, picture: Embedded | None) -> None:
        """Write what the picture is read as now. A media that was deleted or replaced meanwhile gets nothing."""
        key = media.own_thumbnail_key if self._thumbnails and picture is not None else None
        if picture is not None and picture.thumbnail is not None and key is not None:
            # First: a vector that is right already would not be looked at again for its thumbnail's sake.
            await self._store.put(key, picture.thumbnail)
        parameters: dict[str, Any] = {
            **self._of_space,
            "media_id": media.id,
            "product_id": media.product_id,
            "s3_key": media.s3_key,
            "digest": media.digest,
            "embedding": None if picture is None else HalfVector(picture.embedding.astype(np.float16)),
            "blank": seen.blank,
            "width": seen.width,
            "height": seen.height,
            "ids": [media.id],
        }
        with translated():
            async with self._pool.connection() as connection, connection.transaction():
                await connection.execute(self._queries["hold_product"], parameters)
                await connection.execute(self._queries["correct_size"], parameters)
                there = (await connection.execute(self._queries["correct_vector"], parameters)).rowcount
                await connection.execute(self._queries["forget_unread"], parameters)
        if not there and key is not None:
            named = {"media_id": media.id, "thumbnail_key": key}
            if not await self._read("names_thumbnail", named, row=scalar_row):
                await self._store.delete(key)

    async def _note(self, media: _Earlier, reason: str) -> None:
        _log.warning("The media %s (%s) cannot be looked at again: %s", media.id, media.s3_key, reason)
        await self._write("note_unread", {"media_id": media.id, "reason": reason})

    async def _write(self, name: str, parameters: dict[str, Any] | None = None) -> int:
        """Run a statement in a transaction of its own; how many rows it changed."""
        with translated():
            async with self._pool.connection() as connection:
                query = await connection.execute(self._queries[name], {**self._of_space, **(parameters or {})})
                return query.rowcount

    async def _read(
        self, name: str, parameters: dict[str, Any] | None = None, *, row: AsyncRowFactory[Row]
    ) -> list[Row]:
        with translated():
            async with self._pool.connection() as connection:
                cursor = connection.cursor(row_factory=row)
                query = await cursor.execute(self._queries[name], {**self._of_space, **(parameters or {})})
                return await query.fetchall()


def _cosine(picture: Embedded, media: _Earlier) -> float:
    """Between the vector that a picture has now and the one that is stored."""
    now, before = picture.embedding.astype(np.float64), media.embedding.to_numpy().astype(np.float64)
    return float(now @ before / (np.linalg.norm(now) * np.linalg.norm(before)))
