"""The eight ways of EXIF in which a picture may be stored, and where things lie once it stands upright."""

from __future__ import annotations

from PIL import Image

Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""

_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# As each is made of mirroring columns, mirroring rows, and then swapping both.
_MIRRORS_COLUMNS = (2, 3, 7, 8)
_MIRRORS_ROWS = (3, 4, 6, 7)
_SIDEWAYS = (5, 6, 7, 8)
# What turns an upright picture back; all others do so themselves.
_BACK = {6: 8, 8: 6}


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """The picture as it is to be seen."""
    transpose = _TRANSPOSE.get(orientation)
    return image if transpose is None else image.transpose(transpose)  # flipping is 0


def upright_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Width and height of the upright picture, from those as stored."""
    return (size[1], size[0]) if orientation in _SIDEWAYS else size


def upright_box(box: Box, size: tuple[float, float], orientation: int) -> Box:
    """Where in the upright picture a part lies, from where it lies in one that is stored with this width and height."""
    left, top, right, bottom = box
    if orientation in _MIRRORS_COLUMNS:
        left, right = size[0] - right, size[0] - left
    if orientation in _MIRRORS_ROWS:
        top, bottom = size[1] - bottom, size[1] - top
    return (top, left, bottom, right) if orientation in _SIDEWAYS else (left, top, right, bottom)


def stored_box(box: Box, size: tuple[float, float], orientation: int) -> Box:
    """Where in the stored picture a part lies, from where it lies in the upright one of this width and height."""
    return upright_box(box, size, _BACK.get(orientation, orientation))
