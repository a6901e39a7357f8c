"""A folder of pictures, of which each belongs to the product that its path names."""

from __future__ import annotations

import itertools
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from server.errors import BadParameter, FeedUnreadable, MediaRejected
from server.ingest.feed import FileOf, Row, Wrong
from server.ingest.feeds.cells import is_text, shown
from server.ingest.feeds.pattern import Pattern
from server.preprocessing.formats import sniff

EXTENSIONS = frozenset(
    f".{one}"
    for one in "jpg jpeg jpe jfif png webp gif bmp dib tif tiff avif heic heif".split()  # noqa: SIM905 - to be read
)
"""Of pictures. A file with one of them is taken without a look; whether it is one is found when it is decoded."""

HEAD = 4096
"""Bytes of a file that show whether it is a picture."""

# Names of one folder that are sorted in memory; more of them are sorted on the disk.
_MOST_NAMES = 100_000

_LITTER = frozenset(("thumbs.db", "desktop.ini", "__macosx"))


def is_litter(name: str) -> bool:
    """Whether a file or folder is hidden, or one of those that systems leave behind."""
    return name.startswith(".") or name.lower() in _LITTER


def is_picture(head: bytes) -> bool:
    """Whether these first bytes of a file are those of a picture of a format that is read here."""
    try:
        sniff(head)
    except MediaRejected:
        return False
    return True


@dataclass
class Looked:
    """What was seen on the way."""

    passed_over: int = 0
    """Files that are no pictures, by their content. Hidden ones are not counted."""
    examples: tuple[str, ...] = ()

    def pass_over(self, name: str) -> None:
        self.passed_over += 1
        if len(self.examples) < 3:
            self.examples += (name,)


class FolderFeed:
    """The pictures below a folder, in the order of their paths."""

    def __init__(self, folder: Path, client: str, pattern: Pattern) -> None:
        self._folder, self._client, self._pattern = folder, client, pattern
        self.looked = Looked()
        """Of the last reading."""

    def read(self) -> Iterator[Row | Wrong]:
        """Raises FeedUnreadable."""
        self.looked = looked = Looked()
        number = 0
        for found in self._files(self._folder, "", ()):
            if isinstance(found, str):
                number += 1
                yield Wrong(number, found)
                continue
            path, place = found
            try:
                if not is_text(place):
                    number += 1
                    yield Wrong(number, f"{shown(place)}: The name holds bytes that are no text in UTF-8.")
                    continue
                if not self._wanted(path):
                    looked.pass_over(place)
                    continue
                number += 1
                yield self._pattern.row(number, place, FileOf(path), self._client)
            except BadParameter as exc:
                yield Wrong(number, f"{shown(place)}: {exc.sentence}")
            except OSError as exc:
                number += 1
                yield Wrong(number, f"{shown(place)} cannot be read: {exc.strerror}.")

    @staticmethod
    def _wanted(path: Path) -> bool:
        if path.suffix.lower() in EXTENSIONS:
            return True
        with path.open("rb") as file:
            return is_picture(file.read(HEAD))

    def _files(self, folder: Path, place: str, above: tuple[tuple[int, int], ...]) -> Iterator[tuple[Path, str] | str]:
        """Each file with its path from the source's folder; a sentence for a folder that cannot be read.

        `above`: which folders led here, so that a link to one of them does not go round for ever.
        """
        try:
            state = folder.stat()
            here = (state.st_dev, state.st_ino)
            if here in above:
                yield f"{shown(place)} is a link to a folder that it lies in."
                return
            names = iter_sorted(folder)
            for name in names:
                path, inner = folder / name, f"{place}/{name}" if place else name
                if is_litter(name):
                    continue
                if path.is_dir():
                    yield from self._files(path, inner, (*above, here))
                elif path.is_file() or path.is_symlink():
                    yield path, inner
        except OSError as exc:
            if not place:
                raise FeedUnreadable(f"{folder} cannot be read: {exc.strerror}.") from exc
            yield f"{shown(place)} cannot be read: {exc.strerror}."


def iter_sorted(folder: Path) -> Iterator[str]:
    """The names in a folder, by their bytes. Raises OSError."""
    with os.scandir(folder) as entries:
        names = (os.fsencode(entry.name) for entry in entries)
        some = list(itertools.islice(names, _MOST_NAMES))
        if len(some) < _MOST_NAMES:
            yield from map(os.fsdecode, sorted(some))
            return
        # A file of its own that is gone with the connection; SQLite keeps a few of its pages in memory.
        sorting = sqlite3.connect("")
        try:
            sorting.execute("CREATE TABLE names (name BLOB PRIMARY KEY) WITHOUT ROWID")
            every = itertools.chain(some, names)
            sorting.executemany("INSERT INTO names VALUES (?)", ((name,) for name in every))
            del some
            for (name,) in sorting.execute("SELECT name FROM names ORDER BY name"):
                yield os.fsdecode(name)
        finally:
            sorting.close()
