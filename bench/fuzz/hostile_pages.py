"""Hostile TIFF whose pixels take far more time than bytes: every strip or tile is the same bytes. See `hostile`."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from bench.decoders import case as art
from bench.decoders.corpus import jpeg as jpeg_files
from bench.decoders.writers.tiff import BLACK_IS_ZERO, CMYK, DEFLATE, LAB, LONG, RGB, SHORT, YCBCR
from bench.fuzz.hostile_file import SIDE, UPLOAD, Hostile, packed_zeros

_ROWS = 100
_TILE = 16
_JPEG = 7
_CODES = {1: "B", SHORT: "H", LONG: "I"}
# Name, bits, samples, photometric; then extra samples, and tags.
_KINDS: Sequence[tuple[str, int, int, int, Sequence[int], Mapping[int, int]]] = (
    ("RGB of 3 bits", 3, 3, RGB, (), {}),
    ("RGB of 12 bits", 12, 3, RGB, (), {}),
    ("RGB of 13 bits", 13, 3, RGB, (), {}),
    ("15 samples of 8 bits", 8, 15, RGB, (0,) * 12, {}),
    ("15 samples of 13 bits", 13, 15, RGB, (0,) * 12, {}),
    ("15 samples of 16 bits", 16, 15, RGB, (0,) * 12, {}),
    ("RGB of 16 bits with premultiplied alpha", 16, 4, RGB, (1,), {}),
    ("RGB of 16 bits, predicted", 16, 3, RGB, (), {317: 2}),
    ("grey of 32 bits", 32, 1, BLACK_IS_ZERO, (), {}),
    ("fractions of 64 bits", 64, 1, BLACK_IS_ZERO, (), {339: 3}),
    ("fractions of 64 bits, predicted", 64, 1, BLACK_IS_ZERO, (), {339: 3, 317: 3}),
    ("Lab", 8, 3, LAB, (), {}),
    ("Lab of 16 bits", 16, 3, LAB, (), {}),
    ("Lab with premultiplied alpha", 8, 4, LAB, (1,), {}),
    ("CMYK of 16 bits with alpha", 16, 5, CMYK, (2,), {}),
)


def of_pages() -> Iterator[Hostile]:
    """64 megapixels of each kind that is brought to 8 bits here, and tables that are read for each page."""
    for name, bits, samples, photometric, extra, more in _KINDS:
        yield Hostile("TIFF", f"64 megapixels, {name}", _strips(bits, samples, photometric, extra, more))
    for across, down in ((1, 1), (2, 2), (4, 1)):
        # A cell of so many pixels has one pair of colours.
        size = SIDE * _ROWS + 2 * (SIDE // across) * (_ROWS // down)
        tags = _common(8, 3, YCBCR) | {278: (LONG, [_ROWS]), 530: (SHORT, [across, down])}
        name = f"64 megapixels, YCbCr of {across} x {down}"
        yield Hostile("TIFF", name, partial(_of_zeros, tags, size))
    tiled = {322: (LONG, [_TILE]), 323: (LONG, [_TILE])}
    cells = (SIDE // _TILE) ** 2
    yield Hostile("TIFF", f"64 megapixels in {cells:,} tiles", lambda: _repeated(
        _common(8, 3, RGB) | tiled, packed_zeros(3 * _TILE**2), cells))  # fmt: skip
    small = jpeg_files.saved(art.soft()[:_TILE, :_TILE], subsampling=0)
    yield Hostile("TIFF", f"64 megapixels in {cells:,} tiles of JPEG", lambda: _repeated(
        _common(8, 3, YCBCR) | tiled | {259: (SHORT, [_JPEG]), 530: (SHORT, [1, 1])}, small, cells))  # fmt: skip
    planes = _common(1, 15, RGB, (0,) * 12) | {278: (LONG, [_ROWS]), 284: (SHORT, [2])}
    yield Hostile("TIFF", "64 megapixels, 15 planes of 1 bit", lambda: _repeated(
        planes, packed_zeros(SIDE // 8 * _ROWS), 15 * SIDE // _ROWS))  # fmt: skip
    yield Hostile("TIFF", "tags of 31,000,000 bytes in each of 100 pages", _long_tags)


def _common(
    bits: int, samples: int, photometric: int, extra: Sequence[int] = ()
) -> dict[int, tuple[int, Sequence[int]]]:
    tags: dict[int, tuple[int, Sequence[int]]] = {
        256: (LONG, [SIDE]),
        257: (LONG, [SIDE]),
        258: (SHORT, [bits] * samples),
        259: (SHORT, [DEFLATE]),
        262: (SHORT, [photometric]),
        277: (SHORT, [samples]),
    }
    return tags | ({338: (SHORT, extra)} if extra else {})


def _strips(
    bits: int, samples: int, photometric: int, extra: Sequence[int], more: Mapping[int, int]
) -> Callable[[], bytes]:
    tags = _common(bits, samples, photometric, extra) | {278: (LONG, [_ROWS])}
    tags |= {tag: (SHORT, [value] * (samples if tag == 339 else 1)) for tag, value in more.items()}
    size = -(-SIDE * bits * samples // 8) * _ROWS
    return partial(_of_zeros, tags, size)


def _of_zeros(tags: Mapping[int, tuple[int, Sequence[int]]], size: int) -> bytes:
    """In strips of so many bytes once unpacked."""
    return _repeated(tags, packed_zeros(size), SIDE // _ROWS)


def _repeated(tags: Mapping[int, tuple[int, Sequence[int]]], part: bytes, count: int) -> bytes:
    """A file of one page, whose `count` strips or tiles all lie in the same place."""
    where, lengths = (324, 325) if 322 in tags else (273, 279)
    whole = {**tags, where: (LONG, [8] * count), lengths: (LONG, [len(part)] * count)}
    body = part + bytes(len(part) % 2)
    entries = b""
    for tag, (kind, values) in sorted(whole.items()):
        raw = struct.pack(f"<{len(values)}{_CODES[kind]}", *values)
        if len(raw) > 4:
            raw, place = struct.pack("<I", 8 + len(body)), raw
            body += place + bytes(len(place) % 2)
        entries += struct.pack("<HHI", tag, kind, len(values)) + raw.ljust(4, b"\0")
    directory = struct.pack("<H", len(whole)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(body)) + body + directory


def _long_tags() -> bytes:
    """Each page says by numbers of one byte, of which it has 31,000,000, what others say by one number."""
    pages = 100
    start = 8 + UPLOAD
    tags = [(tag, 1, UPLOAD, 8) for tag in (254, 259, 262, 273)]
    tags += [(256, LONG, 1, 16), (257, LONG, 1, 16), (258, SHORT, 1, 8), (277, SHORT, 1, 1), (279, LONG, 1, 256)]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *one) for one in sorted(tags))
    size = len(directory) + 4
    links = [start + (k + 1) * size for k in range(pages - 1)] + [0]
    body = b"\1" * UPLOAD + b"".join(directory + struct.pack("<I", link) for link in links)
    return b"II*\0" + struct.pack("<I", start) + body
