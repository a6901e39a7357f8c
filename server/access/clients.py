"""Clients and the ids that callers may choose."""

from __future__ import annotations

import re

from server.errors import BadParameter

DEFAULT_CLIENT = "demo"

ID_PATTERN = "[A-Za-z0-9_][A-Za-z0-9._:@-]{0,127}"

_ID = re.compile(ID_PATTERN)


def check_id(what: str, text: str) -> str:
    """An id as callers may choose it, for clients, products and media. Raises BadParameter."""
    if not _ID.fullmatch(text):
        raise BadParameter(
            f"{what} must be 1 to 128 letters, digits or . _ : @ - and start with a letter, a digit or _."
        )
    return text
