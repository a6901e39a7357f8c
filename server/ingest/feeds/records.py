"""What readers of files hand on: a record is a row whose cells have names and no meaning yet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from server.errors import BadParameter
from server.ingest.feed import Row, Wrong


@dataclass(frozen=True, slots=True)
class Record:
    """The cells of a row that hold something, by the name of their column."""

    number: int
    """As that of the Row that it becomes."""
    cells: Mapping[str, Any]


Records = Iterable[Record | Wrong]


def each(records: Records, row_of: Callable[[Record], Row]) -> Iterator[Row | Wrong]:
    """A row of each record. `row_of` raises BadParameter with the reason why there is none."""
    for record in records:
        if isinstance(record, Wrong):
            yield record
            continue
        try:
            yield row_of(record)
        except BadParameter as exc:
            yield Wrong(record.number, exc.sentence)
