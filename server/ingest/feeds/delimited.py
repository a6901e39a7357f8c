"""Text files of cells: CSV, TSV, and what Excel calls CSV."""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from server.errors import FeedUnreadable
from server.ingest.feed import Wrong
from server.ingest.feeds import files
from server.ingest.feeds.cells import is_text
from server.ingest.feeds.files import opened_text
from server.ingest.feeds.records import Record

_DELIMITERS = (",", ";", "\t", "|")
_NAMES = {",": "a comma", ";": "a semicolon", "\t": "a tab"}
# Excel begins some files with a line that names the delimiter.
_SEP = re.compile(r'"?sep=(.)"?[\r\n]*', re.IGNORECASE)


# In place of a line that is too long by itself: its rest has been read, and is not kept.
_ENDLESS = "a line without end"


class _TooLong(Exception):
    """A row has more characters than are read."""


class DelimitedFile:
    """The rows of a text file, whose first line names the columns."""

    def __init__(self, path: Path, *, delimiter: str | None, encoding: str | None, preferred: str = ",") -> None:
        """`delimiter`: None: the one that the heading has; `preferred` where that leaves it open.

        Raises FeedUnreadable.
        """
        if delimiter is not None and (len(delimiter) != 1 or delimiter in '\r\n"\0'):
            raise FeedUnreadable("--delimiter is one character, such as ; or a tab.")
        # Ours is the smaller limit, and has a sentence. That of the module holds for the whole process.
        csv.field_size_limit(max(csv.field_size_limit(), 2 * files.MOST_CHARACTERS))
        self.path = path
        self._encoding = encoding
        with opened_text(path, encoding) as file:
            first = file.readline(files.MOST_CHARACTERS)
        # A line that Excel puts before the heading.
        sep = _SEP.fullmatch(first)
        self._before_heading = 1 if sep else 0
        self.delimiter = delimiter or (sep[1] if sep else _delimiter_of(first, preferred))
        with opened_text(path, encoding) as file:
            self.heading = self._heading(file)

    def _heading(self, file: TextIO) -> list[str]:
        _, cells = next(self._rows(file), (0, "There is nothing in it."))
        if isinstance(cells, str):
            raise FeedUnreadable(f"The heading of {self.path} cannot be read. {cells}")
        if any("\0" in one for one in cells):
            raise FeedUnreadable(f"The heading of {self.path} has NUL characters. Is it --encoding utf-16?")
        if not all(map(is_text, cells)):
            raise FeedUnreadable(
                f"The heading of {self.path} has bytes that are no text in UTF-8: name its encoding, such as "
                "--encoding cp1252."
            )
        return [one.strip() for one in cells]

    def records(self, columns: Sequence[str | None]) -> Iterator[Record | Wrong]:
        """A record of each row below the heading, with the cells that are not empty.

        `columns`: the name of each; None: it is not read. Raises FeedUnreadable.
        """
        width = len(columns)
        unnamed = [at for at, name in enumerate(self.heading) if not name]
        with opened_text(self.path, self._encoding) as file:
            rows = self._rows(file)
            next(rows, None)
            for number, cells in rows:
                if isinstance(cells, str):
                    yield Wrong(number, cells)
                elif not any(map(str.strip, cells)):
                    continue  # spreadsheets end with such rows
                elif len(cells) != width:
                    yield Wrong(
                        number,
                        f"The row has {len(cells):,} cells, and the heading has {width:,}. A cell with "
                        f"{_NAMES.get(self.delimiter, self.delimiter)} or a new line in it must be in quotation marks.",
                    )
                elif any(cells[at].strip() for at in unnamed):
                    yield Wrong(number, "A cell stands below no name: its column has an empty heading.")
                else:
                    named = zip(columns, cells, strict=True)
                    yield Record(number, {name: cell for name, cell in named if name and cell})

    def _rows(self, file: TextIO) -> Iterator[tuple[int, list[str] | str]]:
        """The line where a row begins, from 1, and its cells, or why there are none; the heading is the first."""
        lines = _Lines(file)
        for _ in range(self._before_heading):
            next(lines, None)
        # Strict: text after a closing quotation mark, and a mark that nobody closes, are said.
        reader = csv.reader(lines, delimiter=self.delimiter, strict=True, skipinitialspace=self.delimiter != " ")
        while True:
            number = lines.begin()
            try:
                cells = next(reader)
            except StopIteration:
                return
            except (csv.Error, _TooLong) as exc:
                lines.take_back()
                yield number, _reason(exc)
            else:
                if cells:
                    yield number, cells


class _Lines:
    """The lines of a file, of which those of a row that went wrong can be had again."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._number = 0
        self._size = 0
        self._taken: list[str] = []
        self._back: deque[str] = deque()

    def begin(self) -> int:
        """A new row begins with the next line: the number of that line, from 1."""
        self._taken, self._size = [], 0
        return self._number + 1

    def take_back(self) -> None:
        """Give the lines of this row again, but for its first: what went wrong there may have swallowed sound rows."""
        again = self._taken[1:]
        self._back.extendleft(reversed(again))
        self._number -= len(again)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._back.popleft() if self._back else self._file.readline(files.MOST_CHARACTERS)
        if not line:
            raise StopIteration
        self._number += 1
        self._taken.append(line)
        self._size += len(line)
        if line is _ENDLESS or self._size >= files.MOST_CHARACTERS:
            if len(line) >= files.MOST_CHARACTERS:
                while line and not line.endswith(("\n", "\r")):
                    line = self._file.readline(files.MOST_CHARACTERS)
                self._taken[-1] = _ENDLESS
            raise _TooLong
        return line


def _delimiter_of(heading: str, preferred: str) -> str:
    """The delimiter that parts the heading into most columns."""
    candidates = sorted(_DELIMITERS, key=lambda one: one != preferred)
    return max(candidates, key=lambda one: len(next(csv.reader([heading], delimiter=one), [])))


def _reason(error: Exception) -> str:
    if isinstance(error, _TooLong):
        return f"The row has more than {files.MOST_CHARACTERS:,} characters. Is a quotation mark in it never closed?"
    if "unexpected end" in str(error):
        return "A quotation mark opens a cell, and none closes it."
    if "expected after" in str(error):
        return 'There is text after the quotation mark that closes a cell. Within a cell, a mark is written twice: "".'
    return f"The row cannot be read: {error}."
