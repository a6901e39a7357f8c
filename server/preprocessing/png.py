"""PNG: the chunks that decide pixels are handed to Pillow's decoder, and transparency by colour is applied here.

Pillow's own reader of PNG refuses pictures for chunks that nobody reads, and compares the transparent colour with
samples that it has already brought to 8 bits.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from server.errors import UnreadablePicture, UnsupportedPicture
from server.preprocessing.formats import Format
from server.preprocessing.png_chunks import Chunks, walk
from server.preprocessing.samples import FROM_16_BIT
from server.preprocessing.stored import Bounds, Stored

_GREY, _RGB, _INDEXED, _GREY_ALPHA, _RGB_ALPHA = 0, 2, 3, 4, 6
_SAMPLES = {_GREY: 1, _RGB: 3, _INDEXED: 1, _GREY_ALPHA: 2, _RGB_ALPHA: 4}

# By colour type and bits a sample: the mode of the image, and how Pillow's decoder names the samples in the file. Of
# 16 bits of a colour it keeps the upper 8, which is within 1 of 255 of the nearest; grey keeps all.
_MODES = {
    (_GREY, 1): ("1", "1"),
    (_GREY, 2): ("L", "L;2"),
    (_GREY, 4): ("L", "L;4"),
    (_GREY, 8): ("L", "L"),
    (_GREY, 16): ("I;16", "I;16B"),
    (_RGB, 8): ("RGB", "RGB"),
    (_RGB, 16): ("RGB", "RGB;16B"),
    (_INDEXED, 1): ("P", "P;1"),
    (_INDEXED, 2): ("P", "P;2"),
    (_INDEXED, 4): ("P", "P;4"),
    (_INDEXED, 8): ("P", "P"),
    (_GREY_ALPHA, 8): ("LA", "LA"),
    (_GREY_ALPHA, 16): ("RGBA", "LA;16B"),
    (_RGB_ALPHA, 8): ("RGBA", "RGBA"),
    (_RGB_ALPHA, 16): ("RGBA", "RGBA;16B"),
}
# As if the file were little-endian: the lower 8 bits.
_LOWER_BITS_OF_RGB = "RGB;16L"

# First column and row, and the steps to the next, of the seven passes of an interlaced picture (Adam7).
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))

# A pixel of three samples of 16 bits, decoded once, takes about as long as one of four of 8 bits with all that follows.
_MOST_BYTES_A_PIXEL = 6
# How Pillow packs the pixels of a mode so that each is one number, and that number's type. The fourth byte of RGB is
# none of the picture's.
_AS_NUMBERS = {"L": ("L", "u1"), "I;16": ("I;16", "<u2"), "RGB": ("RGBX", "<u4")}
_COLOURS_ALONE = 0xFFFFFF
_PIXELS_AT_ONCE = 1 << 20

_AT_ONCE = 1 << 16
_UNLIKELY = np.random.default_rng(28).bytes(4099)


@dataclass(frozen=True, slots=True)
class _Header:
    width: int
    height: int
    bits: int
    colour: int
    interlaced: int

    @property
    def size(self) -> tuple[int, int]:
        return self.width, self.height

    @property
    def last_row(self) -> int:
        """The one that is decoded last; of an interlaced picture the last odd one."""
        return self.height - (2 if self.interlaced and self.height % 2 and self.height > 1 else 1)

    def inflated(self) -> int:
        """How many bytes the pixels have once inflated: each row with the number of its filter before it."""
        depth = self.bits * _SAMPLES[self.colour]
        total = 0
        for left, top, across, down in _PASSES if self.interlaced else ((0, 0, 1, 1),):
            columns, rows = -(-(self.width - left) // across), -(-(self.height - top) // down)
            if columns > 0 and rows > 0:
                total += rows * (1 + (columns * depth + 7) // 8)
        return total


def _header(chunks: Chunks) -> _Header:
    width, height, bits, colour, compression, filters, interlaced = struct.unpack(">IIBBBBB", chunks.header)
    if not 0 < width < 1 << 31 or not 0 < height < 1 << 31:
        raise UnreadablePicture("The PNG's header is damaged: it says that the picture has no width or no height.")
    if (colour, bits) not in _MODES or compression or filters or interlaced > 1:
        raise UnreadablePicture("The PNG's header is damaged: it names a kind of picture that does not exist.")
    return _Header(width, height, bits, colour, interlaced)


def measure(data: bytes, _form: Format) -> tuple[int, int]:
    """Width and height as stored, from the header alone. Raises UnreadablePicture, UnsupportedPicture."""
    return _header(walk(data, header_only=True)).size


def read(data: bytes, _form: Format, bounds: Bounds) -> Stored:
    """The default picture, of an animation too. Raises PictureTooLarge before it decodes; else as `measure` does."""
    chunks = walk(data)
    header = _header(chunks)
    bounds.check(*header.size)
    _check_work(header, chunks, bounds)
    packed = chunks.data
    if not chunks.vouched and not _inflate(packed, header.inflated() + _AT_ONCE)[1]:
        raise UnreadablePicture()
    mode, samples = _MODES[header.colour, header.bits]
    image = _decoded(packed, header, mode, samples)
    if header.colour == _INDEXED:
        _colour(image, chunks)
    elif chunks.transparency is not None:
        image = _keyed(image, header, chunks.transparency, packed)
    if (header.colour, image.mode) == (_GREY_ALPHA, "RGBA"):
        # Red, green and blue are alike. As it is with 8 bits: a grey profile is for it, and one for RGB is not.
        image = image.convert("LA")
    return Stored(image, header.size, chunks.orientation(), profile=chunks.profile())


def _check_work(header: _Header, chunks: Chunks, bounds: Bounds) -> None:
    """Raises UnsupportedPicture, before it decodes, for what would take much longer than its pixels suggest."""
    keyed_wide = (header.colour, header.bits) == (_RGB, 16) and chunks.transparency is not None
    times = 1 + keyed_wide + (not chunks.vouched)
    bits = header.bits * _SAMPLES[header.colour] * times
    if header.width * header.height * bits > bounds.max_pixels * _MOST_BYTES_A_PIXEL * 8:
        most = bounds.max_pixels * _MOST_BYTES_A_PIXEL * 8 // bits
        raise UnsupportedPicture(
            f"This PNG of {header.width} x {header.height} pixels is of a kind that takes long to decode, and of which "
            f"at most {most:,} pixels are read here; save it anew, with 8 bits a sample."
        )


def _decoded(packed: bytearray, header: _Header, mode: str, samples: str) -> Image.Image:
    """Raises UnreadablePicture where not every row is there."""
    # The decoder is content with a stream that ends too early, and leaves the rows that are missing as they were: so
    # the one that comes last is given samples first that no picture has.
    image = Image.new(mode, header.size)
    last = (0, header.last_row, header.width, header.last_row + 1)
    unlikely = _unlikely(image.crop(last))
    image.paste(unlikely, last)
    _unpack(packed, image, samples, header)
    # Interlaced, a picture of one row gets it in several passes.
    unsure = header.interlaced and header.height == 1
    if (unsure or image.crop(last).tobytes() == unlikely.tobytes()) and _inflate(packed, header.inflated())[
        0
    ] < header.inflated():
        raise UnreadablePicture()
    return image


def _unpack(packed: bytearray, image: Image.Image, samples: str, header: _Header) -> None:
    """Decode into the image. Raises UnreadablePicture for damage, and where the stream is cut off."""
    # What Image.frombytes does, but for the last 4 bytes, which are a checksum, Adler-32: they are handed over only
    # where rows are still missing. Where it is wrong and the CRC of the chunk is right, it was written so, and the
    # pixels are as they were meant; where the CRC is wrong, it has been checked before.
    decoder: Any = Image._getdecoder(image.mode, "zip", (samples, header.interlaced))
    decoder.setimage(image.im, (0, 0, *image.size))
    view = memoryview(packed)
    taken, fault = decoder.decode(view[:-4])
    if taken >= 0:
        taken, fault = decoder.decode(view[taken:])
    if taken >= 0 or fault:
        raise UnreadablePicture()


def _unlikely(row: Image.Image) -> Image.Image:
    size = len(row.tobytes())
    return Image.frombytes(row.mode, row.size, (_UNLIKELY * (size // len(_UNLIKELY) + 1))[:size])


def _inflate(packed: bytearray, most: int) -> tuple[int, bool]:
    """How many bytes a stream holds, counted to a little over `most`; and whether its end came, its Adler-32 right."""
    inflate, held = zlib.decompressobj(), 0
    view = memoryview(packed)
    try:
        for at in range(0, len(view), _AT_ONCE):
            left = bytes(view[at : at + _AT_ONCE])
            while left and not inflate.eof and held <= most:
                held += len(inflate.decompress(left, _AT_ONCE))
                left = inflate.unconsumed_tail
    except zlib.error:
        return held, False
    return held, inflate.eof


def _colour(image: Image.Image, chunks: Chunks) -> None:
    """Give an indexed picture its palette; what lies beyond its end is black and opaque."""
    if not chunks.palette:
        raise UnreadablePicture("This PNG names its colours by number, and has no palette.")
    colours = len(chunks.palette) // 3
    image.putpalette(chunks.palette[: 3 * colours].ljust(3 * 256, b"\0"))
    if chunks.transparency:
        image.info["transparency"] = chunks.transparency[:colours].ljust(256, b"\xff")


def _keyed(image: Image.Image, header: _Header, key: bytes, packed: bytearray) -> Image.Image:
    """With alpha 0 where a pixel has the transparent colour, 255 elsewhere; colours are compared at all their bits."""
    samples = _SAMPLES[header.colour]
    if header.colour not in (_GREY, _RGB) or len(key) < 2 * samples:
        return image
    mask = (1 << header.bits) - 1
    wanted = [value & mask for value in struct.unpack_from(f">{samples}H", key)]
    if (header.colour, header.bits) == (_RGB, 16):
        lower = Image.new("RGB", header.size)
        _unpack(packed, lower, _LOWER_BITS_OF_RGB, header)
        upper_wanted, lower_wanted = ([value >> shift & 255 for value in wanted] for shift in (8, 0))
        alpha = _where_differs((image, _as_number(upper_wanted)), (lower, _as_number(lower_wanted)))
        del lower
    elif header.colour == _RGB:
        alpha = _where_differs((image, _as_number(wanted)))
    elif header.bits == 16:
        alpha = _where_differs((image, wanted[0]))
        image = _grey_in_8_bits(image)
    else:
        image = image.convert("L")
        alpha = _where_differs((image, wanted[0] * 255 // mask))
    image.putalpha(alpha)
    return image


def _as_number(colour: list[int]) -> int:
    return int.from_bytes(bytes(colour), "little")


def _strips(size: tuple[int, int]) -> Iterator[tuple[int, int, int, int]]:
    """Boxes of whole rows: what is made of one on the way stays within a few megabytes."""
    width, height = size
    rows = max(1, _PIXELS_AT_ONCE // width)
    for top in range(0, height, rows):
        yield 0, top, width, min(top + rows, height)


def _where_differs(*wanted: tuple[Image.Image, int]) -> Image.Image:
    """L: 0 where the pixel of every one of these images is the one that is wanted of it, 255 elsewhere."""
    alpha = Image.new("L", wanted[0][0].size)
    for box in _strips(alpha.size):
        differs = np.zeros((box[3] - box[1], box[2]), np.bool_)
        for image, pixel in wanted:
            packing, kind = _AS_NUMBERS[image.mode]
            pixels = np.frombuffer(image.crop(box).tobytes("raw", packing), kind)
            differs |= ((pixels & _COLOURS_ALONE if image.mode == "RGB" else pixels) != pixel).reshape(differs.shape)
        alpha.paste(Image.fromarray(differs.view(np.uint8) * np.uint8(255)), box)
    return alpha


def _grey_in_8_bits(image: Image.Image) -> Image.Image:
    """L, of grey of 16 bits."""
    grey = Image.new("L", image.size)
    for box in _strips(image.size):
        grey.paste(Image.fromarray(FROM_16_BIT[np.asarray(image.crop(box))]), box)
    return grey
