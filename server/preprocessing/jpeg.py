"""JPEG: decoded at a scale where the spec allows it."""

from __future__ import annotations

import io
import re

from PIL import Image

from server.errors import UnreadablePicture
from server.preprocessing import plain
from server.preprocessing.formats import Format
from server.preprocessing.stored import Bounds, Stored

# A progressive JPEG has about ten scans. One with thousands, of a few bytes each, would keep a decoder busy for hours.
_MOST_SCANS = 100
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def _opened(data: bytes) -> Image.Image:
    # A phone's multi-picture JPEG is opened as its first picture.
    return Image.open(io.BytesIO(data), formats=("JPEG", "MPO"))


def measure(data: bytes, _form: Format) -> tuple[int, int]:
    """Width and height as stored and in full, from the header alone."""
    return _opened(data).size


def read(data: bytes, _form: Format, bounds: Bounds) -> Stored:
    """Raises PictureTooLarge before it decodes, UnreadablePicture, and whatever Pillow raises for damage."""
    if _scans(data) > _MOST_SCANS:
        raise UnreadablePicture("The JPEG has more scans than any camera or program writes.")
    image = _opened(data)
    size = image.size
    bounds.check(*size)
    scale = _scaled(image, bounds.jpeg_at_least) if bounds.jpeg_at_least else 1
    about = (size, plain.orientation(image), scale, plain.profile(image))
    if bounds.read_jpeg is not None and scale == 1 and image.mode == "RGB":
        return Stored(bounds.read_jpeg(data), *about)
    image.load()
    return Stored(image, *about)


def _scans(data: bytes) -> int:
    """How many scans the first picture of a JPEG has: each costs a pass over all its pixels.

    A marker other than 00 (a stuffed byte), D0 to D7 (restarts) and FF (fill) ends the entropy-coded data.
    """
    scans, at = 0, 2
    while (found := _MARKER.search(data, at)) and found[0] != b"\xff\xd9":
        at = found.end()
        if found[0] == b"\xff\xda":
            scans += 1
        if found[0] != b"\xff\x01" and len(data) >= at + 2:
            at += int.from_bytes(data[at : at + 2])
    return scans


def _scaled(image: Image.Image, at_least: int) -> int:
    """Have a JPEG's decoder leave out what a smaller picture does not show; 1, 2, 4 or 8: the divisor of its size."""
    width = image.width
    drafted = image.draft(None, (at_least, at_least))  # no mode: the colours stay as they are
    return round(width / drafted[1][2]) if drafted else 1
