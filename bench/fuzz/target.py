"""What each file is put through, in a process of its own: the header alone, the whole, and a thumbnail."""

from __future__ import annotations

import numpy as np

from bench.decoders.case import Samples
from bench.decoders.worker import Refused
from server.errors import MediaRejected
from server.preprocessing import media
from server.preprocessing.formats import JPEG
from server.settings import Settings

MAX_PIXELS = Settings().max_pixels
"""As a server has it that is given no other."""

_AT_LEAST = 448
"""Pixels of a side that a JPEG keeps which is decoded at a scale, as models ask for it."""

_NOTHING = np.empty(0, np.uint8)


def look(data: bytes) -> Samples:
    """Measure, decode and make a thumbnail, as the server does. Gives nothing; raises Refused, or what is a fault."""
    size = None
    refusal = None
    try:
        size = media.measure(data, max_pixels=MAX_PIXELS)
    except MediaRejected as exc:
        refusal = exc
    try:
        picture = media.decode(data, max_pixels=MAX_PIXELS)
        media.thumbnail(picture)  # which converts its colours as well
        if picture.format is JPEG and min(picture.width, picture.height) >= 2 * _AT_LEAST:
            media.decode(data, max_pixels=MAX_PIXELS, jpeg_at_least=_AT_LEAST)
    except MediaRejected as exc:
        raise Refused(f"{exc.code}: {exc.sentence}") from (refusal or exc)
    if size is not None and sorted(size) != sorted((picture.width, picture.height)):
        raise ValueError(f"measured as {size}, decoded as {picture.width} x {picture.height}")
    return _NOTHING
