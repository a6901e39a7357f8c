"""The pictures below a prefix of a bucket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from server.errors import BadParameter, BadSetting, FeedUnreadable, StorageFailed
from server.ingest.feed import KeyOf, Row, Wrong
from server.ingest.feeds.cells import shown
from server.ingest.feeds.folder import EXTENSIONS, HEAD, Looked, is_litter, is_picture
from server.ingest.feeds.pattern import Pattern
from server.ingest.storage import MediaStore


def bucket_at(url: str) -> MediaStore:
    """The bucket of a source such as s3://bucket/prefix, with the usual AWS_ variables. Raises FeedUnreadable."""
    try:
        return MediaStore.at(url, Path())
    except BadSetting as exc:
        raise FeedUnreadable(f"{shown(url)} cannot be used as a source: {exc.__cause__}") from exc


class BucketFeed:
    """The pictures below a prefix, in the order in which the store lists them: S3's is that of the keys' bytes."""

    def __init__(self, store: MediaStore, client: str, pattern: Pattern) -> None:
        self._store, self._client, self._pattern = store, client, pattern
        self.looked = Looked()
        """Of the last reading."""

    def read(self) -> Iterator[Row | Wrong]:
        """Raises FeedUnreadable."""
        self.looked = looked = Looked()
        number = 0
        try:
            for key in self._store.every_key():
                if any(map(is_litter, key.split("/"))):
                    continue
                if PurePosixPath(key).suffix.lower() not in EXTENSIONS and not is_picture(self._store.head(key, HEAD)):
                    looked.pass_over(key)
                    continue
                number += 1
                try:
                    row: Row | Wrong = self._pattern.row(number, key, KeyOf(key), self._client)
                except BadParameter as exc:
                    row = Wrong(number, f"{shown(key)}: {exc.sentence}")
                yield row
        except StorageFailed as exc:
            raise FeedUnreadable(f"{self._store.where} cannot be read: {exc.reason.rstrip('.')}.") from exc
