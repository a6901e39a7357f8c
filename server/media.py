"""Bytes to pixels: sniff, bound, decode, orient, flatten, resize, crop.

What is done here is written in the artifact's preprocessing spec, and only there; for a picture without alpha and
without an EXIF orientation the pixels equal those of the checkpoint's own Hugging Face processor to the last bit,
because the resampling is Pillow's in both. Everything is blocking and releases the GIL where it is slow: call it
from a worker thread.

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

from server.artifact import PreprocessingSpec
from server.errors import MediaRejected, NoPicture, NotAPicture, PictureTooLarge, UnreadablePicture

Pixels = NDArray[np.uint8]

# Pillow's own bound is fixed and warns on standard error; ours is a setting, checked from the header before any pixel
# is decoded.
Image.MAX_IMAGE_PIXELS = None
# Damaged files are told to their sender, not to the server's standard error.
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

# A resized picture of more pixels than this is never made whole (64 MB in Pillow): see `_middle`.
_LARGEST_INTERMEDIATE = 16_000_000

# A progressive JPEG has about ten scans. One of thousands, each a few bytes, would keep a decoder busy for hours.
_MOST_SCANS = 100
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


@dataclass(frozen=True, slots=True)
class Format:
    """A file format we read: Pillow's name for it, its media type, and the usual file extension."""

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
    """A decoded picture: upright, opaque RGB."""

    image: Image.Image
    format: Format

    @property
    def width(self) -> int:
        return self.image.width

    @property
    def height(self) -> int:
        return self.image.height


def sniff(data: bytes) -> Format:
    """Tell the format from the first bytes; names and declared types are not believed.

    Raises NoPicture for no bytes, NotAPicture for bytes of no format that we read.
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

    A marker that is none of 00 (a stuffed byte), D0 to D7 (restarts) and FF (fill) ends the entropy-coded data.
    """
    scans, at = 0, 2
    while (found := _MARKER.search(data, at)) and found[0] != b"\xff\xd9":
        at = found.end()
        if found[0] == b"\xff\xda":
            scans += 1
        if found[0] != b"\xff\x01" and len(data) >= at + 2:
            at += int.from_bytes(data[at : at + 2])
    return scans


def decode(data: bytes, *, max_pixels: int) -> Picture:
    """Decode the first frame of a picture, turn it upright, lay it on white, make it RGB.

    Raises NoPicture, NotAPicture, UnreadablePicture, or PictureTooLarge (before anything is decoded) when
    width x height is over `max_pixels`.
    """
    form = sniff(data)
    if form is JPEG and _scans(data) > _MOST_SCANS:
        raise UnreadablePicture("The JPEG has more scans than any camera or program writes.")
    try:
        with _opened(data, form, max_pixels) as image:
            image.load()
            orientation = _orientation(image)
            opaque = _opaque(image)
    except MediaRejected:
        raise
    except MemoryError:
        raise  # our machine's limit, not the picture's fault
    except Exception as exc:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error...
        raise UnreadablePicture() from exc
    transpose = _TRANSPOSE.get(orientation)
    if transpose is not None:  # flipping is 0
        opaque = opaque.transpose(transpose)
    return Picture(opaque, form)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # damaged EXIF says nothing of the pixels, which are fine
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
    for row, wide in zip(eight, samples, strict=True):  # by rows: a whole copy in wide numbers can be a gigabyte
        row[:] = np.rint(np.clip(np.nan_to_num(wide.astype(np.float64)) * scale, 0, 255))
    return eight


def to_pixels(image: Image.Image, spec: PreprocessingSpec) -> Pixels:
    """Resize and crop an RGB picture as the spec says: uint8[S, S, 3], C-contiguous."""
    size, resample = spec.size, Image.Resampling[spec.resample.upper()]
    if spec.resize == "squash":
        return np.asarray(image.resize((size, size), resample))
    # As the Hugging Face processors round: the shorter side becomes the edge, the longer is cut to whole pixels.
    short, long = sorted(image.size)
    scaled = int(spec.edge * long / short)
    width, height = (spec.edge, scaled) if image.width <= image.height else (scaled, spec.edge)
    left, top = (width - size) // 2, (height - size) // 2
    if width * height > _LARGEST_INTERMEDIATE:
        return np.asarray(_middle(image, (width, height), (left, top), size, resample))
    resized = image.resize((width, height), resample)
    return np.asarray(resized.crop((left, top, left + size, top + size)))


def _middle(
    image: Image.Image, scaled: tuple[int, int], offset: tuple[int, int], size: int, resample: Image.Resampling
) -> Image.Image:
    """Resize only what the crop keeps: 1 x 5000 would become 224 x 1,120,000 before its middle is cut out.

    Across first and down second, as Pillow itself resizes, with the neighbours that the filter reads. Pillow keeps a
    box in single precision, so a sample may differ by 1 of 255 from the whole way; only shapes of more than about
    300 : 1 come here.
    """
    (across, down) = (image.width / scaled[0], image.height / scaled[1])
    margin_x, margin_y = (math.ceil(4 * max(1.0, scale)) + 1 for scale in (across, down))
    left, top = offset[0] * across, offset[1] * down
    x = max(0, math.floor(left) - margin_x)
    y = max(0, math.floor(top) - margin_y)
    right = min(image.width, math.ceil(left + size * across) + margin_x)
    bottom = min(image.height, math.ceil(top + size * down) + margin_y)
    near = image.crop((x, y, right, bottom))
    narrow = near.resize((size, near.height), resample, box=(left - x, 0, left - x + size * across, near.height))
    return narrow.resize((size, size), resample, box=(0, top - y, size, top - y + size * down))


def thumbnail(image: Image.Image, *, edge: int = 256) -> bytes:
    """A WebP of at most `edge` pixels a side, aspect kept; never larger than the picture."""
    small = image.copy() if max(image.size) <= edge else _shrunk(image, edge)
    out = io.BytesIO()
    small.save(out, "WEBP", quality=80, method=4)
    return out.getvalue()


def _shrunk(image: Image.Image, edge: int) -> Image.Image:
    scale = edge / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
