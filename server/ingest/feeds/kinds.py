"""The kinds of files that a feed may be, each the rows of a file in somebody's names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from server.ingest.feed import Row, Wrong
from server.ingest.feeds import google, shopify
from server.ingest.feeds.columns import Columns
from server.ingest.feeds.jsonl import JsonLines
from server.ingest.feeds.manifest import Manifest
from server.ingest.feeds.options import FeedOptions
from server.ingest.feeds.records import Record
from server.ingest.feeds.xml_items import XmlItems


class Table(Protocol):
    """A file whose columns are known before its rows."""

    path: Path
    heading: list[str]

    def records(self, columns: Sequence[str | None]) -> Iterator[Record | Wrong]: ...


class OwnTable:
    """A table in our own columns."""

    def __init__(self, table: Table, options: FeedOptions) -> None:
        """Raises FeedUnreadable."""
        self._table = table
        self._columns = Columns(options).arranged(table.heading)
        self._manifest = Manifest(options, table.path.parent)

    def read(self) -> Iterator[Row | Wrong]:
        return self._manifest.rows(self._table.records(self._columns))

    @property
    def like_numbers(self) -> tuple[str, ...]:
        """As the Manifest's."""
        return self._manifest.like_numbers


class OwnLines:
    """Lines of JSON with our own names."""

    def __init__(self, path: Path, options: FeedOptions) -> None:
        """Raises FeedUnreadable."""
        self._lines = JsonLines(path, options.encoding)
        self._columns = Columns(options)
        self._manifest = Manifest(options, path.parent)

    def read(self) -> Iterator[Row | Wrong]:
        return self._manifest.rows(self._lines.records(self._columns))

    @property
    def like_numbers(self) -> tuple[str, ...]:
        """As the Manifest's."""
        return self._manifest.like_numbers


class ShopifyTable:
    """Shopify's export."""

    def __init__(self, table: Table, options: FeedOptions) -> None:
        """Raises FeedUnreadable."""
        self._table, self._client = table, options.client
        self._columns = shopify.columns(table.heading)

    def read(self) -> Iterator[Row | Wrong]:
        return shopify.rows(self._table.records(self._columns), self._client)


class GoogleTable:
    """Google's feed as a table."""

    def __init__(self, table: Table, options: FeedOptions) -> None:
        """Raises FeedUnreadable."""
        self._table, self._client = table, options.client
        google.check_heading(table.heading)
        # Some attributes may have several columns: here each is called by its place.
        self._keys = [google.key_of(one) for one in table.heading]

    def read(self) -> Iterator[Row | Wrong]:
        records = self._table.records([str(at) for at in range(len(self._keys))])
        return google.rows(map(self._item, records), self._client)

    def _item(self, record: Record | Wrong) -> google.Item | Wrong:
        if isinstance(record, Wrong):
            return record
        texts: dict[str, list[str]] = {}
        for at, cell in record.cells.items():
            texts.setdefault(self._keys[int(at)], []).append(cell)
        return google.Item(record.number, texts)


class GoogleXml:
    """Google's feed as RSS or Atom."""

    def __init__(self, path: Path, options: FeedOptions) -> None:
        self._items, self._client = XmlItems(path), options.client

    def read(self) -> Iterator[Row | Wrong]:
        return google.rows(self._items.items(), self._client)
