"""The bytes of media, in a local folder or an S3-compatible store, behind the same few calls.

A store holds a mark beside its objects (see mark.py). It tells an unmounted volume, which looks like an empty folder,
from the store that the catalogue was filled with.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, TypeVar
from urllib.parse import urlsplit

import msgspec
import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, InvalidPathError, NotSupportedError
from obstore.store import LocalStore, ObjectStore, S3Store, from_url

from server.errors import BadSetting, BytesMissing, BytesRemain, StorageFailed, StoreUnavailable
from server.tracing import span

MARK = "twinlens-store.json"
"""The key of a store's mark."""

NOTE = "twinlens-restore.json"
"""The key of the note that a store holds while a backup is restored into it."""

J = TypeVar("J")

Failure = Literal["read", "write", "delete", "missing"]
"""What failed; `missing`: an object that was asked for is not there."""

# The prefixes of the keys that the librarian makes, and what such a key looks like.
_OURS = ("media/", "thumbnails/")
_KEY = re.compile(r"(?:media|thumbnails)/[^/]+/(?P<id>[0-9a-f]{32})\.[a-z0-9]{1,8}")

# A store in the network that does not answer is tried again for less time than a request has.
_RETRIES = 3
_RETRY_TIMEOUT = timedelta(seconds=10)
_CONNECT_TIMEOUT = "5s"

_PAGE = 1000
_PIECE = 8 * 1024 * 1024
# A folder's unfinished writes: the object's name, and a number.
_UNFINISHED = re.compile(r"[0-9a-f]{32}\.[a-z0-9]{1,8}#[0-9]+")
_LONGEST_REASON = 300


