"""The items of an RSS or Atom feed, one after the other, whatever the size of the file."""

from __future__ import annotations

import xml.parsers.expat as expat
from collections.abc import Iterator
from pathlib import Path

from server.errors import FeedUnreadable
from server.ingest.feeds import files
from server.ingest.feeds.files import opened
from server.ingest.feeds.google import Item, key_of

_PIECE = 64 * 1024
_ROOTS = ("rss", "feed", "rdf")
_ITEMS = ("item", "entry")
_GOOGLE = "http://base.google.com/ns/1.0"


def is_xml(path: Path) -> bool:
    """Whether a file begins as XML does. Raises FeedUnreadable."""
    with opened(path) as file:
        return file.read(200).lstrip(b"\xef\xbb\xbf\xff\xfe\0 \t\r\n").startswith(b"<")


class XmlItems:
    """The items of a file of Google's RSS 2.0, RSS 1.0 or Atom."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def items(self) -> Iterator[Item]:
        """Each item, whose number is the line where it begins. Raises FeedUnreadable."""
        reader = _Reader()
        with opened(self._path) as file:
            try:
                while True:
                    piece = file.read(_PIECE)
                    reader.parse(piece)
                    yield from reader.take()
                    if not piece:
                        return
            except expat.ExpatError as exc:
                raise FeedUnreadable(
                    f"{self._path} is not well-formed XML, in line {exc.lineno:,}: {expat.ErrorString(exc.code)}."
                ) from exc
            except _Refused as exc:
                raise FeedUnreadable(f"{self._path} cannot be read, in line {reader.line:,}: {exc}") from exc


class _Refused(Exception):
    """Why the XML is not read further."""


class _Reader:
    """Turns pieces of XML into items."""

    def __init__(self) -> None:
        self._parser = expat.ParserCreate(namespace_separator=" ")
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._text
        self._parser.StartDoctypeDeclHandler = self._doctype
        self._parsed = 0
        self._depth = 0
        self._done: list[Item] = []
        self._item: tuple[int, int] | None = None
        """The depth of the item that is being read, and the line where it begins."""
        self._own: dict[str, list[str]] = {}
        self._others: dict[str, list[str]] = {}
        self._parts: list[str] = []
        self._size = 0

    @property
    def line(self) -> int:
        return self._parser.CurrentLineNumber

    def parse(self, piece: bytes) -> None:
        """The next bytes; none at the end. Raises ExpatError, _Refused."""
        self._parsed += len(piece)
        self._parser.Parse(piece, not piece)
        if self._parsed - self._parser.CurrentByteIndex > files.MOST_CHARACTERS:
            raise _Refused("a tag has no end.")  # expat keeps what it cannot finish

    def take(self) -> list[Item]:
        done, self._done = self._done, []
        return done

    def _doctype(self, *_: object) -> None:
        raise _Refused("it has a document type (<!DOCTYPE), which may define entities and is not read here.")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        local = name.rpartition(" ")[2]
        if self._depth == 1 and local.lower() not in _ROOTS:
            raise _Refused(f"<{local[:60]}> is neither RSS nor Atom.")
        if self._item is None:
            if local in _ITEMS:
                self._item = (self._depth, self.line)
                self._own, self._others, self._size = {}, {}, 0
        elif self._depth == self._item[0] + 1:
            self._parts = []

    def _text(self, text: str) -> None:
        # Elements within those of an item, such as prices of shipping, are not read.
        if self._item is not None and self._depth == self._item[0] + 1:
            self._size += len(text)
            if self._size > files.MOST_CHARACTERS:
                raise _Refused(f"an item has more than {files.MOST_CHARACTERS:,} characters.")
            self._parts.append(text)

    def _end(self, name: str) -> None:
        if self._item is not None:
            depth, line = self._item
            if self._depth == depth + 1:
                space, _, local = name.rpartition(" ")
                texts = self._own if space.rstrip("/") == _GOOGLE else self._others
                texts.setdefault(key_of(local), []).append("".join(self._parts))
            elif self._depth == depth:
                # Atom's own id is an address; Google's, where there is one, is the product's.
                self._done.append(Item(line, {**self._others, **self._own}))
                self._item = None
        self._depth -= 1
