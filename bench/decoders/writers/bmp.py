"""BMP, with each of its headers."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.decoders.writers.png import pack

UNCOMPRESSED, RLE8, RLE4, BITFIELDS = 0, 1, 2, 3


def write(
    width: int,
    height: int,
    bits: int,
    body: bytes,
    *,
    compression: int = UNCOMPRESSED,
    palette: Sequence[tuple[int, int, int]] = (),
    masks: Sequence[int] = (),
    version: int = 3,
    used: int | None = None,
) -> bytes:
    """A file of this header `version`: 1 (OS/2's), 3, 4 or 5; height below 0: rows from the top."""
    if version == 1:
        table = b"".join(bytes((b, g, r)) for r, g, b in palette)
        head = struct.pack("<IHHHH", 12, width, height, 1, bits)
    else:
        table = b"".join(bytes((b, g, r, 0)) for r, g, b in palette)
        size = {3: 40, 4: 108, 5: 124}[version]
        count = len(palette) if used is None else used
        head = struct.pack("<IiiHHIIiiII", size, width, height, 1, bits, compression, len(body), 2835, 2835, count, 0)
        head += struct.pack(f"<{len(masks)}I", *masks)
        if version > 3:
            head = head.ljust(56, b"\0") + b"BGRs"  # sRGB
        head = head.ljust(size, b"\0")
    start = 14 + len(head) + len(table)
    return b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + head + table + body


def rows(samples: NDArray[Any], bits: int, *, from_top: bool = False) -> bytes:
    """Palette indexes [H, W], whole pixels of 16 or 32 bits [H, W], or BGR [H, W, 3]; each row padded to 4 bytes."""
    lines = []
    for row in samples if from_top else samples[::-1]:
        if bits == 16:
            line = row.astype("<u2").tobytes()
        elif bits == 32:
            line = row.astype("<u4").tobytes()
        elif bits == 24:
            line = row.astype(np.uint8).tobytes()
        else:
            line = pack(row, bits)
        lines.append(line + bytes(-len(line) % 4))
    return b"".join(lines)


def rle8(indexes: NDArray[np.uint8]) -> bytes:
    """Runs, and literal stretches where nothing repeats."""
    out = bytearray()
    for row in indexes[::-1]:
        values = row.tolist()
        at = 0
        while at < len(values):
            run = 1
            while at + run < len(values) and values[at + run] == values[at] and run < 255:
                run += 1
            if run == 1 and at + 3 <= len(values) and len(set(values[at : at + 3])) == 3:
                out += bytes((0, 3, *values[at : at + 3], 0))
                at += 3
            else:
                out += bytes((run, values[at]))
                at += run
        out += b"\0\0"
    return bytes(out) + b"\0\1"


def rle4(indexes: NDArray[np.uint8]) -> bytes:
    """Pairs of indexes, repeated."""
    out = bytearray()
    for row in indexes[::-1]:
        values = row.tolist()
        for at in range(0, len(values), 2):
            pair = values[at : at + 2]
            out += bytes((len(pair), pair[0] << 4 | (pair[1] if len(pair) == 2 else 0)))
        out += b"\0\0"
    return bytes(out) + b"\0\1"