class Mark(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a store says of itself."""

    id: str
    """Drawn at random when the store was marked; 32 hex digits."""
    database: str | None = None
    """Which database it was marked by, where that is known."""


class Note(msgspec.Struct, frozen=True):
    """What a store says of itself while a backup is restored into it."""

    backup: str
    """The id of the backup."""
    mark: str
    """The id of the mark that the store is to have in the end, and that the restored database names."""


@dataclass(frozen=True, slots=True)
class Opened:
    """An object whose bytes are read: how many there are, and where they come from, piece by piece."""

    size: int
    pieces: AsyncIterator[bytes]


@dataclass(frozen=True, slots=True)
class Stored:
    """An object that a store lists, and of which media it is."""

    key: str
    media_id: str
    bytes: int
    at: datetime
    """When it was written."""


@dataclass(frozen=True, slots=True)
class Described:
    """What a store says of an object without giving its bytes."""

    size: int
    tag: str | None
    """Changes when the bytes do; None where the store has no such thing."""


class MediaStore:
    """Objects by key. Writing is atomic: a key holds the complete object or nothing. What was written outlives a power
    cut.

    Nothing is opened or made until the first call. Any call raises StoreUnavailable when the store is away or full, and
    StorageFailed for a key that it cannot have.
    """

    def __init__(self, open_store: Callable[[], ObjectStore], where: str, folder: Path | None = None) -> None:
        """`where`: the place, for people; `folder`: of a store that is a folder."""
        self.where = where
        self.folder = folder
        self.expected: str | None = None
        """The id of the mark that the store must have; None: whichever it has, or none."""
        self.trouble: StorageFailed | None = None
        """Why the store is away at present. While it is, no call waits for it."""
        self.on_failure: Callable[[Failure], None] = lambda _: None
        """Called for each failure."""
        self._open_store = open_store
        self._opened: ObjectStore | None = None

    @classmethod
    def at(cls, url: str | None, folder: Path) -> MediaStore:
        """The store at `url`: a folder's path or file:// URL, or s3://bucket/prefix with the usual AWS_ variables.

        Without a URL, `folder`. Raises BadSetting when the URL names no known kind of store.
        """
        if url is None or "://" not in url:
            return cls._in(Path(url) if url else folder)
        parts = urlsplit(url)
        where = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"  # without a password
        if parts.scheme == "file":
            return cls._in(Path(parts.path))
        try:
            if parts.scheme == "s3":
                store: ObjectStore = S3Store.from_url(
                    url,
                    client_options={"allow_http": True, "connect_timeout": _CONNECT_TIMEOUT},
                    retry_config={"max_retries": _RETRIES, "retry_timeout": _RETRY_TIMEOUT},
                )
            else:
                store = from_url(url)
        except (BaseError, ValueError, OSError) as exc:
            raise BadSetting(f"TWINLENS_MEDIA_URL ({where}) cannot be used as a store of media: {exc}") from exc
        return cls(lambda: store, where)

    @classmethod
    def _in(cls, folder: Path) -> MediaStore:
        # A folder that is not there is not made: it may be on a volume that is not mounted.
        def open_folder() -> ObjectStore:
            if not folder.is_dir():
                raise FileNotFoundError(f"there is no folder {folder.absolute()}")
            return LocalStore(folder, automatic_cleanup=True)

        return cls(open_folder, str(folder.absolute()), folder)

    # --- whether it is the right store, and there ---------------------------------------------------------------------

    def make(self) -> None:
        """Make the folder of a store that is one. Raises StoreUnavailable."""
        try:
            if self.folder is not None:
                self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise StoreUnavailable(reason=str(exc)) from exc

    def require(self) -> None:
        """Raises StoreUnavailable where the store is known to be away; asks nobody."""
        if self.trouble is not None:
            raise StoreUnavailable(reason=self.trouble.reason, known=True)

    async def look(self) -> None:
        """Make sure that the store answers and has the expected mark. Raises StoreUnavailable."""
        mark = await self.read_mark()
        if self.expected is None:
            return
        if mark is None:
            raise StoreUnavailable(reason=f"{self.where} lacks its mark, {MARK}: is the volume mounted?")
        if mark.id != self.expected:
            raise StoreUnavailable(reason=f"{self.where} has the mark of another store")

    async def read_mark(self) -> Mark | None:
        """The store's mark; None where it has none."""
        return await self._read_json(MARK, Mark)

    async def write_mark(self, mark: Mark, *, replace: bool = False) -> None:
        """Mark the store; one that has a mark only with `replace`, as far as the store can tell."""
        data = msgspec.json.encode(mark)
        with self._translated("write"):
            if not replace:
                try:
                    await obstore.put_async(self._store, MARK, data, mode="create", use_multipart=False)
                except AlreadyExistsError as exc:
                    raise StoreUnavailable(reason="another server has marked it at this moment") from exc
                except (BaseError, OSError):
                    pass  # not every store can create and never overwrite
                else:
                    return
            await obstore.put_async(self._store, MARK, data, use_multipart=False)

    async def read_note(self) -> Note | None:
        """The note of a restore that has not ended; None where there is none."""
        return await self._read_json(NOTE, Note)

    async def write_note(self, note: Note) -> None:
        """Say that a backup is being restored into this store."""
        with self._translated("write"):
            await obstore.put_async(self._store, NOTE, msgspec.json.encode(note), use_multipart=False)

    async def _read_json(self, key: str, kind: type[J]) -> J | None:
        with self._translated("read"):
            try:
                result = await obstore.get_async(self._store, key)
                return msgspec.json.decode(bytes(await result.bytes_async()), type=kind)
            except FileNotFoundError:
                return None
            except msgspec.MsgspecError as exc:
                raise StoreUnavailable(reason=f"{self.where} has a {key} that cannot be read: {exc}") from exc

    # --- objects ------------------------------------------------------------------------------------------------------

    async def put(self, key: str, data: bytes) -> None:
        """Store an object. Raises StorageFailed's kinds; the key then holds what it held before."""
        self.require()
        if self.folder is not None:
            await self.look()
        with span("store write", {"twinlens.bytes": len(data)}, outgoing=True), self._translated("write"):
            # In one piece: what a crash leaves of many pieces is kept, and listed nowhere.
            await obstore.put_async(self._store, key, data, use_multipart=False)
            if self.folder is not None:
                await asyncio.to_thread(_sync, self.folder, key)
        if self.folder is not None:
            await self.look()  # a volume that went away meanwhile left the object on the disk below it

    async def put_all(self, objects: Mapping[str, bytes]) -> None:
        """Store many objects, with one look at the store and one wait for the disk. Raises StorageFailed's kinds; then
        some may be stored, and others not."""
        self.require()
        if self.folder is not None:
            await self.look()
        about = {"twinlens.objects": len(objects), "twinlens.bytes": sum(map(len, objects.values()))}
        with span("store write", about, outgoing=True), self._translated("write"):
            puts = (obstore.put_async(self._store, key, data, use_multipart=False) for key, data in objects.items())
            for outcome in await asyncio.gather(*puts, return_exceptions=True):
                if isinstance(outcome, BaseException):
                    raise outcome
            if self.folder is not None:
                await asyncio.to_thread(_sync, self.folder, *objects)
        if self.folder is not None:
            await self.look()

    async def describe(self, key: str) -> Described:
        """What the store says of an object. Raises BytesMissing as `get` does."""
        try:
            with self._translated("read", missing=True):
                meta = await obstore.head_async(self._store, key)
        except FileNotFoundError as exc:
            await self.look()
            raise BytesMissing(reason=key) from exc
        return Described(meta["size"], meta["e_tag"])

    async def get(self, key: str) -> bytes:
        """The object of a key. Raises BytesMissing when the key holds nothing in a store that is there."""
        self.require()
        try:
            with span("store read", outgoing=True), self._translated("read", missing=True):
                result = await obstore.get_async(self._store, key)
                return bytes(await result.bytes_async())
        except FileNotFoundError as exc:
            await self.look()
            self.on_failure("missing")
            raise BytesMissing(reason=key) from exc

    async def open(self, key: str, *, at_once: int) -> Opened:
        """An object; one of at most so many bytes has been read when this returns.

        Raises BytesMissing as `get` does; the pieces may raise StoreUnavailable.
        """
        try:
            with self._translated("read", missing=True):
                result = await obstore.get_async(self._store, key)
                size: int = result.meta["size"]
                if size <= at_once:
                    return Opened(size, _one(bytes(await result.bytes_async())))
        except FileNotFoundError as exc:
            await self.look()
            raise BytesMissing(reason=key) from exc
        return Opened(size, self._pieces(result))

    async def _pieces(self, result: obstore.GetResult) -> AsyncIterator[bytes]:
        with self._translated("read"):
            async for piece in result.stream(_PIECE):
                yield bytes(piece)

    async def put_pieces(self, key: str, pieces: AsyncIterator[bytes]) -> None:
        """Store an object that is too large for the memory. Raises StorageFailed's kinds, as `put`."""
        with self._translated("write"):
            await obstore.put_async(self._store, key, pieces)

    async def has(self, key: str) -> bool:
        """Whether the key holds an object."""
        try:
            with self._translated("read", missing=True):
                await obstore.head_async(self._store, key)
        except FileNotFoundError:
            return False
        return True

    async def holds_pictures(self) -> bool:
        """Whether there is any object of ours."""
        async for page in self.pages():
            if page:
                return True
        return False

    async def delete(self, *keys: str) -> None:
        """Delete objects; a key without an object is no error.

        Tries every key. Raises BytesRemain with the keys that remain; those are all of them where the store is away.
        """
        if not keys:
            return
        try:
            self.require()
            with self._translated("delete"):
                store = self._store
        except StorageFailed as exc:
            raise BytesRemain(keys, reason=exc.reason) from exc
        with span("store delete", {"twinlens.objects": len(keys)}, outgoing=True):
            outcomes = await asyncio.gather(*(obstore.delete_async(store, key) for key in keys), return_exceptions=True)
        if any(isinstance(outcome, FileNotFoundError) for outcome in outcomes):
            try:
                await self.look()  # a volume that is not mounted has nothing to delete either
            except StorageFailed as exc:
                raise BytesRemain(keys, reason=exc.reason) from exc
        failed = [
            (key, outcome)
            for key, outcome in zip(keys, outcomes, strict=True)
            if isinstance(outcome, BaseException) and not isinstance(outcome, FileNotFoundError)
        ]
        if failed:
            self.on_failure("delete")
            raise BytesRemain([key for key, _ in failed], reason=_said(failed[0][1])) from failed[0][1]

    # --- all of them --------------------------------------------------------------------------------------------------

    async def pages(self, client_id: str | None = None) -> AsyncIterator[list[Stored]]:
        """The objects whose keys look like those that servers of ours make, page by page, in no order; with
        `client_id`, those of this client alone."""
        for prefix in _OURS:
            with self._translated("read"):
                of_client = prefix if client_id is None else f"{prefix}{client_id}/"
                async for page in obstore.list(self._store, of_client, chunk_size=_PAGE):
                    yield [
                        Stored(one["path"], found["id"], one["size"], one["last_modified"])
                        for one in page
                        if (found := _KEY.fullmatch(one["path"]))
                    ]

    def every_key(self) -> Iterator[str]:
        """The key of every object, page by page, as the store lists them; waits for the store.

        Raises StorageFailed's kinds.
        """
        with self._translated("read"):
            for page in obstore.list(self._store, chunk_size=_PAGE):
                yield from (one["path"] for one in page)

    def head(self, key: str, size: int) -> bytes:
        """The first bytes of an object, at most so many; waits for the store.

        Raises BytesMissing where the key holds nothing, and StorageFailed's kinds.
        """
        try:
            with self._translated("read", missing=True):
                result = obstore.get(self._store, key)
                return bytes(next(iter(result.stream(size)), b""))[:size]
        except FileNotFoundError as exc:
            raise BytesMissing(reason=key) from exc

    async def unfinished(self, before: datetime) -> list[Path]:
        """Files that writes which never ended have left in a folder before that time; other stores have none."""
        found = []
        walk = self._walk(before)
        while page := await asyncio.to_thread(lambda: list(itertools.islice(walk, _PAGE))):
            found += page
        return found

    def _walk(self, before: datetime) -> Iterator[Path]:
        for prefix in _OURS if self.folder is not None else ():
            for folder, _, names in os.walk(self.folder / prefix if self.folder else prefix):
                for name in filter(_UNFINISHED.fullmatch, names):
                    path = Path(folder, name)
                    try:
                        written = datetime.fromtimestamp(path.stat().st_mtime, UTC)
                    except OSError:
                        continue  # it was finished at this moment
                    if written < before:
                        yield path

    @property
    def _store(self) -> ObjectStore:
        """Raises what `_translated` translates."""
        if self._opened is None:
            self._opened = self._open_store()
        return self._opened

    @contextmanager
    def _translated(self, what: Failure, *, missing: bool = False) -> Iterator[None]:
        """Raises StorageFailed's kinds in place of what obstore raises; with `missing`, FileNotFoundError as it is."""
        try:
            yield
        except StorageFailed:
            raise
        except (InvalidPathError, NotSupportedError, ValueError) as exc:
            self.on_failure(what)
            raise StorageFailed(reason=_said(exc)) from exc
        except (BaseError, OSError) as exc:
            if missing and isinstance(exc, FileNotFoundError):
                raise
            self.on_failure(what)
            raise StoreUnavailable(reason=_said(exc)) from exc


def _sync(folder: Path, *keys: str) -> None:
    """Wait until the disk has objects' files and the names that lead to them: obstore writes into memory.

    Their rows are committed after that, and survive a power cut: so must the bytes.
    """
    folders: dict[Path, None] = {}
    for key in keys:
        path = folder / key
        _sync_one(path)
        for one in path.parents:
            folders[one] = None
            if one == folder:
                break
    for one in folders:
        try:
            _sync_one(one)
        except OSError as exc:
            if exc.errno != errno.EINVAL:  # not every file system syncs folders
                raise


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_ours(key: str) -> bool:
    """Whether the key looks like those that servers of ours make."""
    return _KEY.fullmatch(key) is not None


async def _one(piece: bytes) -> AsyncIterator[bytes]:
    yield piece


def _said(error: BaseException) -> str:
    """The first line of what obstore says; the others repeat it in the notation of its language."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:_LONGEST_REASON]
