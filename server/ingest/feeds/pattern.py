"""How the names of pictures are made up, and which product each belongs to."""

from __future__ import annotations

import re
from typing import Any

from server.errors import BadParameter, FeedUnreadable
from server.ingest.feed import PictureOf, Row
from server.ingest.feeds import cells
from server.ingest.feeds.cells import shown

_PIECES = re.compile(r"\{(\w+)\}|(\*\*/|\*)|([^{}*]+)|(.)", re.DOTALL)
_GROUP = re.compile(r"[^\W\d]\w*")
_EXTENSION = re.compile(r"\.\w{1,5}")

_OWN = ("productId", "clientId", "name", "sku")
_COUNTER = "n"


class Pattern:
    """Finds the product of a picture in its path.

    Without a pattern, the product is the first folder on the way to the picture, or the picture's name without its
    extension where it lies in no folder.

    A pattern has placeholders in braces: {productId}, {clientId}, {name} and {sku}; {n} for a number that means
    nothing; and any other name for an attribute. `*` is anything. It describes the name of a file, in whichever folder,
    unless it has a slash: then the whole path below the source. An extension may be left out, and then any will do.

    A pattern with `(?P<` in it is a regular expression of Python's, with groups of these names, for the whole path.
    """

    def __init__(self, text: str | None) -> None:
        """Raises FeedUnreadable for a pattern that makes no sense."""
        self._text = text
        self._names_only = False
        self._stems = False
        self._expression: re.Pattern[str] | None = None
        if text is None:
            return
        try:
            if "(?P<" in text:
                self._expression = re.compile(text)
            else:
                self._names_only = "/" not in text
                self._stems = _EXTENSION.search(text.rpartition("/")[2].rpartition("}")[2]) is None
                self._expression = re.compile(_translated(text), re.IGNORECASE)
        except re.error as exc:
            raise FeedUnreadable(f"--pattern {shown(text)} cannot be read: {exc}.") from exc
        if "productId" not in self._expression.groupindex:
            raise FeedUnreadable(f"--pattern {shown(text)} does not say where {{productId}} is.")

    def row(self, number: int, place: str, picture: PictureOf, client: str) -> Row:
        """The row of a picture. `place`: its path below the source, with slashes. Raises BadParameter."""
        found = self._found(place)
        own = {one: found.pop(one, None) for one in _OWN}
        found.pop(_COUNTER, None)
        return cells.row_of(
            number,
            client_id=own["clientId"] or client,
            product_id=own["productId"],
            name=own["name"],
            sku=own["sku"],
            attributes=found or None,
            picture=picture,
        )

    def _found(self, place: str) -> dict[str, Any]:
        if self._expression is None:
            folder, slash, _ = place.partition("/")
            return {"productId": folder if slash else _stem(place)}
        text = place.rpartition("/")[2] if self._names_only else place
        if self._stems:
            above, slash, name = text.rpartition("/")
            text = f"{above}{slash}{_stem(name)}"
        match = self._expression.fullmatch(text)
        if match is None:
            raise BadParameter(f"The name does not fit the pattern {self._text}.")
        return {name: value for name, value in match.groupdict().items() if value}


def _stem(name: str) -> str:
    stem, dot, _ = name.rpartition(".")
    return stem if dot and stem else name


def _translated(text: str) -> str:
    """The regular expression of a pattern with placeholders. Raises FeedUnreadable."""
    parts: list[str] = []
    seen: set[str] = set()
    for placeholder, star, plain, odd in _PIECES.findall(text):
        if odd:
            raise FeedUnreadable(f"--pattern {shown(text)} has {odd} that belongs to no placeholder such as {{n}}.")
        if plain:
            parts.append(re.escape(plain))
        elif star:
            parts.append("(?:.*/)?" if star == "**/" else "[^/]*")
        elif not _GROUP.fullmatch(placeholder):
            raise FeedUnreadable(f"--pattern {shown(text)}: a placeholder begins with a letter, unlike {placeholder}.")
        elif placeholder in seen:
            parts.append(f"(?P={placeholder})")
        else:
            seen.add(placeholder)
            parts.append(f"(?P<{placeholder}>{'[0-9]+' if placeholder == _COUNTER else '[^/]+'})")
    return "".join(parts)
