"""Rows in our own columns, whatever kind of file they come from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from server.errors import BadParameter
from server.ingest.feed import Row, Wrong
from server.ingest.feeds import cells
from server.ingest.feeds.columns import FIELDS
from server.ingest.feeds.like_numbers import LikeNumbers
from server.ingest.feeds.options import FeedOptions
from server.ingest.feeds.records import Record, Records, each

_FIELDS = frozenset(FIELDS)


class Manifest:
    """What records in our own columns say."""

    def __init__(self, options: FeedOptions, folder: Path) -> None:
        """`folder`: where relative files lie."""
        self._client = options.client
        self._folder = folder
        self._comma = comma = options.decimal_comma
        self._like_numbers = LikeNumbers(decimal_comma=comma)
        self._readings: dict[str, Callable[[Any], Any]] = {
            **{name: partial(cells.number_of, name, decimal_comma=comma) for name in options.numbers},
            **{name: partial(cells.boolean_of, name) for name in options.booleans},
            **{name: partial(cells.list_of, separator=separator) for name, separator in options.lists.items()},
        }

    def rows(self, records: Records) -> Iterator[Row | Wrong]:
        self._like_numbers = LikeNumbers(decimal_comma=self._comma)
        return each(records, self._row)

    @property
    def like_numbers(self) -> tuple[str, ...]:
        """The columns of texts that looked like numbers in all rows of the last reading."""
        return self._like_numbers.names

    def _row(self, record: Record) -> Row:
        has = record.cells
        return cells.row_of(
            record.number,
            client_id=cells.text_of("clientId", has.get("clientId")) or self._client,
            product_id=cells.text_of("productId", has.get("productId")),
            name=cells.text_of("name", has.get("name")),
            sku=cells.text_of("sku", has.get("sku")),
            is_active=cells.boolean_of("isActive", has.get("isActive")),
            attributes=self._attributes(record),
            picture=cells.picture_of(
                has.get("file"),
                cells.text_of("url", has.get("url")),
                cells.text_of("s3Key", has.get("s3Key")),
                self._folder,
            ),
        )

    def _attributes(self, record: Record) -> dict[str, Any] | None:
        """Those of columns of their own, and those of the column `attributes`; None where the row names none."""
        found: dict[str, Any] = {}
        for name, value in record.cells.items():
            if name in _FIELDS:
                continue
            reading = self._readings.get(name)
            if reading is not None:
                value = reading(value)
            elif isinstance(value, str):
                value = value.strip()
            if reading is None and value is not None and value != "":
                self._like_numbers.take(name, value)
            if value is not None and value != "":
                found[name] = value
        given = cells.object_of("attributes", record.cells.get("attributes"))
        if given is None:
            return found or None
        if twice := sorted(found.keys() & given.keys()):
            raise BadParameter(f"The attribute {twice[0]} has a column, and is in attributes as well.")
        return {**given, **found}
