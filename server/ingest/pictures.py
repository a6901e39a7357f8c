"""The bytes of a row's picture, from wherever the row says, and what tells that they are the same without reading them.

A file is taken as unchanged when its path, its size and the time of its last change are those of the last run, and when
that time lay some seconds before it was read then: one that is written twice within the clock's grain could have other
bytes under the same time. An object of a bucket is unchanged when the bucket gives the same ETag for it.
"""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections.abc import Sequence
from dataclasses import dataclass

from server.errors import BytesMissing, MediaRejected, NoPicture, TwinlensError, UploadTooLarge
from server.ingest.feed import FileOf, KeyOf, PictureOf
from server.ingest.storage import MediaStore

_SETTLED_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a picture was read, and what tells that it is the same one. `stamp` is None where nothing does."""

    source: str
    size: int
    stamp: str | None


@dataclass(frozen=True, slots=True)
class Fetched:
    """A picture's bytes."""

    data: bytes
    mark: Mark


class Pictures:
    """Fetches the pictures of a feed."""

    def __init__(self, *, most: int, bucket: MediaStore | None = None) -> None:
        """`most`: bytes of one picture; `bucket`: where the keys of rows lead to."""
        self._most = most
        self._bucket = bucket

    def look(self, pictures: Sequence[PictureOf]) -> list[Mark | TwinlensError | None]:
        """What a quick look at each says, in a thread: its mark, why it cannot be read, or None where it takes more."""
        return [_look(one) if isinstance(one, FileOf) else None for one in pictures]

    async def fetch(self, picture: PictureOf, known: Mark | None) -> Fetched | None:
        """The bytes of a picture; None where it is sure to be the one that is `known`.

        Raises MediaRejected's kinds where the picture is missing, too large or cannot be read, and StoreUnavailable
        where a bucket is away.
        """
        if isinstance(picture, FileOf):
            return await asyncio.to_thread(_read, picture, self._most)
        if isinstance(picture, KeyOf):
            return await self._get(picture, known)
        raise NoPicture("This version fetches no pictures from URLs.")

    async def _get(self, picture: KeyOf, known: Mark | None) -> Fetched | None:
        if self._bucket is None:
            raise NoPicture("The row names a key, and its source has no bucket.")
        try:
            found = await self._bucket.describe(picture.key)
            mark = Mark(f"key:{picture.key}", found.size, found.tag)
            if known is not None and known == mark and mark.stamp is not None:
                return None
            if found.size > self._most:
                raise _too_large(self._most)
            return Fetched(await self._bucket.get(picture.key), mark)
        except BytesMissing as exc:
            raise NoPicture(f"There is no object {picture.key} in {self._bucket.where}.") from exc


def _look(picture: FileOf) -> Mark | TwinlensError:
    try:
        return _mark(picture, os.stat(picture.path))
    except OSError as exc:
        return _sentence(picture, exc)


def _read(picture: FileOf, most: int) -> Fetched:
    try:
        with open(picture.path, "rb") as file:
            before = os.fstat(file.fileno())
            if not stat.S_ISREG(before.st_mode):
                raise NoPicture(f"{picture.path} is no file.")
            if before.st_size > most:
                raise _too_large(most)
            data = file.read(most + 1)
            after = os.fstat(file.fileno())
    except OSError as exc:
        raise _sentence(picture, exc) from exc
    if len(data) > most:
        raise _too_large(most)
    mark = _mark(picture, after)
    settled = (before.st_mtime_ns, before.st_size) == (after.st_mtime_ns, len(data)) and (
        time.time() - after.st_mtime > _SETTLED_SECONDS
    )
    return Fetched(data, mark if settled else Mark(mark.source, len(data), None))


def _mark(picture: FileOf, found: os.stat_result) -> Mark:
    # A name that is no text is written so that the database can hold it.
    name = os.fsencode(picture.path).decode("utf-8", "backslashreplace")
    return Mark(f"file:{name}", found.st_size, str(found.st_mtime_ns))


def _sentence(picture: FileOf, error: OSError) -> MediaRejected:
    if isinstance(error, FileNotFoundError):
        return NoPicture(f"There is no file {picture.path}.")
    return NoPicture(f"The file {picture.path} cannot be read: {error.strerror or error}.")


def _too_large(most: int) -> UploadTooLarge:
    return UploadTooLarge(f"The picture's file is larger than this server accepts, {most:,} bytes.")
