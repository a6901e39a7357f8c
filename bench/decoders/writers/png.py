"""PNG, of every colour type and depth."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
# Adam7: first row, first column, step of rows, step of columns.
_PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def chunk(kind: bytes, data: bytes = b"", *, crc_off_by: int = 0) -> bytes:
    crc = zlib.crc32(kind + data) ^ crc_off_by
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)


def header(width: int, height: int, bits: int, colours: int, interlaced: bool = False) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, interlaced))


def write(
    samples: NDArray[np.uint32] | NDArray[np.uint8],
    bits: int,
    colours: int,
    *,
    interlaced: bool = False,
    before: bytes = b"",
    palette: Sequence[tuple[int, int, int]] = (),
    middle: bytes = b"",
    after: bytes = b"",
    end: bytes | None = None,
    pieces: int = 1,
) -> bytes:
    """Whole numbers [H, W] or [H, W, C]; chunks `before` the palette, in the `middle` before the pixels, `after` them.

    `end`: what stands in place of IEND. `pieces`: so many IDAT chunks.
    """
    height, width = samples.shape[:2]
    if interlaced:
        parts = [samples[y::down, x::across] for y, x, down, across in _PASSES]
        rows = b"".join(_rows(part, bits) for part in parts if part.size)
    else:
        rows = _rows(samples, bits)
    body = zlib.compress(rows)
    step = -(-len(body) // pieces)
    data = b"".join(chunk(b"IDAT", body[start : start + step]) for start in range(0, len(body), step))
    plte = chunk(b"PLTE", b"".join(bytes(colour) for colour in palette)) if palette else b""
    stop = chunk(b"IEND") if end is None else end
    return SIGNATURE + header(width, height, bits, colours, interlaced) + before + plte + middle + data + after + stop


def _rows(samples: NDArray[np.uint32] | NDArray[np.uint8], bits: int) -> bytes:
    return b"".join(b"\0" + pack(row.reshape(-1), bits) for row in samples)


def pack(row: NDArray[np.uint32] | NDArray[np.uint8], bits: int) -> bytes:
    """A row of samples: 1, 2, 4 or 12 bits from the left, 16 bits big-endian."""
    if bits == 8:
        return row.astype(np.uint8).tobytes()
    if bits == 16:
        return row.astype(">u2").tobytes()
    digits = (row[:, None].astype(np.uint32) >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(digits.astype(np.uint8).reshape(-1)).tobytes()
