"""The ids that callers may choose: of clients, and of products and media within a client."""

from __future__ import annotations

import re

from server.errors import BadParameter

DEFAULT_CLIENT = "demo"

ID_PATTERN = "[A-Za-z0-9_][A-Za-z0-9._:@-]{0,127}"
"""What a client's id is, as a regular expression."""

MOST_CHARACTERS_OF_AN_ID = 128
"""Of a product or a media."""

_ID = re.compile(ID_PATTERN)
# Of the ids that the database gives a row where another client's has the one that was chosen: see `id_elsewhere`.
_ELSEWHERE = re.compile(r"~[0-9a-f]{32}$")


def check_id(what: str, text: str) -> str:
    """An id of a client, as callers may choose it. Raises BadParameter."""
    if not _ID.fullmatch(text):
        raise BadParameter(
            f"{what} must be 1 to 128 letters, digits or . _ : @ - and start with a letter, a digit or _."
        )
    return text


def check_item_id(what: str, text: str) -> str:
    """An id of a product or a media, as callers may choose it: whatever their platform has. Raises BadParameter.

    Such as `gid://shopify/Product/1`. Two ids are one only where they are the same code points: nothing is normalised.
    """
    if not 1 <= len(text) <= MOST_CHARACTERS_OF_AN_ID:
        raise BadParameter(f"{what} must have 1 to {MOST_CHARACTERS_OF_AN_ID} characters.")
    # Neither control characters nor such as show nothing, and no lone surrogates. A plain space is printable.
    if not text.isprintable() or text != text.strip():
        raise BadParameter(f"{what} must consist of printable characters, and neither begin nor end with a space.")
    # Programs on the way, and the caller's own, take these out of an address, also where they are percent-encoded.
    if not {".", ".."}.isdisjoint(text.split("/")):
        raise BadParameter(f"{what} must not be . or .., nor have such a part between its slashes.")
    if _ELSEWHERE.search(text):
        raise BadParameter(f"{what} must not end in ~ and 32 hexadecimal digits: the database's own ids do.")
    return text
