"""How a feed is to be read, as its caller chooses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from server.access.clients import DEFAULT_CLIENT
from server.errors import FeedUnreadable

Format = Literal["csv", "tsv", "jsonl", "parquet", "shopify", "google"]
FORMATS: tuple[Format, ...] = ("csv", "tsv", "jsonl", "parquet", "shopify", "google")

COMMA = ","


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedOptions:
    """How a feed is to be read. In names, the flags that say so."""

    client: str = DEFAULT_CLIENT
    """`--client`: whose a product is where its row does not say."""
    format: Format | None = None
    """`--format`: of a file; None: by its name and its heading."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """`--map theirs=ours`: the field, or the attribute, that a column is."""
    ignored: Sequence[str] = ()
    """`--ignore COLUMN`: columns that are not read, by the name that the feed gives them."""
    numbers: Sequence[str] = ()
    """`--number NAME`: attributes whose texts are numbers, by the name that they have here, after `--map`."""
    booleans: Sequence[str] = ()
    """`--boolean NAME`: attributes whose texts are true or false."""
    lists: Mapping[str, str] = field(default_factory=dict)
    """`--list NAME` or `--list NAME=SEPARATOR`: attributes whose texts are lists, and what stands between values."""
    decimal_comma: bool = False
    """`--decimal-comma`: in texts that are numbers, 1.234,50 is what is 1234.5 elsewhere."""
    delimiter: str | None = None
    """`--delimiter`: what stands between the cells of a text file, one character; None: what its heading shows."""
    encoding: str | None = None
    """`--encoding`: of a text file, as Python names it; None: UTF-8, or UTF-16 that begins with a mark."""
    pattern: str | None = None
    """`--pattern`: how the names of pictures in a folder or bucket are made up; see pattern.py."""


def columns_of(texts: Iterable[str]) -> dict[str, str]:
    """`--map` as it was given, `theirs=ours` each. Raises FeedUnreadable."""
    columns: dict[str, str] = {}
    for text in texts:
        # Theirs may contain the sign, ours hardly.
        theirs, _, ours = text.rpartition("=")
        theirs, ours = theirs.strip(), ours.strip()
        if not theirs or not ours:
            raise FeedUnreadable(f"--map {text!r} is not of the form THEIRS=OURS, such as --map Preis=price.")
        if theirs in columns:
            raise FeedUnreadable(f"--map names the column {theirs!r} twice.")
        columns[theirs] = ours
    return columns


def lists_of(texts: Iterable[str]) -> dict[str, str]:
    """`--list` as it was given, `NAME` or `NAME=SEPARATOR` each. Raises FeedUnreadable."""
    lists: dict[str, str] = {}
    for text in texts:
        name, sign, separator = text.partition("=")
        if not name.strip() or (sign and not separator):
            raise FeedUnreadable(f"--list {text!r} is not of the form NAME or NAME=SEPARATOR, such as --list tags=|.")
        lists[name.strip()] = separator or COMMA
    return lists
