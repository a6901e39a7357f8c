"""GIFs of every kind, written by the specification: Pillow writes few of them."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

TRAILER = b";"
Samples = NDArray[np.integer[Any]]


def screen(width: int, height: int, palette: bytes | None = None, *, background: int = 0) -> bytes:
    """`palette`: of a power of two of colours."""
    size = 0 if palette is None else (len(palette) // 3).bit_length() - 2
    flags = 0x70 | (0 if palette is None else 0x80 | size)
    return b"GIF89a" + struct.pack("<HHBBB", width, height, flags, background, 0) + (palette or b"")


def blocks(content: bytes) -> bytes:
    """In sub-blocks of up to 255 bytes, with the empty one that ends them."""
    parts = [content[at : at + 255] for at in range(0, len(content), 255)]
    return b"".join(bytes([len(part)]) + part for part in parts) + b"\0"


def extension(label: int, content: bytes) -> bytes:
    return b"!" + bytes([label]) + blocks(content)


def control(transparent: int | None = None, disposal: int = 0) -> bytes:
    """The graphic control extension, which tells a frame's transparent number."""
    return extension(0xF9, struct.pack("<BHB", disposal << 2 | (transparent is not None), 10, transparent or 0))


def lzw(numbers: Iterable[int], bits: int) -> bytes:
    """Numbers below 2^bits as codes of one width: a clear code comes before the table grows it."""
    clear, width = 1 << bits, bits + 1
    codes = []
    for count, number in enumerate(numbers):
        if count % (clear - 2) == 0:
            codes.append(clear)
        codes.append(int(number))
    total = 0
    for place, code in enumerate([*codes, clear + 1]):
        total |= code << place * width
    return total.to_bytes(((len(codes) + 1) * width + 7) // 8, "little")


def frame(
    samples: Samples,
    *,
    at: tuple[int, int] = (0, 0),
    palette: bytes | None = None,
    interlaced: bool = False,
    bits: int = 8,
) -> bytes:
    """Samples [height, width], each below 2^bits; `palette`: the frame's own."""
    height, width = samples.shape
    size = 0 if palette is None else (len(palette) // 3).bit_length() - 2
    flags = (0 if palette is None else 0x80 | size) | (0x40 if interlaced else 0)
    if interlaced:
        samples = np.concatenate([samples[start::step] for start, step in ((0, 8), (4, 8), (2, 4), (1, 2))])
    place = struct.pack("<HHHHB", *at, width, height, flags)
    return b"," + place + (palette or b"") + bytes([bits]) + blocks(lzw(samples.reshape(-1), bits))
