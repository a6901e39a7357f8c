"""What the census last counted, for those who look at the server: of the largest clients, and of each space.

One worker of a server counts. Any of them may be asked, so what was counted lies in a folder that they share.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

MOST_CLIENTS = 100
"""Of so many clients, the largest, the sizes are kept."""

_NAME = "tally.json"


class ClientSize(msgspec.Struct, frozen=True, kw_only=True):
    """What a client has."""

    id: str
    products: int
    active_products: int
    media: int


class SpaceSize(msgspec.Struct, frozen=True, kw_only=True):
    """How many vectors a space has; and how many pictures of the catalogue have none there, either because nobody has
    tried to embed them yet, or because that failed. None where nobody waits for them: in a space that is retired."""

    vectors: int
    untried: int | None = None
    failed: int | None = None


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """One count. `at`: when it ended, in seconds since 1970; `clients`: how many have a product."""

    at: float
    clients: int
    largest: tuple[ClientSize, ...]
    """By media, at most `MOST_CLIENTS`."""
    spaces: Mapping[int, SpaceSize]
    """By the number of the space."""


class Tallies:
    """Keeps the newest, and shares it with the other workers."""

    def __init__(self, folder: Path | None = None) -> None:
        """`folder`: that of the workers of one parent, whom alone it belongs to; None for a server without one."""
        self._file = folder / _NAME if folder is not None else None
        self._last: Tally | None = None

    def keep(self, tally: Tally) -> None:
        """Raises OSError where it cannot be written."""
        self._last = tally
        if self._file is None:
            return
        # Whoever reads beside this finds the one before or this one, and never half of it.
        beside = self._file.with_suffix(f".{os.getpid()}")
        beside.write_bytes(msgspec.json.encode(tally))
        beside.replace(self._file)

    def last(self) -> Tally | None:
        """The newest of this server; None before the first. Raises OSError where it cannot be read."""
        if self._file is None:
            return self._last
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=Tally)
        except FileNotFoundError:
            return None
