"""The store that a backup is restored into: found empty, filled, and marked last."""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from collections.abc import AsyncIterator, Iterator
from itertools import islice

from server.backup.archive import STORE, Archive, Member
from server.backup.manifest import Manifest
from server.backup.pictures import AT_ONCE_BYTES, MOST_AT_ONCE, WINDOW_BYTES
from server.errors import StoreRefused
from server.ingest.storage import MARK, NOTE, Mark, MediaStore, Note, is_ours
from server.operations.progress import Progress

_LOOKED_FOR = 50


class Shelves:
    """Puts the pictures of a backup into a store. Every method may raise StoreRefused, StoreUnavailable."""

    def __init__(self, store: MediaStore, archive: Archive, manifest: Manifest) -> None:
        self._store = store
        self._archive = archive
        self._manifest = manifest

    async def left(self, recorded: str | None) -> Note | None:
        """The note of a restore of this backup that only lacked its end, where `recorded` is the database's store."""
        if self._store.folder is not None and not self._store.folder.is_dir():
            return None
        note = await self._store.read_note()
        return note if note is not None and (note.backup, note.mark) == (self._manifest.id, recorded) else None

    async def prepare(self) -> Note:
        """Note in the store that a restore goes on; where it has gone on before, that note.

        Raises StoreRefused where the store holds anything else.
        """
        self._store.make()
        note = await self._store.read_note()
        if await self._store.read_mark() is not None or (note is None and await self._holds_pictures()):
            raise StoreRefused(
                f"The store of pictures at {self._store.where} holds a catalogue's pictures, or its mark: a backup is "
                "restored into an empty one. Nothing was changed. Give another place with TWINLENS_MEDIA_URL or "
                "TWINLENS_DATA, or add --without-media."
            )
        if note is not None and note.backup != self._manifest.id:
            raise StoreRefused(
                f"The store of pictures at {self._store.where} holds a part of another backup, whose restore was "
                "interrupted. Nothing was changed. Restore that one to its end, or empty the store."
            )
        if note is None:
            note = Note(self._manifest.id, uuid.uuid4().hex)
            await self._store.write_note(note)
        return note

    async def fill(self, progress: Progress) -> int:
        """Store all pictures and thumbnails; how many."""
        window: deque[tuple[int, asyncio.Task[None]]] = deque()
        weight = stored = 0
        try:
            for member, key in self._pictures():
                size = min(member.bytes, AT_ONCE_BYTES)
                while window and (len(window) >= MOST_AT_ONCE or weight + size > WINDOW_BYTES):
                    before, task = window.popleft()
                    await task
                    weight -= before
                    progress.add(1)
                if member.bytes > AT_ONCE_BYTES:
                    await self._store.put_pieces(key, self._pieces(member))
                    progress.add(1)
                else:
                    window.append((size, asyncio.create_task(self._store.put(key, self._archive.read(member)))))
                    weight += size
                stored += 1
            while window:
                await window.popleft()[1]
                progress.add(1)
        finally:
            await asyncio.gather(*(task for _, task in window), return_exceptions=True)
        progress.clear()
        return stored

    async def finish(self, mark: Mark) -> None:
        """The store is the database's from now on."""
        await self._store.write_mark(mark, replace=True)
        await self._store.delete(NOTE)

    async def _holds_pictures(self) -> bool:
        if await self._store.holds_pictures():
            return True
        # Keys from before an adoption may be those of another application's objects. Some of them tell.
        others = islice((key for _, key in self._pictures() if not is_ours(key)), _LOOKED_FOR)
        return any([await self._store.has(key) for key in others])

    def _pictures(self) -> Iterator[tuple[Member, str]]:
        for member in self._archive.members():
            key = member.name.removeprefix(STORE)
            if key != member.name and key != MARK:
                yield member, key

    async def _pieces(self, member: Member) -> AsyncIterator[bytes]:
        for piece in self._archive.pieces(member):
            yield piece
