"""Samples of other depths brought to 8 bits, and colours divided by their alpha."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# 65535 / 255 = 257: the exact ratio of the two full scales.
FROM_16_BIT = ((np.arange(65536, dtype=np.uint32) + 128) // 257).astype(np.uint8)
"""uint8[65536]: what each sample of 16 bits is in 8."""

_ROWS_AT_ONCE = 64


def scaled(samples: NDArray[Any], most: int) -> NDArray[Any]:
    """Whole numbers from 0 to `most`, to 0 to 255: v * 255 / most, rounded to the nearest, halves up; in the type they
    have, which must hold 511 times `most`."""
    return (samples * 510 + most) // (2 * most)


def straight(colours: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8[height, width, 3] that was multiplied by uint8[height, width], divided by it again: rounded to the nearest,
    halves up; more than the alpha counts as full; black where there is nothing to be seen."""
    out = np.empty_like(colours)
    # By rows: a copy of all samples in wide numbers can be a gigabyte.
    for top in range(0, len(out), _ROWS_AT_ONCE):
        opacity = alpha[top : top + _ROWS_AT_ONCE, :, None].astype(np.uint32)
        part = np.minimum(colours[top : top + _ROWS_AT_ONCE], opacity)
        out[top : top + _ROWS_AT_ONCE] = (part * 510 + opacity) // np.maximum(2 * opacity, 1)
    return out


def eight_bit(samples: NDArray[Any]) -> NDArray[np.uint8]:
    """Wide samples to 8 bits: whole numbers beyond 255 count as 16 bit, fractions as 0 to 1; what is no number as 0."""
    if samples.dtype.itemsize == 2:
        return FROM_16_BIT[samples.astype(np.uint16, copy=False)]
    least, most = (float(np.nan_to_num(bound(samples, axis=None))) for bound in (np.fmin.reduce, np.fmax.reduce))
    scale = 1 / 257 if most > 255 else 255.0 if samples.dtype.kind == "f" and 0 <= least <= most <= 1 else 1.0
    eight = np.empty(samples.shape, np.uint8)
    # By rows: a copy of all samples in wide numbers can be a gigabyte. Some kinds of NaN make numpy warn.
    with np.errstate(invalid="ignore"):
        for row, wide in zip(eight, samples, strict=True):
            row[:] = np.rint(np.clip(np.nan_to_num(wide.astype(np.float64)) * scale, 0, 255))
    return eight
