"""Versions of the readers: whether a picture is read otherwise now than by an earlier version.

A picture's pixels depend on the preprocessing spec, which makes a space of its own, and on the readers of the file
formats, which do not: when a reader is mended, the pictures that it misread have wrong vectors in the same space. So
each vector is stored with the version of the readers, and the servers look again at what an earlier version has read.

Which files those are cannot be told from their rows, and hardly from their headers: it takes a rule for each oddity of
each format, which must never be narrower than the mending. The earlier reader itself says it exactly, and decoding a
picture twice costs far less than embedding it.
"""

from __future__ import annotations

import io
from typing import Final

import numpy as np
from PIL import Image

from server.artifact.artifact import PreprocessingSpec
from server.preprocessing import media
from server.preprocessing.formats import JPEG, TIFF, Format, sniff
from server.preprocessing.stored import Bounds, Stored

READING: Final = 1
"""The version of the readers; 0: all before it. Raise it when a reader gives other pixels for a file that was read
before, and keep here what tells of which files: `read_otherwise` knows what version 0 read, and takes whatever a later
version read for the same as now. Version 0 knew no profiles, and filled no space whose spec asks for them."""

_ORIENTATION_TAG = 0x0112


def read_otherwise(data: bytes, pixels: media.Pixels, spec: PreprocessingSpec, *, since: int, max_pixels: int) -> bool:
    """Whether readers of the version `since` gave other pixels for a picture than `pixels`, what is read now.

    Both are decoded by Pillow, whatever decodes JPEG beside it. True also where they read nothing at all, and of every
    TIFF: too much about it has changed, and its old decoder writes what it does not like to the standard error.
    """
    if since >= READING:
        return False
    if sniff(data) is TIFF:
        return True
    try:
        picture = media.decode(
            data, max_pixels=max_pixels, jpeg_at_least=spec.jpeg_at_least, read=_read_by_0, alpha=spec.alpha
        )
        before = media.to_pixels(picture, spec)
    except MemoryError:
        raise
    except Exception:  # MediaRejected, and whatever else the old reader may raise
        return True
    return not np.array_equal(before, pixels)


def _read_by_0(data: bytes, form: Format, bounds: Bounds) -> Stored:
    """As version 0 read every format: Pillow's own reader, whatever it makes of it."""
    image = Image.open(io.BytesIO(data), formats=("JPEG", "MPO") if form is JPEG else (form.pillow,))
    size = image.size
    bounds.check(*size)
    scale = 1
    if form is JPEG and bounds.jpeg_at_least:
        drafted = image.draft(None, (bounds.jpeg_at_least,) * 2)
        scale = round(size[0] / drafted[1][2]) if drafted else 1
    try:
        orientation = int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # the EXIF is damaged
        orientation = 1
    image.load()
    return Stored(image, size, orientation, scale)
