"""Samples of 1 to 15 bits, one close upon another, to numbers; the first one begins at the highest bit of a row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Bytes of packed samples that are worked on at once, so that what is in between stays in the processor's cache.
_AT_ONCE = 1 << 18


def unpacked_bits(raw: NDArray[np.uint8], width: int, samples: int, bits: int, used: Sequence[int]) -> NDArray[Any]:
    """uint8 (up to 8 bits) or uint16 [rows, width, samples] from uint8[rows, bytes]; the samples that are not `used`
    are 0, and cost next to nothing.

    After a few pixels a pixel begins with a byte again. A number at one place in such a group always lies in the same
    one to three bytes, in the same bits: it is put together for all groups at once.
    """
    period = math.lcm(samples * bits, 8)
    size, pixels = period // 8, period // (samples * bits)
    groups = -(-width // pixels)
    out = np.zeros((len(raw), groups, pixels, samples), np.uint8 if bits <= 8 else np.uint16)
    step = max(1, _AT_ONCE // (groups * size))
    for top in range(0, len(raw), step):
        band = raw[top : top + step, : groups * size]
        if band.shape[1] < groups * size:
            band = np.pad(band, ((0, 0), (0, groups * size - band.shape[1])))
        band = band.reshape(-1, size)
        there = out[top : top + step].reshape(-1, pixels, samples)
        for pixel in range(pixels):
            for sample in used:
                there[:, pixel, sample] = _number(band, (pixel * samples + sample) * bits, bits, out.dtype)
    return out.reshape(len(raw), groups * pixels, samples)[:, :width]


def _number(groups: NDArray[np.uint8], at: int, bits: int, kind: np.dtype[Any]) -> NDArray[Any]:
    """The number of so many bits at this bit of every group. What is shifted out at the left is not part of it."""
    first, last = at // 8, (at + bits - 1) // 8
    number = np.zeros(len(groups), kind)
    for place in range(first, last + 1):
        byte, left = groups[:, place].astype(kind), at + bits - 8 * (place + 1)
        if left > 0:
            byte <<= kind.type(left)
        elif left < 0:
            byte >>= kind.type(-left)
        number |= byte
    number &= kind.type((1 << bits) - 1)
    return number
