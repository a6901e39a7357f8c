"""AVIF: by libavif, through Pillow; turned as its own properties say, and by nothing else.

EXIF and XMP do not turn an AVIF (irot and imir do, and every reader of them agrees), and libavif refuses a picture for
an EXIF that is damaged. So EXIF is hidden from it, and what Pillow then reports as EXIF is what the properties say.
"""

from __future__ import annotations

import re

from PIL import Image

from server.preprocessing import plain
from server.preprocessing.av1 import frame_sizes
from server.preprocessing.formats import Format
from server.preprocessing.metadata import exif_orientation
from server.preprocessing.stored import Bounds, Stored

# The entry of an item in the list of items: version, flags, the item's number and protection, its kind.
_EXIF_ITEM = re.compile(rb"(infe(?:\x02.{3}.{2}|\x03.{3}.{4}).{2})Exif", re.DOTALL)
# No reader knows this kind.
_HIDDEN = rb"\1hide"
_LONGEST_PROFILE = 4 << 20


def _opened(data: bytes, form: Format) -> Image.Image:
    return plain.opened(_EXIF_ITEM.sub(_HIDDEN, data), form)


def measure(data: bytes, form: Format) -> tuple[int, int]:
    """Width and height as stored, from the header alone."""
    return _opened(data, form).size


def read(data: bytes, form: Format, bounds: Bounds) -> Stored:
    """The primary picture, or the first of a sequence. Raises PictureTooLarge before it decodes."""
    image = _opened(data, form)
    bounds.check(*image.size)
    for size in frame_sizes(data):
        bounds.check(*size)
    image.load()
    turned = exif_orientation(image.info.get("exif") or b"") or 1
    profile = plain.profile(image)
    if profile is not None and len(profile) > _LONGEST_PROFILE:
        profile = None
    return Stored(image, image.size, turned, profile=profile)
