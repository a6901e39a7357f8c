"""Parquet, read by pyarrow, which need not be installed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

from server.errors import FeedUnreadable
from server.ingest.feed import Wrong
from server.ingest.feeds.records import Record

_ROWS = 1000
"""Rows that are in memory at once."""

_BUFFER = 1024 * 1024


class ParquetFile:
    """The rows of a Parquet file."""

    def __init__(self, path: Path) -> None:
        """Raises FeedUnreadable, also where pyarrow is not installed."""
        self.path = path
        with self._opened() as file:
            schema = file.schema_arrow
            self.heading: list[str] = list(schema.names)
            self._bytes = [one.name for one in schema if _holds_bytes(str(one.type))]

    def records(self, columns: Sequence[str | None]) -> Iterator[Record | Wrong]:
        """A record of each row; its number counts rows from 1. `columns`: the name of each; None: it is not read.

        Raises FeedUnreadable.
        """
        named = {theirs: name for theirs, name in zip(self.heading, columns, strict=True) if name}
        for theirs in self._bytes:
            if theirs in named:
                raise FeedUnreadable(
                    f"The column {theirs} of {self.path} holds bytes, which are no attribute: say --ignore {theirs}."
                )
        number = 0
        with self._opened() as file:
            # One thread, which reads no column ahead: a file may have more in a group of rows than there is memory.
            for batch in file.iter_batches(batch_size=_ROWS, columns=list(named), use_threads=False):
                for row in batch.to_pylist(maps_as_pydicts="lossy"):
                    number += 1
                    cells = {
                        named[theirs]: plain for theirs, value in row.items() if (plain := _plain(value)) is not None
                    }
                    yield Record(number, cells)

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as exc:
            raise FeedUnreadable(
                "Parquet is read by pyarrow, which is not installed: it comes with the extra parquet, as in "
                "pip install --constraint constraints.txt --editable '.[cpu,parquet]'."
            ) from exc
        try:
            with pyarrow.parquet.ParquetFile(self.path, buffer_size=_BUFFER, pre_buffer=False) as file:
                yield file
        except (pyarrow.ArrowException, OSError, UnicodeError) as exc:
            said = " ".join(str(exc).split())[:300].rstrip(".")
            raise FeedUnreadable(f"{self.path} cannot be read as Parquet: {said}.") from exc


def _holds_bytes(kind: str) -> bool:
    return "binary" in kind


def _plain(value: Any) -> Any:
    """The value in JSON's types. What is not a number is nothing, as tables with gaps have it."""
    match value:
        case float():
            return None if math.isnan(value) else value
        case Decimal():
            if not value.is_finite():
                return None
            return int(value) if value == value.to_integral_value() else float(value)
        case datetime() | date() | time():
            return value.isoformat()
        case dict():
            # A struct has all of its members in each row.
            return {name: _plain(one) for name, one in value.items() if one is not None}
        case list():
            return [_plain(one) for one in value]
        case _:
            return value
