"""What a shop sends: rows of a feed, each a product with at most one picture, and the lines that are wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

FAILED_LINE, FAILED_BECAUSE = "failedLine", "failedBecause"
"""Columns of a feed of rows that failed: which line it was, and why. They are no attributes."""


@dataclass(frozen=True, slots=True)
class FileOf:
    """A picture that is a file of this machine."""

    path: Path


@dataclass(frozen=True, slots=True)
class UrlOf:
    """A picture that is fetched by http or https."""

    url: str


@dataclass(frozen=True, slots=True)
class KeyOf:
    """A picture that is an object of the bucket that the source names, or of the media store where it names none."""

    key: str


PictureOf = FileOf | UrlOf | KeyOf


@dataclass(frozen=True, slots=True)
class Row:
    """One row: a product, and one of its pictures. Several rows of a product name several pictures of it.

    What is None is not said by the row, and stays as it is where the product exists.
    """

    number: int
    """The line where the row begins, from 1, the heading included; in a folder or bucket: its place in the listing."""
    client_id: str
    product_id: str
    name: str | None = None
    sku: str | None = None
    is_active: bool | None = None
    attributes: Mapping[str, Any] | None = None
    picture: PictureOf | None = None


@dataclass(frozen=True, slots=True)
class Wrong:
    """A line that is no row, and why, in a sentence."""

    number: int
    reason: str


class Feed(Protocol):
    """The rows of one source, read with bounded memory. It can be read more than once, with the same result."""

    def read(self) -> Iterator[Row | Wrong]:
        """Raises FeedUnreadable where the source as a whole cannot be read."""
        ...
