"""The bytes of a row's picture, from wherever the row says, and what tells that they are the same without reading them.

A file is taken as unchanged when its path, its size and the time of its last change are those of the last run, and when
that time lay some seconds before it was read then: one that is written twice within the clock's grain could have other
bytes under the same time. An object of a bucket is unchanged when the bucket gives the same ETag for it, and a picture
at a URL when its host says so.
"""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from server.errors import BytesMissing, FetchFailed, MediaRejected, NoPicture, StorageFailed, UploadTooLarge
from server.ingest.feed import FileOf, KeyOf, PictureOf, UrlOf
from server.ingest.fetch import Fetcher, Validators
from server.ingest.storage import MediaStore

_SETTLED_SECONDS = 2.0
_TRIES = 3
_PAUSE_SECONDS = 0.5


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

    def __init__(
        self, *, most: int, bucket: MediaStore, fetcher: Fetcher, clock: Callable[[], float] = time.time
    ) -> None:
        """`most`: bytes of one picture; `bucket`: where the keys of rows lead to; `fetcher`: for their URLs;
        `clock`: gives the time in seconds since 1970."""
        self._most = most
        self._bucket = bucket
        self._fetcher = fetcher
        self._clock = clock

    def look(self, pictures: Sequence[PictureOf]) -> list[Mark | None]:
        """The mark of each that is a file which is there; of others it is found when they are fetched. Blocks."""
        return [_look(one) if isinstance(one, FileOf) else None for one in pictures]

    async def fetch(self, picture: PictureOf, known: Mark | None) -> Fetched | None:
        """The bytes of a picture; None where it is sure to be the one that is `known`.

        Raises MediaRejected's kinds where the picture is missing, too large or cannot be read, UrlRefused and
        FetchFailed for one at a URL, and StoreUnavailable where the bucket is away.
        """
        match picture:
            case FileOf():
                return await asyncio.to_thread(_read, picture, self._most, self._clock())
            case KeyOf(key):
                return await self._get(key, known)
            case UrlOf(url):
                return await self._fetch(url, known)

    async def _get(self, key: str, known: Mark | None) -> Fetched | None:
        try:
            found = await self._bucket.describe(key)
            mark = Mark(f"key:{key}", found.size, found.tag)
            if mark.stamp is not None and mark == known:
                return None
            if found.size > self._most:
                raise _too_large(self._most)
            return Fetched(await self._bucket.get(key), mark)
        except BytesMissing as exc:
            raise NoPicture(f"There is no object {key} in {self._bucket.where}.") from exc
        except StorageFailed as exc:
            await self._bucket.look()  # where the bucket is away, that is what is wrong
            raise NoPicture(f"The object {key} in {self._bucket.where} cannot be read: {exc.reason}") from exc

    async def _fetch(self, url: str, known: Mark | None) -> Fetched | None:
        source = f"url:{url}"
        validators = Validators()
        if known is not None and known.source == source and known.stamp is not None:
            validators = Validators(*msgspec.json.decode(known.stamp, type=tuple[str | None, str | None]))
        for attempt in range(1, _TRIES + 1):
            try:
                found = await self._fetcher.fetch_if_changed(url, validators)
            except FetchFailed as exc:
                if not exc.temporary or attempt == _TRIES:
                    raise
                await asyncio.sleep(_PAUSE_SECONDS * attempt)
            else:
                break
        if found is None:
            return None
        said = (found.validators.etag, found.validators.last_modified)
        stamp = msgspec.json.encode(said).decode() if found.validators else None
        return Fetched(found.data, Mark(source, len(found.data), stamp))


def _look(picture: FileOf) -> Mark | None:
    try:
        return _mark(picture, os.stat(picture.path))
    except OSError:
        return None


def _read(picture: FileOf, most: int, now: float) -> Fetched:
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
        now - after.st_mtime > _SETTLED_SECONDS
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
