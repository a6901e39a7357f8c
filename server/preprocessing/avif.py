"""AVIF: by libavif, through Pillow; turned as its own properties say, and by nothing else.

EXIF and XMP do not turn an AVIF (irot and imir do, and every reader of them agrees), and libavif refuses a picture for
an EXIF that is damaged. So EXIF is hidden from it, and what Pillow then reports as EXIF is what the properties say.
"""

from __future__ import annotations

import re

from PIL import Image

from server.errors import MediaRejected, UnsupportedPicture
from server.preprocessing import cicp, plain
from server.preprocessing.av1 import frame_sizes
from server.preprocessing.formats import Format
from server.preprocessing.heif_file import parse
from server.preprocessing.metadata import exif_orientation
from server.preprocessing.stored import MOST_PROFILE_BYTES, Bounds, Stored

# The entry of an item in the list of items: version, flags, the item's number and protection, its kind.
_EXIF_ITEM = re.compile(rb"(infe(?:\x02.{3}.{2}|\x03.{3}.{4}).{2})Exif", re.DOTALL)
# No reader knows this kind.
_HIDDEN = rb"\1hide"


# What libavif says, where it is not the file that is wrong.
_NOT_DAMAGE = {
    "Not implemented": "This AVIF is of a kind that is not read here; save it as a JPEG, a PNG or a plain AVIF.",
    "Unsupported depth": "This AVIF has a number of bits a sample that is not read here; save it with 8, 10 or 12.",
    "No codec available": "This server lacks a decoder of AV1, which this AVIF needs; send a JPEG or a PNG.",
    "Reformat failed": "This AVIF names its colours in a way that is not read here; save it as a JPEG or a PNG.",
}


def _opened(data: bytes, form: Format) -> Image.Image:
    try:
        return plain.opened(_EXIF_ITEM.sub(_HIDDEN, data), form)
    except RuntimeError as exc:
        raise _named(exc) from exc


def _named(exc: RuntimeError) -> Exception:
    return next((UnsupportedPicture(said) for cause, said in _NOT_DAMAGE.items() if cause in str(exc)), exc)


def measure(data: bytes, form: Format) -> tuple[int, int]:
    """Width and height as stored, from the header alone."""
    return _opened(data, form).size


def read(data: bytes, form: Format, bounds: Bounds) -> Stored:
    """The primary picture, or the first of a sequence. Raises PictureTooLarge before it decodes."""
    image = _opened(data, form)
    bounds.check(*image.size)
    for size in frame_sizes(data):
        bounds.check(*size)
    try:
        image.load()
    except RuntimeError as exc:
        raise _named(exc) from exc
    turned = exif_orientation(image.info.get("exif") or b"") or 1
    return Stored(image, image.size, turned, profile=_profile(image, data))


def _profile(image: Image.Image, data: bytes) -> bytes | None:
    """The ICC profile of a bearable size; else one made by the numbers that name the colours (nclx)."""
    found = plain.profile(image)
    if found is not None:
        return found if len(found) <= MOST_PROFILE_BYTES else None
    try:
        file = parse(data)
        properties = file.item(file.primary).properties
    except MediaRejected:  # a sequence without a still picture, or boxes that only libavif makes sense of
        return None
    nclx = next((content[4:8] for kind, content in properties if kind == b"colr" and content[:4] == b"nclx"), b"")
    return cicp.profile(int.from_bytes(nclx[:2]), int.from_bytes(nclx[2:])) if len(nclx) == 4 else None
