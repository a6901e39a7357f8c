"""JPEG: decoded at a scale where the spec allows it, from nothing but what a decoder needs.

Pillow is handed the segments that hold the picture, and no metadata: see `jpeg_segments`. It decodes the first
picture; others behind it, a video or a trailer are left out. What is read of metadata is the orientation (EXIF's, or
else XMP's) and the ICC profile.

The memory of decoding is bounded by what is decoded. A JPEG of one scan is decoded row by row, so at a scale only the
scaled size counts; of any other libjpeg holds all coefficients, whatever the scale, and its own size counts.
"""

from __future__ import annotations

import io

from PIL import Image

from server.errors import PictureTooLarge, UnreadablePicture, UnsupportedPicture
from server.preprocessing.formats import Format
from server.preprocessing.jpeg_end import all_is_there, without_end
from server.preprocessing.jpeg_kinds import refuse_what_is_not_read
from server.preprocessing.jpeg_segments import EOI, Body, Head, joined, read_body, read_head
from server.preprocessing.orientation import upright_size
from server.preprocessing.stored import Bounds, Stored

# A progressive JPEG has about ten scans. One with thousands, of a few bytes each, would keep a decoder busy for hours:
# each is a pass over all pixels. So a large one has fewer.
_MOST_SCANS = 100
_ALWAYS_SCANS = 20
_MOST_PASSED_PIXELS = 20 * 64_000_000

# What is decoded at a scale has a quarter of the pixels at most, so that four times the bound are decoded to no more
# than the bound. The others take no memory, but time: all data is read, whatever the scale.
_TIMES_AT_A_SCALE = 4


def measure(data: bytes, _form: Format) -> tuple[int, int]:
    """Width and height as stored and in full, from the header alone."""
    frame = _head(data).frame
    return frame.width, frame.height


def measure_within(data: bytes, bounds: Bounds) -> tuple[int, int]:
    """As `measure`. Raises PictureTooLarge as `read` does."""
    head = _head(data)
    _scale(head, bounds)
    return head.frame.width, head.frame.height


def read(data: bytes, _form: Format, bounds: Bounds) -> Stored:
    """Raises PictureTooLarge before it decodes, UnsupportedPicture, UnreadablePicture, and whatever Pillow raises for
    damage."""
    head = _head(data)
    scale = _scale(head, bounds)
    most_scans = max(_ALWAYS_SCANS, min(_MOST_SCANS, _MOST_PASSED_PIXELS // (head.frame.width * head.frame.height)))
    body = read_body(data, head, most_scans=most_scans)
    if len(body.scans) > most_scans:
        raise UnsupportedPicture("This JPEG has more scans than any camera or program writes; save it anew.")
    needed = _needed(data, head, body, bounds)
    image = Image.open(io.BytesIO(needed), formats=("JPEG",))
    about = ((head.frame.width, head.frame.height), head.orientation, scale, head.profile)
    if bounds.read_jpeg is not None and scale == 1 and image.mode == "RGB":
        return Stored(bounds.read_jpeg(needed), *about)
    if scale > 1:
        # No mode: the colours stay as they are. Pillow takes the largest divisor that leaves at least this size, and of
        # a whole number n, n // (n // scale) is at least the scale and less than twice that.
        image.draft(None, (image.width // scale, image.height // scale))
    image.load()
    return Stored(image, *about)


def _head(data: bytes) -> Head:
    head = read_head(data)
    refuse_what_is_not_read(head.frame)
    return head


def _scale(head: Head, bounds: Bounds) -> int:
    """1, 2, 4 or 8: the divisor of the size that is decoded. Raises PictureTooLarge."""
    width, height = head.frame.width, head.frame.height
    scale = _divisor((width, height), bounds.jpeg_at_least)
    if scale == 1 or not head.one_pass:
        bounds.check(width, height)
    elif width * height > _TIMES_AT_A_SCALE * bounds.max_pixels:
        raise PictureTooLarge(width, height, _TIMES_AT_A_SCALE * bounds.max_pixels)
    if bounds.region is None:
        return scale
    left, top, right, bottom = bounds.region.pixels(*upright_size((width, height), head.orientation))
    fits = _divisor((right - left, bottom - top), bounds.jpeg_at_least)
    # A small region of a picture that only a scale brings within the bound has half of its detail, and is not refused.
    return fits if width * height <= bounds.max_pixels else max(fits, 2)


def _divisor(size: tuple[int, int], at_least: int) -> int:
    """The largest of 8, 4, 2 and 1 that leaves neither side below so many pixels; 1 for 0."""
    most = min(size) // at_least if at_least else 1
    return next((scale for scale in (8, 4, 2) if most >= scale), 1)


def _needed(data: bytes, head: Head, body: Body, bounds: Bounds) -> bytes:
    """The JPEG without what no decoder needs, and with an end mark. Raises UnreadablePicture for one that was cut."""
    if body.ended:
        return joined(data, (*head.kept, *body.kept))
    if not all_is_there(data, head, body, max_pixels=bounds.max_pixels):
        raise UnreadablePicture()
    last = body.scans[-1]
    kept = [(at, behind) for at, behind in body.kept if at < last.at]
    return joined(data, (*head.kept, *kept, (last.at, without_end(data, last)))) + bytes((0xFF, EOI))
