"""Opening the files of a feed: their bytes, and their text."""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO, cast

from server.errors import FeedUnreadable
from server.ingest.feeds.cells import shown

MOST_CHARACTERS = 8 * 1024 * 1024
"""Of one row or item, so that a quotation mark or a tag that nobody closes does not fill the memory."""

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A file's bytes, decompressed where its name ends in .gz. Raises FeedUnreadable, also while they are read."""
    try:
        if path.suffix.lower() == ".gz":
            with gzip.open(path, "rb") as packed:
                yield cast("BinaryIO", packed)
        else:
            with path.open("rb") as file:
                yield file
    except (OSError, EOFError, zlib.error) as exc:
        said = getattr(exc, "strerror", None) or str(exc)
        raise FeedUnreadable(f"{path} cannot be read: {said.rstrip('.')}.") from exc


@contextmanager
def opened_text(path: Path, encoding: str | None) -> Iterator[TextIO]:
    """A file's text, its ends of lines as they are. A byte that is no text in the encoding becomes a lone surrogate.

    `encoding`: None: UTF-8, or what a mark at the beginning says. Raises FeedUnreadable, also while it is read.
    """
    with opened(path) as file:
        name = _encoding_of(file, encoding)
        try:
            text = io.TextIOWrapper(file, encoding=name, errors="surrogateescape", newline="")
        except LookupError as exc:
            raise FeedUnreadable(f"There is no encoding {shown(name)}; such are utf-8, cp1252 and utf-16.") from exc
        try:
            yield text
        except UnicodeError as exc:
            raise FeedUnreadable(f"{path} is no text in the encoding {name}.") from exc


def _encoding_of(file: BinaryIO, given: str | None) -> str:
    head = file.read(4)
    file.seek(0)
    marked = next((name for mark, name in _MARKS if head.startswith(mark)), None)
    if given is None:
        return marked or "utf-8"
    try:
        # The mark is no part of the text, whoever names the encoding.
        return marked if marked and codecs.lookup(given).name in ("utf-8", "utf-16") else given
    except LookupError:
        return given
