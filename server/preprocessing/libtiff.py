"""Let the libtiff within Pillow decompress, and nothing else.

Pillow knows some layouts of samples and takes others for them; libtiff's decompression needs no such knowledge. The
blocks to decompress are put into a small TIFF of our own that calls them strips of grey bytes, and Pillow reads that.

libtiff tells of damage on standard error unless it is told to be silent.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import struct
from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from server.errors import UnreadablePicture, UnsupportedPicture
from server.preprocessing import tiff_directory as tags

Block = bytes | memoryview

_SHORT, _LONG, _RATIONAL, _UNDEFINED = 3, 4, 5, 7
_SAMPLES = {"1": 1, "L": 1, "LA": 2, "RGB": 3, "YCbCr": 3, "CMYK": 4}
_PHOTOMETRIC = {"1": 1, "L": 1, "LA": 1, "RGB": 2, "YCbCr": 6, "CMYK": 5}

_NAMES = {"zstd": "Zstandard", "lzma": "LZMA", "jpeg": "JPEG", "tiff_lzw": "LZW"}

# Pillow's own limit on a block, which it does not name when it refuses one.
_MOST_BYTES = 2**31 - 2**16


def silence() -> bool:
    """Have libtiff write nothing to standard error, in any thread. False where its handlers are out of reach.

    Pillow's extension module is linked with libtiff, so its symbols are found through the module, unless a build has
    hidden them. Handlers without context belong to the whole library; without one, libtiff says nothing.
    """
    try:
        library = ctypes.CDLL(Image.core.__file__)  # type: ignore[attr-defined]
        setters = (
            library.TIFFSetErrorHandler,
            library.TIFFSetErrorHandlerExt,
            library.TIFFSetWarningHandler,
            library.TIFFSetWarningHandlerExt,
        )
    except (AttributeError, OSError):
        return False
    for setter in setters:
        setter.argtypes, setter.restype = [ctypes.c_void_p], ctypes.c_void_p
        setter(None)
    return True


silence()


def decompress(
    blocks: Sequence[Block],
    compression: int,
    mode: str,
    size: tuple[int, int],
    rows: int,
    further: Mapping[int, bytes | Sequence[int] | Sequence[tuple[int, int]]] | None = None,
) -> Image.Image:
    """Decompress blocks of `rows` rows each (the last may have fewer) into one image of this size, one upon another.

    `mode`: L for bytes of any meaning, 1 for CCITT, YCbCr (which becomes RGB), LA (any two bytes), RGB or CMYK (any
    four) for JPEG and for bytes with a predictor. `further`: tags of theirs. Raises UnsupportedPicture where this
    libtiff lacks the compression, or the block is too large for Pillow; UnreadablePicture for damage.
    """
    width, height = size
    samples = _SAMPLES[mode]
    if width * samples * min(rows, height) > _MOST_BYTES:
        raise UnsupportedPicture(
            "This TIFF has a strip or tile of more than 2 GiB, the bound of the library that reads it; "
            "save it with smaller ones."
        )
    values: dict[int, bytes | Sequence[int] | Sequence[tuple[int, int]]] = {
        tags.BITS: [1 if mode == "1" else 8] * samples,
        tags.COMPRESSION: [compression],
        tags.PHOTOMETRIC: [_PHOTOMETRIC[mode]],
        tags.SAMPLES: [samples],
        tags.PLANAR: [1],
        **({tags.EXTRA_SAMPLES: [2]} if mode == "LA" else {}),
        **(further or {}),
    }
    data = _written(blocks, width, height, rows, values)
    try:
        image = Image.open(io.BytesIO(data), formats=("TIFF",))
        image.load()
    except OSError as exc:
        name = TiffImagePlugin.COMPRESSION_INFO[compression]
        if not _has_codec(name):
            raise UnsupportedPicture(
                f"This TIFF is compressed by {_NAMES.get(name, name)}, and this server's libtiff was built without it; "
                "save it with LZW or Deflate compression."
            ) from exc
        raise UnreadablePicture() from exc
    return image


def samples_of(image: Image.Image, top: int, bottom: int) -> NDArray[np.uint8]:
    """uint8[rows, width, samples] of these rows, as far as there are so many; Pillow holds twice what it hands over."""
    rows = image.crop((0, top, image.width, min(image.height, bottom)))
    return np.asarray(rows, np.uint8).reshape(rows.height, rows.width, -1)


def _written(
    blocks: Sequence[Block],
    width: int,
    height: int,
    rows: int,
    values: Mapping[int, bytes | Sequence[int] | Sequence[tuple[int, int]]],
) -> bytes:
    """A little-endian TIFF of one page with these blocks as its strips."""
    counts = np.fromiter(map(len, blocks), np.uint32, len(blocks))
    starts = 8 + np.concatenate(([0], np.cumsum(counts[:-1], dtype=np.uint32))).astype(np.uint32)
    every = {
        **values,
        tags.WIDTH: struct.pack("<I", width),
        tags.HEIGHT: struct.pack("<I", height),
        tags.ROWS_PER_STRIP: struct.pack("<I", rows),
        tags.STRIP_OFFSETS: starts.astype("<u4").tobytes(),
        tags.STRIP_COUNTS: counts.astype("<u4").tobytes(),
    }
    longs = (tags.WIDTH, tags.HEIGHT, tags.ROWS_PER_STRIP, tags.STRIP_OFFSETS, tags.STRIP_COUNTS)
    body = b"".join(blocks)
    body += b"\0" * (len(body) % 2)
    tail_at = 8 + len(body)
    directory, tail = [struct.pack("<H", len(every))], b""
    for tag in sorted(every):
        value = every[tag]
        if isinstance(value, bytes):
            kind = _LONG if tag in longs else _UNDEFINED
            raw, count = value, len(value) // (4 if kind == _LONG else 1)
        elif isinstance(value[0], tuple):
            flat = [number for fraction in value for number in fraction]  # type: ignore[union-attr]
            kind, count, raw = _RATIONAL, len(value), struct.pack(f"<{len(flat)}I", *flat)
        else:
            kind, count, raw = _SHORT, len(value), struct.pack(f"<{len(value)}H", *value)
        if len(raw) > 4:
            raw, tail = struct.pack("<I", tail_at + len(tail)), tail + raw + b"\0" * (len(raw) % 2)
        directory.append(struct.pack("<HHI", tag, kind, count) + raw.ljust(4, b"\0"))
    return b"".join((b"II*\0", struct.pack("<I", tail_at + len(tail)), body, tail, *directory, b"\0\0\0\0"))


@cache
def _has_codec(name: str) -> bool:
    """Whether Pillow's libtiff was built with a compression, by Pillow's name; by whether it can write it."""
    with contextlib.suppress(OSError):
        Image.new("1" if "group" in name or "ccitt" in name else "RGB", (8, 8)).save(
            io.BytesIO(), "TIFF", compression=name
        )
        return True
    return False
