"""Feeds as tests write and read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from server.ingest.feed import Row, Wrong
from server.ingest.feeds.opening import open_feed
from server.ingest.feeds.options import FeedOptions


def read(source: Path | str, **options: Any) -> list[Row | Wrong]:
    """All of a feed, which must be the same when it is read again."""
    feed = open_feed(str(source), FeedOptions(**options))
    found = list(feed.read())
    assert list(feed.read()) == found
    return found


def rows(source: Path | str, **options: Any) -> list[Row]:
    """The rows of a feed that has no wrong lines."""
    found = read(source, **options)
    sound = [one for one in found if isinstance(one, Row)]
    assert sound == found
    return sound


def wrongs(source: Path | str, **options: Any) -> list[tuple[int, str]]:
    """The wrong lines of a feed: their numbers and reasons."""
    return [(one.number, one.reason) for one in read(source, **options) if isinstance(one, Wrong)]


def written(path: Path, text: str | bytes) -> Path:
    """The file, with its text in UTF-8 and its ends of lines as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path
