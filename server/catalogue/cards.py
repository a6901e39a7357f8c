"""What a shop's card shows of the product of a match: its SKU, its address, its state and its attributes, as far as a
search names them in its `fields`.

    ["sku", "url", "isActive", "attributes.price", "attributes.brand"]

`attributes` alone is all of them. They can be large (a description, a list of a hundred values), so they are read only
where they are asked for, and of each product at most MOST_BYTES_OF_ATTRIBUTES: the shortest first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from server.errors import BadParameter, FieldHidden

MOST_FIELDS = 50
"""That a search names, or a search key."""

MOST_BYTES_OF_ATTRIBUTES = 16_384
"""That a match shows, counted in JSON: a thousand matches with all they may have make an answer of 16 MB."""

LONGEST_ADDRESS = 2048
"""Characters: what feeds take as well."""

_ALL, _ONE = "attributes", "attributes."

FIELD_PATTERN = r"(?:sku|url|isActive|attributes(?:\.[^\x00]{1,100})?)"

_FIELD = re.compile(FIELD_PATTERN)

# An address without credentials, blanks, controls and backslashes, which readers take for different things.
_ADDRESS = re.compile(r"https?://[^\s\\@/?#]+(?:[/?#][^\s\\]*)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Shown:
    """What matches show of their products beyond the name."""

    sku: bool = False
    url: bool = False
    is_active: bool = False
    all_attributes: bool = False
    attributes: tuple[str, ...] = ()
    """The names of those that are named one by one."""

    @classmethod
    def read(cls, fields: Iterable[str]) -> Shown:
        """What these fields name. Raises BadParameter."""
        named = list(dict.fromkeys(fields))
        if len(named) > MOST_FIELDS:
            raise BadParameter(f"fields: at most {MOST_FIELDS} can be named.")
        for name in named:
            if not _FIELD.fullmatch(name):
                raise BadParameter(
                    f"fields: each is sku, url, isActive, attributes or attributes.NAME, with a name of at most 100 "
                    f"characters. This is none of them: {name[:120]!r}."
                )
        return cls(
            sku="sku" in named,
            url="url" in named,
            is_active="isActive" in named,
            all_attributes=_ALL in named,
            attributes=tuple(name.removeprefix(_ONE) for name in named if name.startswith(_ONE)),
        )

    @property
    def any_attributes(self) -> bool:
        return self.all_attributes or bool(self.attributes)

    @property
    def nothing(self) -> bool:
        return self == NOTHING

    def within(self, allowed: Shown) -> Shown:
        """The same, as far as it is allowed: of all attributes, those that are.

        Raises FieldHidden for what is named and not allowed, and for all attributes where none is.
        """
        for name, asked, given in (
            ("sku", self.sku, allowed.sku),
            ("url", self.url, allowed.url),
            ("isActive", self.is_active, allowed.is_active),
            (_ALL, self.all_attributes, allowed.any_attributes),
            *((f"{_ONE}{name}", True, allowed.shows(name)) for name in self.attributes),
        ):
            if asked and not given:
                raise FieldHidden(name)
        if not self.all_attributes or allowed.all_attributes:
            return self
        return Shown(self.sku, self.url, self.is_active, attributes=allowed.attributes)

    def shows(self, attribute: str) -> bool:
        """Whether the attribute of this name is among what is shown."""
        return self.all_attributes or attribute in self.attributes

    @property
    def parameters(self) -> dict[str, Any]:
        """Those of `card_columns`."""
        return {
            "shows_url": self.url,
            "longest_url": LONGEST_ADDRESS + 1,
            "shows_all": self.all_attributes,
            "shows": list(self.attributes) if self.any_attributes else None,
            "most_bytes": MOST_BYTES_OF_ATTRIBUTES,
        }


NOTHING = Shown()


def address_of(url: str | None) -> str | None:
    """The text where it is an http or https address that a page may link to, else None: never `javascript:`, nor one
    with a user's name in front of the host, which reads as another host."""
    if url is None or len(url) > LONGEST_ADDRESS or not url.isprintable() or not _ADDRESS.fullmatch(url):
        return None
    try:
        return url if urlsplit(url).hostname else None
    except ValueError:  # a host in brackets that is no address
        return None
