"""Columns of texts that look like numbers, which nobody said are numbers: whoever brings the feed is told."""

from __future__ import annotations

from typing import Any

from server.ingest.feeds.cells import looks_like_number

_MOST_COLUMNS = 1000  # of which this is found out: lines of JSON may each have names of their own


class LikeNumbers:
    """Which columns have held nothing but numbers, some of them as texts, in all rows so far."""

    def __init__(self, *, decimal_comma: bool) -> None:
        self._decimal_comma = decimal_comma
        self._columns: dict[str, bool] = {}

    def take(self, name: str, value: Any) -> None:
        """A cell that is not empty."""
        if isinstance(value, int | float) and not isinstance(value, bool):
            return
        so_far = self._columns.get(name)
        if so_far is None and len(self._columns) >= _MOST_COLUMNS:
            return
        if so_far is not False:
            self._columns[name] = isinstance(value, str) and looks_like_number(value, decimal_comma=self._decimal_comma)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(sorted(name for name, so in self._columns.items() if so))
