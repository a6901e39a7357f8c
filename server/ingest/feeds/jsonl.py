"""JSON Lines: an object a line, whose members are the cells."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import msgspec

from server.errors import FeedUnreadable
from server.ingest.feed import Wrong
from server.ingest.feeds import files
from server.ingest.feeds.cells import shown
from server.ingest.feeds.columns import Columns
from server.ingest.feeds.files import opened_text
from server.ingest.feeds.records import Record

_decode = msgspec.json.Decoder().decode


class JsonLines:
    """The objects of a file, one a line. Members may differ from line to line; null is as good as none."""

    def __init__(self, path: Path, encoding: str | None) -> None:
        """Raises FeedUnreadable where the file cannot be of this kind."""
        self._path, self._encoding = path, encoding
        with opened_text(path, encoding) as file:
            first = file.read(1)
        if first == "[":
            raise FeedUnreadable(
                f"{path} is one JSON array. Write an object a line instead, as jq -c '.[]' does: then it need not fit "
                "into memory."
            )

    def records(self, columns: Columns) -> Iterator[Record | Wrong]:
        """A record of each line. Raises FeedUnreadable, at its end where options name what no line has."""
        theirs: set[str] = set()
        ours: set[str] = set()
        any_sound = False
        with opened_text(self._path, self._encoding) as file:
            for number, line in self._lines(file):
                if line is None:
                    yield Wrong(number, f"The line has more than {files.MOST_CHARACTERS:,} characters.")
                    continue
                try:
                    found = _decode(line)
                except (msgspec.DecodeError, UnicodeError, RecursionError) as exc:
                    yield Wrong(number, _reason(exc))
                    continue
                if not isinstance(found, dict):
                    yield Wrong(number, f"The line is no JSON object, but {shown(line.strip())}.")
                    continue
                any_sound = True
                cells: dict[str, Any] = {}
                twice: str | None = None
                for member, value in found.items():
                    name = columns.name_of(member)
                    if len(theirs) <= _MOST_NAMES:
                        theirs.add(member)
                        if name is not None:
                            ours.add(name)
                    if name is None or value is None:
                        continue
                    if name in cells:
                        twice = name
                    cells[name] = value
                yield Record(number, cells) if twice is None else Wrong(number, f"Two members are {twice}.")
        if any_sound and len(theirs) <= _MOST_NAMES:
            columns.check_met(theirs, ours)

    @staticmethod
    def _lines(file: TextIO) -> Iterator[tuple[int, str | None]]:
        """Each line that is not blank, with its number from 1; None in place of one that is too long."""
        number = 0
        while line := file.readline(files.MOST_CHARACTERS):
            number += 1
            if len(line) >= files.MOST_CHARACTERS:
                while line and not line.endswith(("\n", "\r")):
                    line = file.readline(files.MOST_CHARACTERS)
                yield number, None
            elif not line.isspace():
                yield number, line


# Beyond so many names of members, they are values that somebody has made names of.
_MOST_NAMES = 10_000


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeError):
        return "The line has bytes that are no text in UTF-8."
    if isinstance(error, RecursionError):
        return "The line cannot be read as JSON: it is nested too deeply."
    return f"The line cannot be read as JSON: {error}."
