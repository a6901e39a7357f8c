"""What HEIF says is to be done to a decoded picture: `clap` cuts, `irot` turns and `imir` mirrors it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction

from PIL import Image

from server.errors import UnreadablePicture
from server.preprocessing.heif_file import Property

Size = tuple[int, int]
"""Width and height."""
TURNS = (b"clap", b"irot", b"imir")


def turned(image: Image.Image, turns: Iterable[Property]) -> Image.Image:
    """The picture with these done to it, one after the other."""
    for kind, content in turns:
        if kind == b"clap":
            image = image.crop(_aperture(content, image.size))
        elif not content:
            raise UnreadablePicture()
        elif kind == b"imir":
            axis = Image.Transpose.FLIP_LEFT_RIGHT if content[0] & 1 else Image.Transpose.FLIP_TOP_BOTTOM
            image = image.transpose(axis)
        elif quarters := content[0] & 3:  # anticlockwise, as Pillow counts
            turn = (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)[quarters - 1]
            image = image.transpose(turn)
    return image


def shown(size: Size, turns: Iterable[Property]) -> Size:
    """What is left of this size."""
    for kind, content in turns:
        if kind == b"clap":
            left, top, right, bottom = _aperture(content, size)
            size = right - left, bottom - top
        elif kind == b"irot" and content[:1] and content[0] & 1:
            size = size[1], size[0]
    return size


def _aperture(content: bytes, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the part that is shown: its size, and how far its middle is from the picture's."""
    if len(content) < 32:
        raise UnreadablePicture()
    numbers = [int.from_bytes(content[at : at + 4], signed=at in (16, 24)) for at in range(0, 32, 4)]
    edges = []
    for whole, side, middle in zip(size, (numbers[:2], numbers[2:4]), (numbers[4:6], numbers[6:]), strict=True):
        if not (side[1] and middle[1]):
            raise UnreadablePicture()
        long = Fraction(*side)
        first = _rounded(Fraction(*middle) + Fraction(whole - 1, 2) - (long - 1) / 2)
        edges.append((max(first, 0), min(_rounded(first + long), whole)))
    (left, right), (top, bottom) = edges
    if left >= right or top >= bottom:
        raise UnreadablePicture()
    return left, top, right, bottom


def _rounded(number: Fraction) -> int:
    return math.floor(number + Fraction(1, 2))
