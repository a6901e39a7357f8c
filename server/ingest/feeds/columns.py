"""The columns of a feed, and what each of them is here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from server.errors import FeedUnreadable
from server.ingest.feed import FAILED_BECAUSE, FAILED_LINE
from server.ingest.feeds.cells import shown
from server.ingest.feeds.options import FeedOptions

FIELDS = ("productId", "name", "sku", "clientId", "file", "url", "s3Key", "isActive", "attributes")
"""The columns that are no attributes."""

_SEPARATORS = re.compile(r"[ _-]")


def squeezed(name: str) -> str:
    """The name without what people write differently: `Product ID` and `product_id` are productId."""
    return _SEPARATORS.sub("", name).lower()


_BY_SQUEEZED = {squeezed(one): one for one in FIELDS}


class Columns:
    """What the columns of a feed are here, by the options."""

    def __init__(self, options: FeedOptions) -> None:
        """Raises FeedUnreadable where options name a column in two ways."""
        self._map = options.columns
        self._ignored = frozenset(options.ignored)
        if both := sorted(self._ignored & self._map.keys()):
            raise FeedUnreadable(f"--ignore and --map both name the column {shown(both[0])}.")
        self._declared = [
            (flag, name)
            for flag, names in (
                ("--number", options.numbers),
                ("--boolean", options.booleans),
                ("--list", options.lists),
            )
            for name in names
        ]
        for flag, name in self._declared:
            if name in FIELDS:
                raise FeedUnreadable(f"{flag} is for attributes, and {name} is none.")

    def name_of(self, theirs: str) -> str | None:
        """A field, or the name of an attribute; None where the column is not read."""
        if theirs in self._ignored or theirs in (FAILED_LINE, FAILED_BECAUSE):
            return None
        mapped = self._map.get(theirs)
        return mapped if mapped is not None else _BY_SQUEEZED.get(squeezed(theirs), theirs)

    def arranged(self, heading: Sequence[str]) -> list[str | None]:
        """What each column of a heading is. A column without a name is not read. Raises FeedUnreadable."""
        ours: dict[str, str] = {}
        arranged: list[str | None] = []
        for theirs in heading:
            name = self.name_of(theirs) if theirs else None
            if name is not None:
                if name in ours:
                    raise FeedUnreadable(
                        f"Two columns are {name}: {shown(ours[name])} and {shown(theirs)}. Say --ignore COLUMN for "
                        "one, or --map COLUMN=NAME."
                    )
                ours[name] = theirs
            arranged.append(name)
        self.check_met(heading, ours)
        if "productId" not in ours:
            raise FeedUnreadable(
                f"No column is productId. The columns are: {listed(heading)}. Say --map COLUMN=productId for the one "
                "that tells products apart."
            )
        return arranged

    def check_met(self, theirs: Iterable[str], ours: Iterable[str]) -> None:
        """Make sure that each column that an option names was there. Raises FeedUnreadable."""
        there, here = set(theirs), set(ours)
        named = [("--map", one) for one in self._map] + [("--ignore", one) for one in sorted(self._ignored)]
        for flag, name in named:
            if name not in there:
                raise FeedUnreadable(
                    f"{flag} names the column {shown(name)}, which the feed does not have. It has: "
                    f"{listed(sorted(there))}."
                )
        for flag, name in self._declared:
            if name not in here:
                raise FeedUnreadable(
                    f"{flag} names the attribute {shown(name)}, which the feed does not have. It has: "
                    f"{listed(sorted(here - set(FIELDS)))}."
                )


def listed(names: Iterable[str], most: int = 30) -> str:
    """Names for a sentence, not without end."""
    all_of_them = [one for one in names if one]
    return ", ".join(shown(one)[1:-1] for one in all_of_them[:most]) + (", ..." if len(all_of_them) > most else "")
