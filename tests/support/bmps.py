"""BMPs of every kind, written by the specification: Pillow writes few of them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.integer[Any]]

RAW, RLE8, RLE4, BITFIELDS, JPEG, PNG, ALPHA_BITFIELDS = range(7)


def packed(values: Samples, bits: int, *, top_down: bool = False) -> bytes:
    """Whole pixels [height, width] of 1 to 32 bits as rows of whole words, the last row first."""
    rows = values if top_down else values[::-1]
    if bits < 8:
        digits = np.unpackbits(rows.astype(np.uint8)[..., None], axis=2)[..., 8 - bits :]
        raw = np.packbits(digits.reshape(len(rows), -1), axis=1)
    else:
        raw = rows.astype("<u4").view(np.uint8).reshape(*rows.shape, 4)[..., : bits // 8].reshape(len(rows), -1)
    return np.pad(raw, ((0, 0), (0, -raw.shape[1] % 4))).tobytes()


def bmp(
    size: tuple[int, int],
    bits: int,
    pixels: bytes,
    *,
    header: int = 40,
    compression: int = RAW,
    palette: bytes = b"",
    colours: int | None = None,
    masks: Sequence[int] = (),
    offset: int | None = None,
) -> bytes:
    """`palette`: 4 bytes a colour, 3 with a header of 12. `masks`: inside a header of 52 and more, else behind it.

    `colours` and `offset`: what the file says, in place of the truth.
    """
    width, height = size
    if header == 12:
        info = struct.pack("<IHHHH", 12, width, height, 1, bits)
    else:
        count = len(palette) // 4 if colours is None else colours
        info = struct.pack(
            "<IiiHHIIiiII", header, width, height, 1, bits, compression, len(pixels), 2835, 2835, count, 0
        )
        fields = struct.pack(f"<{len(masks)}I", *masks)
        info = (info + fields).ljust(header, b"\0") if header > 40 else info[:header] + fields
    start = 14 + len(info) + len(palette)
    file = struct.pack("<2sIHHI", b"BM", start + len(pixels), 0, 0, start if offset is None else offset)
    return file + info + palette + pixels
