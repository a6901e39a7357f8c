"""A part of a picture, by fractions of its sides: what of it is meant, whatever size it has."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from server.errors import BadParameter

LEAST_SIDE = 1e-6
"""Of a region, where the picture's side is 1."""

# Of a pixel: a caller who divides by the picture's width, or rounds to six digits, still means that very pixel. So
# fractions of six digits are exact in pictures of up to 20,000 pixels a side.
_SLACK = 0.01


@dataclass(frozen=True, slots=True)
class Region:
    """A part of an upright picture: fractions of its width (`left`, `right`) and height (`top`, `bottom`), from its
    upper left corner. A part that is all of the picture is None instead: see `region_of`."""

    left: float
    top: float
    right: float
    bottom: float

    def pixels(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Left, top, right and bottom in an upright picture of this size, in whole pixels: all that the region touches.

        Left and top are rounded down, right and bottom up, but for less than a hundredth of a pixel. It is at least one
        pixel wide and high, and lies within the picture.
        """
        left, right = _whole(self.left, self.right, width)
        top, bottom = _whole(self.top, self.bottom, height)
        return left, top, right, bottom

    @property
    def key(self) -> bytes:
        """Tells it from every other region: 32 bytes."""
        return struct.pack("<4d", self.left, self.top, self.right, self.bottom)


def _whole(low: float, high: float, length: int) -> tuple[int, int]:
    """The first pixel of `length`, and the one behind the last."""
    first = min(math.floor(low * length + _SLACK), length - 1)
    return first, min(max(math.ceil(high * length - _SLACK), first + 1), length)


def region_of(crop: Sequence[float], name: str = "crop") -> Region | None:
    """Of `[left, top, right, bottom]`; None where that is the whole picture.

    `name`: what the caller calls it. Raises BadParameter.
    """
    if len(crop) != 4:
        raise BadParameter(f"{name} needs four numbers: left, top, right, bottom. It has {len(crop)}.")
    # Not by their negation: of NaN every comparison is false.
    if not all(0 <= one <= 1 for one in crop):
        raise BadParameter(
            f"{name}: left, top, right and bottom are fractions of the upright picture's sides, so each is from 0 to 1."
        )
    left, top, right, bottom = (float(one) + 0.0 for one in crop)  # -0 becomes 0
    for (low, near), (high, far) in ((("left", left), ("right", right)), (("top", top), ("bottom", bottom))):
        if near >= far:
            raise BadParameter(f"{name}: {low} must be less than {high}, and is {near:g} beside {far:g}.")
        if far - near < LEAST_SIDE:
            raise BadParameter(f"{name}: {low} and {high} are less than a millionth of the picture apart.")
    whole = (left, top, right, bottom) == (0, 0, 1, 1)
    return None if whole else Region(left, top, right, bottom)
