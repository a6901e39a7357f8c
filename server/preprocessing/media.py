"""Bytes to pixels: sniff, bound, decode, orient, flatten, resize, crop.

Only the artifact's preprocessing spec says what is done here. For a picture without alpha and without an EXIF
orientation, decoded in full, the pixels equal those of the checkpoint's own Hugging Face processor to the last bit,
because both resample with Pillow. Everything is blocking and releases the GIL where it is slow: call it from a worker
thread.

A large JPEG need not be decoded in full: its decoder can leave out what a smaller picture does not show, at 1/2, 1/4
or 1/8 of the size. The spec says whether it may, so that query and catalogue always agree.

ICC profiles are ignored, as the Hugging Face processors ignore them.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from server.artifact.artifact import PreprocessingSpec
from server.errors import MediaRejected, NoPicture, NotAPicture, PictureTooLarge, UnreadablePicture

Pixels = NDArray[np.uint8]
Box = tuple[float, float, float, float]

# Pillow's own bound is fixed and warns on standard error; ours is a setting, checked from the header before any pixel
# is decoded.
Image.MAX_IMAGE_PIXELS = None
# A damaged file is reported to its sender, not to the server's standard error.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

_ORIENTATION_TAG = 0x0112
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Orientations that swap width and height; and those after which the end of a row or column comes first.
_SIDEWAYS = (5, 6, 7, 8)
_LAST_COLUMN_LEFT = (2, 3, 6, 7)
_LAST_ROW_TOP = (3, 4, 7, 8)

THUMBNAIL = 256
"""The longest side of a thumbnail, in pixels."""

# A picture that would have more pixels than this once resized (64 MB in Pillow) is resized in part: see `_middle`.
_LARGEST_INTERMEDIATE_PIXELS = 16_000_000

# A progressive JPEG has about ten scans. One with thousands, of a few bytes each, would keep a decoder busy for hours.
_MOST_SCANS = 100
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


@dataclass(frozen=True, slots=True)
class Format:
    """A file format that is read here: Pillow's name for it, its media type, and the usual file extension."""

    pillow: str
    content_type: str
    extension: str


JPEG = Format("JPEG", "image/jpeg", "jpg")
PNG = Format("PNG", "image/png", "png")
WEBP = Format("WEBP", "image/webp", "webp")
GIF = Format("GIF", "image/gif", "gif")
BMP = Format("BMP", "image/bmp", "bmp")
TIFF = Format("TIFF", "image/tiff", "tif")
AVIF = Format("AVIF", "image/avif", "avif")

