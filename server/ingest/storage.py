"""The bytes of media, in a local folder or an S3-compatible store, behind the same three calls."""

from __future__ import annotations

import asyncio
from pathlib import Path
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore, S3Store, from_url

from server.errors import BadSetting, MediaNotFound, StorageFailed


class MediaStore:
    """Objects by key. Writing is atomic: a key holds the complete object or nothing."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    @classmethod
    def at(cls, url: str | None, folder: Path) -> MediaStore:
        """The store at `url`: a folder's path or file:// URL, or s3://bucket/prefix with the usual AWS_ variables.

        Without a URL, `folder`. Raises BadSetting when the URL names no known kind of store.
        """
        try:
            if url is None or "://" not in url:
                return cls(LocalStore(Path(url) if url else folder, mkdir=True, automatic_cleanup=True))
            scheme = urlsplit(url).scheme
            if scheme == "file":
                return cls(LocalStore(Path(urlsplit(url).path), mkdir=True, automatic_cleanup=True))
            if scheme == "s3":
                return cls(S3Store.from_url(url, client_options={"allow_http": True}))
            return cls(from_url(url))
        except (BaseError, ValueError, OSError) as exc:
            where = f"TWINLENS_MEDIA_URL ({url})" if url else f"The folder {folder}"
            raise BadSetting(f"{where} cannot be used as a store of media: {exc}") from exc

    async def put(self, key: str, data: bytes) -> None:
        """Store an object. Raises StorageFailed; the key then holds what it held before."""
        try:
            await obstore.put_async(self._store, key, data)
        except (BaseError, OSError) as exc:
            raise StorageFailed() from exc

    async def get(self, key: str) -> bytes:
        """The object of a key. Raises MediaNotFound when the key holds nothing, StorageFailed."""
        try:
            result = await obstore.get_async(self._store, key)
            return bytes(await result.bytes_async())
        except FileNotFoundError as exc:
            raise MediaNotFound("The bytes of this media are not in the media store.") from exc
        except (BaseError, OSError) as exc:
            raise StorageFailed() from exc

    async def delete(self, *keys: str) -> None:
        """Delete objects; a key without an object is no error.

        Tries every key. Raises StorageFailed with the keys that remain.
        """
        outcomes = await asyncio.gather(
            *(obstore.delete_async(self._store, key) for key in keys), return_exceptions=True
        )
        failed = [
            (key, outcome)
            for key, outcome in zip(keys, outcomes, strict=True)
            if isinstance(outcome, BaseException) and not isinstance(outcome, FileNotFoundError)
        ]
        if failed:
            left = ", ".join(key for key, _ in failed)
            raise StorageFailed(f"These could not be deleted from the media store: {left}.") from failed[0][1]
