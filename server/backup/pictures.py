"""The pictures of a backup: fetched from the store, several at a time, and written in the order of their keys."""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import IO

import msgspec

from server.backup.archive import STORE, ArchiveWriter
from server.backup.snapshot import Promised
from server.errors import BytesMissing, StorageFailed
from server.ingest.storage import MARK, NOTE, MediaStore, Opened
from server.operations.progress import Progress

AT_ONCE_BYTES = 32 * 1024 * 1024
"""An object up to this size is held in memory as a whole."""

MOST_AT_ONCE = 16
"""So many objects are fetched, or stored, at a time,"""

WINDOW_BYTES = 64 * 1024 * 1024
"""and of so many bytes together, unless one alone is larger."""

_THUMBNAIL_BYTES = 64 * 1024
_UNKNOWN_BYTES = 4 * 1024 * 1024
_EXAMPLES = 20


@dataclass
class Copied:
    """What became of the pictures and thumbnails that a catalogue promises."""

    objects: int = 0
    """They are in the backup."""
    missing: int = 0
    """Pictures whose bytes the store does not have, or does not give."""
    changed: int = 0
    """Pictures whose bytes are not those that their rows have the digest of; they are in the backup as they are."""
    examples: list[str] = field(default_factory=list)
    """A line for each of the first pictures that are missing or changed."""

    def count(self, one: Promised, outcome: str | StorageFailed) -> str | None:
        """Count an object by the SHA-256, in hex, of what was copied, or by what failed.

        A line about it, where it is a picture that is missing or changed.
        """
        if isinstance(outcome, StorageFailed):
            if one.thumbnail:
                return None
            self.missing += 1
            reason = "missing" if isinstance(outcome, BytesMissing) else outcome.reason
        else:
            self.objects += 1
            if one.digest in (None, outcome):
                return None
            self.changed += 1
            reason = "its bytes are not those that were embedded"
        line = f"{one.key}: {reason}"
        if len(self.examples) < _EXAMPLES:
            self.examples.append(line)
        return line


def remember(promised: Iterable[Promised], file: IO[bytes]) -> int:
    """Write down what is promised; how many objects. A list in memory would be as long as the catalogue."""
    count = 0
    encoder = msgspec.json.Encoder()
    for one in promised:
        file.write(encoder.encode(one) + b"\n")
        count += 1
    return count


def remembered(file: IO[bytes]) -> Iterator[Promised]:
    """What `remember` has written down."""
    decoder = msgspec.json.Decoder(Promised)
    file.seek(0)
    return map(decoder.decode, file)


async def fetched(
    store: MediaStore, promised: IO[bytes]
) -> AsyncGenerator[tuple[Promised, Opened | StorageFailed], None]:
    """The objects that are remembered there, in their order, several fetched at a time; or what failed.

    Raises StoreUnavailable where the store itself is away.
    """
    window: deque[tuple[Promised, asyncio.Task[Opened]]] = deque()
    weight = 0

    async def first() -> tuple[Promised, Opened | StorageFailed]:
        one, task = window.popleft()
        try:
            return one, await task
        except StorageFailed as exc:
            if not isinstance(exc, BytesMissing):
                await store.look()  # the store itself is there, and what fails is this key
            return one, exc

    try:
        for one in remembered(promised):
            if one.key in (MARK, NOTE):
                continue
            while window and (len(window) >= MOST_AT_ONCE or weight + _weight(one) > WINDOW_BYTES):
                weight -= _weight(window[0][0])
                yield await first()
            window.append((one, asyncio.create_task(store.open(one.key, at_once=AT_ONCE_BYTES))))
            weight += _weight(one)
        while window:
            yield await first()
    finally:
        for _, task in window:
            task.cancel()
        await asyncio.gather(*(task for _, task in window), return_exceptions=True)


class Pictures:
    """Copies objects from a store into a backup."""

    def __init__(self, store: MediaStore, writer: ArchiveWriter, problems: IO[bytes], progress: Progress) -> None:
        """`problems`: gets a line for each picture that is missing or changed."""
        self._store = store
        self._writer = writer
        self._problems = problems
        self._progress = progress
        self._copied = Copied()

    async def copy(self, promised: IO[bytes]) -> Copied:
        """Copy what is remembered there, and the store's mark. Raises StoreUnavailable."""
        async with aclosing(fetched(self._store, promised)) as objects:
            async for one, found in objects:
                outcome = found if isinstance(found, StorageFailed) else await self._write(one.key, found)
                if (line := self._copied.count(one, outcome)) is not None:
                    self._problems.write(f"{line}\n".encode())
                self._progress.add(1)
        await self._copy_mark()
        self._progress.clear()
        return self._copied

    async def _write(self, key: str, opened: Opened) -> str:
        """The SHA-256 of what was written, in hex."""
        digest = hashlib.sha256()
        if opened.size <= AT_ONCE_BYTES:
            async for piece in opened.pieces:
                digest.update(piece)
                self._writer.add(STORE + key, piece)
        else:
            with self._writer.growing(STORE + key) as add:
                async for piece in opened.pieces:
                    digest.update(piece)
                    add(piece)
        return digest.hexdigest()

    async def _copy_mark(self) -> None:
        """For whoever restores without us: with its mark, the store is that of the dumped database."""
        mark = await self._store.read_mark()
        if mark is not None:
            self._writer.add(STORE + MARK, msgspec.json.encode(mark))


def _weight(one: Promised) -> int:
    """About how many bytes of memory an object takes."""
    return min(
        AT_ONCE_BYTES, one.bytes if one.bytes is not None else _THUMBNAIL_BYTES if one.thumbnail else _UNKNOWN_BYTES
    )
