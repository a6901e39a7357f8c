"""A hostile file, and what several of them are made of."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

SIDE = 8000
"""Pixels a side: squared, as many as a server accepts that is given no other bound."""
UPLOAD = 31_000_000
"""Bytes: about as many as a server takes in that is given no other bound."""


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
    return packed_zeros(million * 1_000_000)


def packed_zeros(count: int) -> bytes:
    """So many bytes of nothing, packed."""
    packer = zlib.compressobj(1)
    parts = [packer.compress(bytes(1_000_000)) for _ in range(count // 1_000_000)]
    return b"".join([*parts, packer.compress(bytes(count % 1_000_000)), packer.flush()])


def box(kind: bytes, *content: bytes) -> bytes:
    """As ISO media files have them."""
    data = b"".join(content)
    return struct.pack(">I", len(data) + 8) + kind + data
