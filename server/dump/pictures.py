"""The pictures' bytes beside the tables: named by their SHA-256, fetched from a store and put into another one."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from pathlib import Path, PurePosixPath
from typing import IO, Any

from server.backup.pictures import AT_ONCE_BYTES, MOST_AT_ONCE, WINDOW_BYTES, Copied, fetched
from server.backup.snapshot import Promised
from server.backup.unfinished import SUFFIX
from server.dump.parts import BATCH, Parts
from server.errors import DumpRefused, StorageFailed
from server.ingest.storage import MARK, NOTE, MediaStore, Opened
from server.operations.progress import Progress

PICTURES = "pictures"
"""The folder of the bytes in a dump. Their table is in `objects`."""

OBJECTS = "objects"

_PIECE = 1024 * 1024
_SUFFIX = re.compile(r"\.[a-z0-9]{1,8}")


def file_of(digest: bytes, key: str) -> str:
    """Where the bytes with this SHA-256 lie in a dump: below two of its digits, with the ending of the store's key."""
    suffix = PurePosixPath(key).suffix
    name = digest.hex()
    return f"{PICTURES}/{name[:2]}/{name}{suffix if _SUFFIX.fullmatch(suffix) else ''}"


class Out:
    """Copies objects of a store into a dump. Every method may raise StoreUnavailable, OSError."""

    def __init__(self, store: MediaStore, root: Path, parts: Parts, progress: Progress) -> None:
        """`parts`: gets a row for each object."""
        self._store = store
        self._root = root
        self._parts = parts
        self._progress = progress
        self._rows: list[Sequence[Any]] = []
        self._copied = Copied()

    async def copy(self, promised: IO[bytes]) -> Copied:
        """Copy what is remembered there (see `server.backup.pictures.remember`)."""
        async with aclosing(fetched(self._store, promised)) as objects:
            async for one, found in objects:
                self._copied.count(one, found if isinstance(found, StorageFailed) else await self._write(one, found))
                self._progress.add(1)
        if self._rows:
            self._parts.add(self._rows)
        self._progress.clear()
        return self._copied

    async def _write(self, one: Promised, opened: Opened) -> str:
        """The SHA-256 of what was written, in hex; the file has its name only when it is whole."""
        digest, size = hashlib.sha256(), 0
        part = self._root / f"{PICTURES}{SUFFIX}"
        with part.open("wb") as file:
            async for piece in opened.pieces:
                digest.update(piece)
                file.write(piece)
                size += len(piece)
        name = file_of(digest.digest(), one.key)
        path = self._root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        part.rename(path)  # where the same bytes are there already, nothing changes
        self._rows.append((one.key, one.thumbnail, digest.digest(), size, name))
        if len(self._rows) >= BATCH:
            self._parts.add(self._rows)
            self._rows = []
        return digest.hexdigest()


class In:
    """Puts the pictures of a dump into a store, under the keys that they had. Every method may raise StorageFailed."""

    def __init__(self, store: MediaStore, root: Path, progress: Progress) -> None:
        self._store = store
        self._root = root
        self._progress = progress
        self.stored = 0
        """Objects that were not there."""

    async def put(self, rows: Iterable[tuple[str, bytes, int]]) -> None:
        """Store objects by key, SHA-256 and size, several at a time.

        One that is there with these bytes is left alone. Raises DumpRefused where it has others.
        """
        window: deque[tuple[int, asyncio.Task[bool]]] = deque()
        weight = 0
        try:
            for key, digest, size in rows:
                heavy = min(size, AT_ONCE_BYTES)
                while window and (len(window) >= MOST_AT_ONCE or weight + heavy > WINDOW_BYTES):
                    weight -= window[0][0]
                    self._count(await window.popleft()[1])
                window.append((heavy, asyncio.create_task(self._put(key, digest, size))))
                weight += heavy
            while window:
                self._count(await window.popleft()[1])
        finally:
            await asyncio.gather(*(task for _, task in window), return_exceptions=True)

    def _count(self, stored: bool) -> None:
        self.stored += stored
        self._progress.add(1)

    async def _put(self, key: str, digest: bytes, size: int) -> bool:
        if key in (MARK, NOTE):
            raise DumpRefused(f"The dump names {key} as a picture, which is what a store says of itself.")
        if await self._store.has(key):
            await self._require_same(key, digest)
            return False
        path = self._root / file_of(digest, key)
        if size > AT_ONCE_BYTES:
            await self._store.put_pieces(key, _pieces(path))
        else:
            await self._store.put(key, await asyncio.to_thread(path.read_bytes))
        return True

    async def _require_same(self, key: str, digest: bytes) -> None:
        found = hashlib.sha256()
        opened = await self._store.open(key, at_once=AT_ONCE_BYTES)
        async for piece in opened.pieces:
            found.update(piece)
        if found.digest() != digest:
            raise DumpRefused(
                f"The store of pictures at {self._store.where} has other bytes under the key {key} than the dump, and "
                "they are not written over. No row was loaded. Add --without-pictures, or load into another store."
            )


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while piece := await asyncio.to_thread(file.read, _PIECE):
            yield piece