# 65535 / 255 = 257: the exact ratio of the two full scales.
_FROM_16_BIT = ((np.arange(65536, dtype=np.uint32) + 128) // 257).astype(np.uint8)

_AVIF_BRANDS = (b"avif", b"avis")
_SIGNATURES: tuple[tuple[Format, Callable[[bytes], bool]], ...] = (
    (JPEG, lambda head: head.startswith(b"\xff\xd8\xff")),
    (PNG, lambda head: head.startswith(b"\x89PNG\r\n\x1a\n")),
    (WEBP, lambda head: head[:4] == b"RIFF" and head[8:12] == b"WEBP"),
    (GIF, lambda head: head[:6] in (b"GIF87a", b"GIF89a")),
    (BMP, lambda head: head.startswith(b"BM")),
    (TIFF, lambda head: head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    (AVIF, lambda head: head[4:8] == b"ftyp" and any(brand in head[8:64] for brand in _AVIF_BRANDS)),
)


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture, upright. `width` and `height` are those in full, whatever scale it was decoded at."""

    image: Image.Image
    """Opaque RGB."""
    format: Format
    width: int
    height: int
    scale: int = 1
    """1, or for a JPEG that was decoded at a scale 2, 4 or 8: its width and height over those of `image`."""
    box: Box | None = None
    """Left, top, right, bottom of the part of `image` that the picture fills, where that is not all of it: 1001 pixels
    at 1/2 fill 500.5 of 501."""


def sniff(data: bytes) -> Format:
    """The format, by the first bytes; file names and declared types are not trusted.

    Raises NoPicture for no bytes, NotAPicture for bytes of a format that is not read here.
    """
    if not data:
        raise NoPicture()
    head = data[:64]
    for form, matches in _SIGNATURES:
        if matches(head):
            return form
    raise NotAPicture()


def measure(data: bytes, *, max_pixels: int) -> tuple[int, int]:
    """Width and height as stored, from the header alone. Raises as `decode` does."""
    try:
        with _opened(data, sniff(data), max_pixels) as image:
            return image.size
    except MediaRejected:
        raise
    except Exception as exc:  # as in `decode`
        raise UnreadablePicture() from exc


def _opened(data: bytes, form: Format, max_pixels: int) -> Image.Image:
    """The picture with its header read. Raises PictureTooLarge, and whatever Pillow raises for damage."""
    # A phone's multi-picture JPEG is opened as its first picture.
    image = Image.open(io.BytesIO(data), formats=("JPEG", "MPO") if form is JPEG else (form.pillow,))
    if image.width * image.height > max_pixels:
        raise PictureTooLarge(image.width, image.height, max_pixels)
    return image


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


def decode(
    data: bytes, *, max_pixels: int, jpeg_at_least: int = 0, read_jpeg: Callable[[bytes], Image.Image] | None = None
) -> Picture:
    """Decode the first frame of a picture, turn it upright, lay it on white, make it RGB.

    `jpeg_at_least`: decode a JPEG at the smallest of 1/2, 1/4 and 1/8 that leaves neither side below so many pixels; 0:
    always in full. `read_jpeg` decodes, in place of Pillow, a JPEG of three colours that is decoded in full.

    Raises NoPicture, NotAPicture, UnreadablePicture, or PictureTooLarge (before anything is decoded) when
    width x height is over `max_pixels`.
    """
    form = sniff(data)
    if form is JPEG and _scans(data) > _MOST_SCANS:
        raise UnreadablePicture("The JPEG has more scans than any camera or program writes.")
    try:
        with _opened(data, form, max_pixels) as image:
            stored = image.size
            scale = _scaled(image, jpeg_at_least) if form is JPEG and jpeg_at_least else 1
            if read_jpeg is not None and form is JPEG and scale == 1 and image.mode == "RGB":
                orientation, opaque = _orientation(image), read_jpeg(data)
            else:
                image.load()
                orientation, opaque = _orientation(image), _opaque(image)
    except MediaRejected:
        raise
    except MemoryError:
        raise  # the machine's limit, not the picture's fault
    except Exception as exc:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error...
        raise UnreadablePicture() from exc
    transpose = _TRANSPOSE.get(orientation)
    if transpose is not None:  # flipping is 0
        opaque = opaque.transpose(transpose)
    if scale == 1:
        return Picture(opaque, form, *opaque.size)
    width, height = reversed(stored) if orientation in _SIDEWAYS else stored
    return Picture(
        opaque, form, width, height, scale, _filled(opaque.size, (width / scale, height / scale), orientation)
    )


def _scaled(image: Image.Image, at_least: int) -> int:
    """Have a JPEG's decoder leave out what a smaller picture does not show; 1, 2, 4 or 8: the divisor of its size."""
    width = image.width
    drafted = image.draft(None, (at_least, at_least))  # no mode: the colours stay as they are
    return round(width / drafted[1][2]) if drafted else 1


def _filled(size: tuple[int, int], filled: tuple[float, float], orientation: int) -> Box:
    """Where in an image of this size the picture lies: it may fill only a part of the last column and the last row."""
    # Last as stored: in the upright picture they may be the first ones, at the left or at the top.
    left = size[0] - filled[0] if orientation in _LAST_COLUMN_LEFT else 0.0
    top = size[1] - filled[1] if orientation in _LAST_ROW_TOP else 0.0
    return left, top, left + filled[0], top + filled[1]


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # the EXIF is damaged, and the pixels are fine
        return 1


def _opaque(image: Image.Image) -> Image.Image:
    """RGB, with transparency laid on white and 16-bit samples scaled (Pillow's own conversion would clip them)."""
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_eight_bit(np.asarray(image)), "L").convert("RGB")
    if image.has_transparency_data:
        layered = image.convert("RGBA")
        white = Image.new("RGB", image.size, (255, 255, 255))
        white.paste(layered, mask=layered.getchannel("A"))
        return white
    # `convert` returns a copy of its own also for RGB, so the file behind can be closed.
    return image.convert("RGB")


def _eight_bit(samples: NDArray[Any]) -> NDArray[np.uint8]:
    """Wide samples to 8 bits: whole numbers beyond 255 count as 16 bit, fractions as 0 to 1."""
    if samples.dtype.itemsize == 2:
        return _FROM_16_BIT[samples.astype(np.uint16, copy=False)]
    least, most = (float(np.nan_to_num(bound(samples, axis=None))) for bound in (np.fmin.reduce, np.fmax.reduce))
    scale = 1 / 257 if most > 255 else 255.0 if samples.dtype.kind == "f" and 0 <= least <= most <= 1 else 1.0
    eight = np.empty(samples.shape, np.uint8)
    for row, wide in zip(
        eight, samples, strict=True
    ):  # by rows: a copy of all samples in wide numbers can be a gigabyte
        row[:] = np.rint(np.clip(np.nan_to_num(wide.astype(np.float64)) * scale, 0, 255))
    return eight


def read_pixels(
    data: bytes,
    spec: PreprocessingSpec,
    *,
    max_pixels: int,
    read_jpeg: Callable[[bytes], Image.Image] | None = None,
) -> Pixels:
    """A picture's bytes to uint8[S, S, 3], as the spec says. Raises as `decode` does."""
    picture = decode(data, max_pixels=max_pixels, jpeg_at_least=spec.jpeg_at_least, read_jpeg=read_jpeg)
    return to_pixels(picture, spec)


def to_pixels(picture: Picture | Image.Image, spec: PreprocessingSpec) -> Pixels:
    """Resize and crop a picture, or an RGB image in full, as the spec says: uint8[S, S, 3], C-contiguous."""
    image, (full_width, full_height), box = _parts(picture)
    size, resample = spec.size, Image.Resampling[spec.resample.upper()]
    if spec.resize == "squash":
        return np.asarray(image.resize((size, size), resample, box))
    # As the Hugging Face processors round: the shorter side becomes the edge, the longer is cut to whole pixels.
    short, long = sorted((full_width, full_height))
    scaled = int(spec.edge * long / short)
    width, height = (spec.edge, scaled) if full_width <= full_height else (scaled, spec.edge)
    left, top = (width - size) // 2, (height - size) // 2
    if width * height > _LARGEST_INTERMEDIATE_PIXELS:
        return np.asarray(_middle(image, box, (width, height), (left, top), size, resample))
    resized = image.resize((width, height), resample, box)
    return np.asarray(resized.crop((left, top, left + size, top + size)))


def _parts(picture: Picture | Image.Image) -> tuple[Image.Image, tuple[int, int], Box]:
    """The image, the picture's width and height in full, and the part of the image that the picture fills."""
    if isinstance(picture, Image.Image):
        return picture, picture.size, (0, 0, *picture.size)
    return picture.image, (picture.width, picture.height), picture.box or (0, 0, *picture.image.size)


def _middle(
    image: Image.Image,
    box: Box,
    scaled: tuple[int, int],
    offset: tuple[int, int],
    size: int,
    resample: Image.Resampling,
) -> Image.Image:
    """Resize only what the crop keeps: 1 x 5000 would become 224 x 1,120,000 before its middle is cut out.

    Across first and down second, as Pillow itself resizes, with the neighbours that the filter reads. Pillow keeps a
    box in single precision, so a sample may differ by 1 of 255 from resizing in full and cropping then. Only shapes of
    more than about 300 : 1 are resized here.
    """
    (across, down) = ((box[2] - box[0]) / scaled[0], (box[3] - box[1]) / scaled[1])
    margin_x, margin_y = (math.ceil(4 * max(1.0, scale)) + 1 for scale in (across, down))
    left, top = box[0] + offset[0] * across, box[1] + offset[1] * down
    x = max(0, math.floor(left) - margin_x)
    y = max(0, math.floor(top) - margin_y)
    right = min(image.width, math.ceil(left + size * across) + margin_x)
    bottom = min(image.height, math.ceil(top + size * down) + margin_y)
    near = image.crop((x, y, right, bottom))
    narrow = near.resize((size, near.height), resample, box=(left - x, 0, left - x + size * across, near.height))
    return narrow.resize((size, size), resample, box=(0, top - y, size, top - y + size * down))


def thumbnail(picture: Picture | Image.Image, *, edge: int = THUMBNAIL) -> bytes:
    """A WebP of at most `edge` pixels a side, aspect kept; never larger than the picture.

    A picture that was decoded at a scale should not be smaller than the thumbnail: see `fills_thumbnail`.
    """
    image, full, box = _parts(picture)
    scale = edge / max(full)
    if scale >= 1 and full == image.size:
        small = image
    else:
        size = (max(1, round(full[0] * min(scale, 1))), max(1, round(full[1] * min(scale, 1))))
        small = image.resize(size, Image.Resampling.BICUBIC, box, reducing_gap=2.0)
    out = io.BytesIO()
    small.save(out, "WEBP", quality=80, method=4)
    return out.getvalue()


def fills_thumbnail(picture: Picture, *, edge: int = THUMBNAIL) -> bool:
    """Whether the picture, at the scale it was decoded at, gives a thumbnail as sharp as it would in full."""
    return picture.scale == 1 or max(picture.image.size) >= edge
