"""PNGs of every kind, written by the specification: Pillow writes few of them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, RGB, INDEXED, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
SAMPLES = {GREY: 1, RGB: 3, INDEXED: 1, GREY_ALPHA: 2, RGB_ALPHA: 4}
KINDS = [
    *((GREY, bits) for bits in (1, 2, 4, 8, 16)),
    *((INDEXED, bits) for bits in (1, 2, 4, 8)),
    *((kind, bits) for kind in (RGB, GREY_ALPHA, RGB_ALPHA) for bits in (8, 16)),
]

# Adam7: first row and column, and the steps to the next.
_PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def chunk(kind: bytes, content: bytes = b"", *, crc: int | None = None) -> bytes:
    """`crc`: in place of the right one."""
    crc = zlib.crc32(kind + content) if crc is None else crc
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)


def header(width: int, height: int, colour: int, bits: int, interlaced: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced))


def rows(samples: NDArray[np.integer[Any]], bits: int) -> bytes:
    """Samples [height, width, channels] as filtered rows; each row's filter is another of the five."""
    if 0 in samples.shape:
        return b""
    if bits < 8:
        digits = np.unpackbits(samples.astype(np.uint8)[..., 0, None], axis=2)[..., 8 - bits :]
        packed = np.packbits(digits.reshape(len(samples), -1), axis=1)
    else:
        flat = samples.reshape(len(samples), -1)
        packed = flat.astype(np.uint8) if bits == 8 else flat.astype(">u2").view(np.uint8)
    step = max(1, samples.shape[2] * bits // 8)
    wide = np.zeros((len(packed) + 1, packed.shape[1] + step), np.int32)
    wide[1:, step:] = packed
    out = []
    for number in range(1, len(wide)):
        row, left = wide[number, step:], wide[number, :-step]
        up, corner = wide[number - 1, step:], wide[number - 1, :-step]
        guess = left + up - corner
        near = np.abs(guess - np.stack([left, up, corner]))
        paeth = np.select([(near[0] <= near[1]) & (near[0] <= near[2]), near[1] <= near[2]], [left, up], corner)
        kind = number % 5
        filtered = row - (0 * row, left, up, (left + up) // 2, paeth)[kind]
        out.append(bytes([kind]) + (filtered % 256).astype(np.uint8).tobytes())
    return b"".join(out)


def pixels(samples: NDArray[np.integer[Any]], bits: int, *, interlaced: bool = False) -> bytes:
    """The bytes that IDAT holds compressed."""
    if not interlaced:
        return rows(samples, bits)
    return b"".join(rows(samples[top::down, left::across], bits) for top, left, down, across in _PASSES)


def png(
    samples: NDArray[np.integer[Any]],
    colour: int,
    bits: int,
    *,
    interlaced: bool = False,
    before: Iterable[bytes] = (),
    behind: Iterable[bytes] = (),
    idats: Sequence[bytes] | None = None,
    end: bytes = chunk(b"IEND"),
) -> bytes:
    """Samples [height, width, channels], each below 2^bits. `before` and `behind` its pixels stand other chunks."""
    height, width = samples.shape[:2]
    if idats is None:
        idats = [chunk(b"IDAT", zlib.compress(pixels(samples, bits, interlaced=interlaced)))]
    parts = [SIGNATURE, header(width, height, colour, bits, int(interlaced)), *before, *idats, *behind, end]
    return b"".join(parts)
