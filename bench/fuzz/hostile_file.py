"""A hostile file, and what several of them are made of."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

SIDE = 8000
"""Pixels a side: squared, as many as a server accepts that is given no other bound."""


@dataclass(frozen=True, slots=True)
class Hostile:
    """A file, made when asked for: some are large."""

    format: str
    name: str
    make: Callable[[], bytes]

    @property
    def title(self) -> str:
        return f"{self.format}: {self.name}"


@cache
def zeros(million: int) -> bytes:
    """So many megabytes of nothing, packed."""
    packer = zlib.compressobj(1)
    return b"".join([*(packer.compress(bytes(1_000_000)) for _ in range(million)), packer.flush()])
