"""What the tests of the client library share."""

from __future__ import annotations

from typing import NamedTuple

from tests import DEMO_PICTURES

ABACUS, KEYBOARD, VIOLIN = (DEMO_PICTURES / f"{name}.webp" for name in ("abacus", "keyboard", "violin"))


class Served(NamedTuple):
    """A running server, and keys of it."""

    url: str
    admin: str
    search: str
    """Of the client acme, and good for nothing but searches."""
