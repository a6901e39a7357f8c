"""BMP: the headers are read here, and the pixels by Pillow's decoder of raw samples wherever it knows their layout.

Pillow's own reader of BMP misreads some files (two colours in 8 bits, pixels that are left out of run-length encoding)
and refuses others that every browser shows (bit masks, 2 bits a pixel, a palette that says it is too long).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from server.errors import UnreadablePicture, UnsupportedPicture
from server.preprocessing.bmp_rle import unrolled
from server.preprocessing.formats import Format
from server.preprocessing.samples import scaled
from server.preprocessing.stored import MOST_PROFILE_BYTES, Bounds, Stored

_FILE_HEADER = 14
# By length: OS/2 1, OS/2 2 short and in full, and Windows with nothing, three masks, four, colours, a profile.
_OS2_1, _OS2_2_SHORT, _OS2_2, _PLAIN, _THREE_MASKS, _FOUR_MASKS, _COLOURS, _PROFILE = 12, 16, 64, 40, 52, 56, 108, 124
_RAW, _RLE8, _RLE4, _BITFIELDS, _JPEG, _PNG, _ALPHA_BITFIELDS = range(7)
_RLE24_OF_OS2, _HUFFMAN_OF_OS2 = 4, 3
_EMBEDDED = b"DEBM"

_BY_NUMBER = {1: "P;1", 2: "P;2", 4: "P;4", 8: "P"}
_USUAL = (0xFF0000, 0xFF00, 0xFF)
_ALPHA = 0xFF000000
_15, _16 = (0x7C00, 0x3E0, 0x1F), (0xF800, 0x7E0, 0x1F)
# By bits and the masks of red, green, blue and alpha: the layouts that Pillow knows.
_LAYOUTS: dict[tuple[int, tuple[int, ...]], str] = {
    (16, (*_15, 0)): "BGR;15",
    (16, (*_16, 0)): "BGR;16",
    (24, (*_USUAL, 0)): "BGR",
    (32, (*_USUAL, 0)): "BGRX",
    (32, (*_USUAL, _ALPHA)): "BGRA",
    (32, (0xFF, 0xFF00, 0xFF0000, 0)): "RGBX",
    (32, (0xFF, 0xFF00, 0xFF0000, _ALPHA)): "RGBA",
}


@dataclass(frozen=True, slots=True)
class _Header:
    length: int
    size: tuple[int, int]
    top_down: bool
    bits: int
    compression: int
    colours: int
    """As the file says; 0: as many as there can be."""
    start: int
    """Where the pixels begin, as the file says."""


def _header(data: bytes) -> _Header:
    """Raises UnreadablePicture, UnsupportedPicture."""
    try:
        start, length = struct.unpack_from("<II", data, 10)
        if length == _OS2_1:
            width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
            compression = colours = 0
        elif length in (_OS2_2_SHORT, _OS2_2, _PLAIN, _THREE_MASKS, _FOUR_MASKS, _COLOURS, _PROFILE):
            width, height, _, bits = struct.unpack_from("<iiHH", data, 18)
            compression, colours = 0, 0
            if length > _OS2_2_SHORT:
                compression, _, _, _, colours = struct.unpack_from("<IIIII", data, 30)
        else:
            raise UnsupportedPicture(
                f"This BMP has a header of {length:,} bytes, which is not known here; save it as PNG."
            )
    except struct.error:
        raise UnreadablePicture() from None
    if width <= 0 or height == 0:
        raise UnreadablePicture(
            "The header of this BMP is damaged: it says that the picture has no width or no height."
        )
    header = _Header(length, (width, abs(height)), height < 0, bits, compression, colours, start)
    _require_known(header)
    return header


def _require_known(header: _Header) -> None:
    """Raises UnsupportedPicture, with the name of what is not read."""
    bits, compression = header.bits, header.compression
    if header.length == _OS2_2 and compression == _HUFFMAN_OF_OS2:
        raise UnsupportedPicture("This BMP of OS/2 is compressed as a fax is, which is not read here; save it as PNG.")
    if compression in (_JPEG, _PNG) and not _is_rle24(header):
        inner = "JPEG" if compression == _JPEG else "PNG"
        raise UnsupportedPicture(f"This BMP holds a {inner} for a printer, which is not read here; send the {inner}.")
    known = {
        _RAW: (1, 2, 4, 8, 16, 24, 32),
        _RLE8: (8,),
        _RLE4: (4,),
        _BITFIELDS: (16, 32),
        _RLE24_OF_OS2: (24,),
        _ALPHA_BITFIELDS: (16, 32),
    }
    if compression not in known:
        raise UnsupportedPicture(f"This BMP has a compression ({compression}) that is not read here; save it as PNG.")
    if bits not in known[compression] and not (compression == _BITFIELDS and bits == 24):
        raise UnsupportedPicture(
            f"This BMP has {bits} bits a pixel in a way that is not read here; save it with 24 or 32, or as PNG."
        )


def _is_rle24(header: _Header) -> bool:
    return (header.length, header.compression, header.bits) == (_OS2_2, _RLE24_OF_OS2, 24)


def measure(data: bytes, _form: Format) -> tuple[int, int]:
    """Width and height, from the header alone. Raises UnreadablePicture, UnsupportedPicture."""
    return _header(data).size


def read(data: bytes, _form: Format, bounds: Bounds) -> Stored:
    """Raises PictureTooLarge before it decodes, UnreadablePicture, UnsupportedPicture."""
    header = _header(data)
    bounds.check(*header.size)
    masks, end = _masks(data, header)
    palette, end = _palette(data, header, end)
    # Some files say 0, or the end of the header, and mean: behind the palette.
    start = header.start if header.start > _FILE_HEADER + header.length else end
    if header.compression in (_RLE8, _RLE4) or _is_rle24(header):
        image = _run_length(data, header, start)
    else:
        image = _raw(data, header, start, masks)
    if image.mode == "P":
        image.putpalette(palette)
    elif image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0):
        # Nobody would send a picture that cannot be seen: the writer left at 0 what it did not use.
        image = image.convert("RGB")
    return Stored(image, header.size, profile=_profile(data, header))


def _masks(data: bytes, header: _Header) -> tuple[tuple[int, ...], int]:
    """The bits of red, green, blue and alpha in a pixel of 16 bits or more; and where the headers end."""
    end = _FILE_HEADER + header.length
    usual = (*_15, 0) if header.bits == 16 else (*_USUAL, 0)
    inside = header.length in (_FOUR_MASKS, _COLOURS, _PROFILE)
    count = 3 if header.compression == _BITFIELDS else 4
    if inside:
        masks = _unpacked(data, _FILE_HEADER + _PLAIN, 4)
        if header.compression == _RAW and (header.bits != 32 or masks != (*_USUAL, _ALPHA)):
            return usual, end  # they do not count; but alpha that is named as usual does in browsers
    elif header.compression not in (_BITFIELDS, _ALPHA_BITFIELDS):
        return usual, end
    else:
        masks = (*_unpacked(data, _FILE_HEADER + _PLAIN, count), 0)[:4]
        end = max(end, _FILE_HEADER + _PLAIN + 4 * count)
    if not any(masks):
        return ((*_USUAL, _ALPHA) if header.bits == 32 else usual), end
    for mask in masks:
        bits = mask >> ((mask & -mask).bit_length() - 1) if mask else 0
        if bits & (bits + 1):
            raise UnsupportedPicture("This BMP keeps a colour in bits with gaps between them; save it as PNG.")
    return masks, end


def _unpacked(data: bytes, at: int, count: int) -> tuple[int, ...]:
    try:
        return struct.unpack_from(f"<{count}I", data, at)
    except struct.error:
        raise UnreadablePicture() from None


def _palette(data: bytes, header: _Header, at: int) -> tuple[bytes, int]:
    """256 times red, green, blue, black where the file has fewer; and where it ends."""
    each = 3 if header.length == _OS2_1 else 4
    if header.bits > 8:
        return b"", at
    most = 1 << header.bits
    count = min(header.colours or most, most)
    end = at + each * count
    if header.start > at:
        end = min(end, header.start)
    found = data[at:end]
    colours = np.frombuffer(found[: len(found) // each * each], np.uint8).reshape(-1, each)[:, 2::-1]
    return colours.tobytes().ljust(3 * 256, b"\0"), end


def _run_length(data: bytes, header: _Header, start: int) -> Image.Image:
    pixels = unrolled(data[start:], header.size, header.bits)
    mode, samples = ("RGB", "BGR") if header.bits == 24 else ("P", "P")
    return Image.frombytes(mode, header.size, pixels, "raw", samples, 0, 1 if header.top_down else -1)


def _raw(data: bytes, header: _Header, start: int, masks: tuple[int, ...]) -> Image.Image:
    width, height = header.size
    stride = (width * header.bits + 31) // 32 * 4
    pixels = data[start : start + stride * height]
    # Only what fills the last row to whole words may be missing.
    if len(pixels) < stride * (height - 1) + (width * header.bits + 7) // 8:
        raise UnreadablePicture()
    pixels = pixels.ljust(stride * height, b"\0")
    direction = 1 if header.top_down else -1
    samples = _BY_NUMBER.get(header.bits) or _LAYOUTS.get((header.bits, masks))
    if samples is not None:
        mode = "P" if header.bits <= 8 else "RGBA" if samples.endswith("A") else "RGB"
        return Image.frombytes(mode, header.size, pixels, "raw", samples, stride, direction)
    if header.bits == 24:
        raise UnsupportedPicture("This BMP has bit masks for 24 bits a pixel, which no program writes; save it as PNG.")
    wide = np.frombuffer(pixels, f"<u{header.bits // 8}").reshape(height, -1)[::direction, :width]
    bands = [Image.fromarray(_band(wide, mask)) for mask in masks[: 4 if masks[3] else 3]]
    return Image.merge("RGBA" if masks[3] else "RGB", bands)


def _band(wide: NDArray[Any], mask: int) -> NDArray[np.uint8]:
    """What a mask leaves of whole pixels, brought to 8 bits: round(v * 255 / (2^n - 1))."""
    found = np.zeros(wide.shape, np.uint8)
    if not mask:
        return found
    shift = (mask & -mask).bit_length() - 1
    most = mask >> shift
    for row, pixels in zip(found, wide, strict=True):  # by rows: 8 bytes a pixel for all of them would be much
        row[:] = scaled((pixels.astype(np.uint64) & mask) // (1 << shift), most)
    return found


def _profile(data: bytes, header: _Header) -> bytes | None:
    if header.length != _PROFILE or data[_FILE_HEADER + 56 : _FILE_HEADER + 60] != _EMBEDDED:
        return None
    at, size = _unpacked(data, _FILE_HEADER + 112, 2)
    found = data[_FILE_HEADER + at : _FILE_HEADER + at + size]
    return found if 0 < size == len(found) <= MOST_PROFILE_BYTES else None
