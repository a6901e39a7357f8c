"""HEIC and HEIF: the primary picture, decoded by libheif."""

from __future__ import annotations

import importlib.util
from collections import Counter
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from server.errors import NotAPicture, UnreadablePicture, UnsupportedPicture
from server.preprocessing import cicp, heif_file, heif_still
from server.preprocessing.formats import Format
from server.preprocessing.heif_coded import Coded, packed
from server.preprocessing.heif_still import Still
from server.preprocessing.heif_turns import turned
from server.preprocessing.samples import scaled, straight
from server.preprocessing.stored import MOST_PROFILE_BYTES, Bounds, Stored

# Rows that are brought to 8 bits at a time: their samples in wide numbers need not all be there at once.
_ROWS = 64


def installed() -> bool:
    """Whether the library is there; it is loaded for the first picture."""
    return importlib.util.find_spec("pi_heif") is not None


@cache
def _library() -> Any:
    try:
        import pi_heif
    except ImportError as exc:
        raise NotAPicture(
            "This is a HEIC picture, and this server has no reader of HEIC installed: save it as JPEG or PNG."
        ) from exc
    # One thread a picture: the caller's, which waits for the decoder's one.
    pi_heif.options.DECODE_THREADS = 0
    pi_heif.options.THUMBNAILS = pi_heif.options.DEPTH_IMAGES = pi_heif.options.AUX_IMAGES = False
    return pi_heif


def measure(data: bytes, _form: Format) -> tuple[int, int]:
    """Width and height as stored, from the file's boxes alone."""
    _library()
    return heif_still.size(heif_file.parse(data))


def read(data: bytes, _form: Format, bounds: Bounds) -> Stored:
    """The primary picture, cut, turned and mirrored as the file's boxes say; EXIF only says it again.

    8 bits a sample, rounded. Raises PictureTooLarge before anything is decoded, UnsupportedPicture for what is not
    read, and whatever the library raises for damage.
    """
    _library()
    still = heif_still.find(heif_file.parse(data), bounds.check)
    image = _assembled(still)
    alpha = still.alpha
    if alpha is None:
        image = turned(image, still.turns)
    elif alpha.size == still.size:  # what turns the picture turns its alpha as well
        image = turned(_with_alpha(image, _assembled(alpha), premultiplied=still.premultiplied), still.turns)
    else:
        image, mask = turned(image, still.turns), turned(_assembled(alpha), alpha.turns)
        image = _with_alpha(image, mask, premultiplied=still.premultiplied)
    return Stored(image, image.size, profile=_profile(still))


def _assembled(still: Still) -> Image.Image:
    """As stored, without alpha: L or RGB."""
    if len(still.tiles) == 1:
        return _decoded(still.tiles[0], still.nclx)
    whole, (width, height) = None, still.tiles[0].shown
    several = {id(tile) for tile, times in Counter(still.tiles).items() if times > 1}
    known: dict[int, Image.Image] = {}
    for place, tile in enumerate(still.tiles):
        part = known.get(id(tile)) or _decoded(tile, still.nclx)
        if id(tile) in several:
            known[id(tile)] = part
        if whole is None:
            whole = Image.new(part.mode, still.size)
        whole.paste(part, (place % still.columns * width, place // still.columns * height))
    if whole is None:
        raise UnreadablePicture()
    return whole


def _decoded(coded: Coded, nclx: bytes | None) -> Image.Image:
    try:
        opened = _library().open_heif(packed(coded, nclx), convert_hdr_to_8bit=False, hdr_to_16bit=False)
        image = _eight_bit(opened[opened.primary_index])
    except RuntimeError as exc:  # memory, or a bound of the library
        if "limit" in str(exc) or "exceeds" in str(exc):
            raise UnsupportedPicture("This HEIF goes beyond a bound of its decoder; save it as JPEG or PNG.") from exc
        raise
    except SyntaxError as exc:
        raise UnsupportedPicture("This HEIF is of a kind that its decoder does not read; save it as JPEG.") from exc
    if image.size != coded.size:
        raise UnreadablePicture("The HEIF says another size than the picture in it has.")
    return turned(image, coded.turns)


def _eight_bit(decoded: Any) -> Image.Image:
    mode = "RGB" if decoded.mode.startswith("RGB") else "L"
    (width, height), bits, data, stride = decoded.size, decoded.info["bit_depth"], decoded.data, decoded.stride
    if bits == 8:
        return Image.frombytes(mode, (width, height), data, "raw", mode, stride)
    channels = len(mode)
    rows = np.frombuffer(data, "<u2", height * stride // 2).reshape(height, stride // 2)[:, : width * channels]
    eight, table = np.empty(rows.shape, np.uint8), _to_eight(bits)
    for top in range(0, height, _ROWS):
        np.take(table, rows[top : top + _ROWS], out=eight[top : top + _ROWS])
    return Image.fromarray(eight.reshape((height, width, channels) if channels > 1 else (height, width)))


@cache
def _to_eight(bits: int) -> NDArray[np.uint8]:
    """By sample: rounded to the nearest; what is beyond the full scale counts as full."""
    full = (1 << bits) - 1
    samples = np.minimum(np.arange(65536, dtype=np.uint32), full)
    return scaled(samples, full).astype(np.uint8)


def _with_alpha(image: Image.Image, alpha: Image.Image, *, premultiplied: bool) -> Image.Image:
    mask = alpha.convert("L")
    if mask.size != image.size:
        mask = mask.resize(image.size, Image.Resampling.NEAREST)
    image = image if image.mode == "RGB" else image.convert("RGB")
    if premultiplied:
        image = Image.fromarray(straight(np.asarray(image), np.asarray(mask)))
    image.putalpha(mask)
    return image


def _profile(still: Still) -> bytes | None:
    if still.icc is not None:
        return still.icc if 0 < len(still.icc) <= MOST_PROFILE_BYTES else None
    if still.nclx is None:
        return None
    return cicp.profile(int.from_bytes(still.nclx[:2]), int.from_bytes(still.nclx[2:4]))
