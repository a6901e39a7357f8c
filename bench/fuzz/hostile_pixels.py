"""Hostile PNG and JPEG that are costly to read to their end: many parts, or many pixels in few bytes. See `hostile`."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial

import numpy as np
from PIL import Image

from bench.decoders import case as art
from bench.decoders.corpus import jpeg as jpeg_files
from bench.decoders.writers import png
from bench.fuzz.hostile_file import SIDE, UPLOAD, Hostile, packed_zeros

_HEIGHT = 7900
"""Rows of large JPEGs: a multiple of 4, not of 8, so that the last row of blocks is in part beyond the picture."""


def of_png() -> Iterator[Hostile]:
    """Those that are read by more than Pillow: text that is searched, and samples of 16 bits."""

    def with_chunks(*chunks: tuple[bytes, bytes], times: int = 1) -> Callable[[], bytes]:
        before = b"".join(png.chunk(kind, data) for kind, data in chunks)
        return lambda: png.write(art.blocks(), 8, png.RGB, before=before * times)

    raw = b"Raw profile type exif\0\0"
    for lines in (20_000, 500_000):
        blank = raw + zlib.compress(b" \n" * lines)
        yield Hostile("PNG", f"EXIF as text of {lines:,} blank lines", with_chunks((b"zTXt", blank)))
    packer = zlib.compressobj(9)
    damaged = packer.compress(bytes(1_000_000)) + packer.flush(zlib.Z_FULL_FLUSH) + b"\xff\xff\xff\xff"
    xmp = (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + damaged)
    for times in (100, 30_000):
        yield Hostile("PNG", f"{times:,} damaged XMP that unpack to 1 MB", with_chunks(xmp, times=times))
    for name, bits, colours, samples, key in (
        ("RGB of 16 bits", 16, png.RGB, 3, b""),
        ("RGB of 16 bits with a transparent colour", 16, png.RGB, 3, bytes(6)),
        ("RGB of 8 bits with a transparent colour", 8, png.RGB, 3, bytes(6)),
        ("grey of 16 bits with a transparent one", 16, png.GREY, 1, bytes(2)),
        ("grey of 16 bits with alpha", 16, png.GREY_ALPHA, 2, b""),
        ("RGBA of 16 bits", 16, png.RGBA, 4, b""),
    ):
        for ending, wrong in (("", False), (", its last checksum wrong", True)):
            yield Hostile("PNG", f"64 megapixels, {name}{ending}", _large(bits, colours, samples, key, wrong))
    yield Hostile("PNG", "64 megapixels, interlaced RGB", _large(8, png.RGB, 3, b"", False, interlaced=True))


def _large(
    bits: int, colours: int, samples: int, key: bytes, wrong: bool, *, interlaced: bool = False
) -> Callable[[], bytes]:
    def make() -> bytes:
        rows = SIDE * (1 + SIDE * bits * samples // 8) + interlaced * 7 * SIDE
        data = packed_zeros(rows)
        if wrong:
            data = data[:-4] + bytes(byte ^ 255 for byte in data[-4:])
        transparent = png.chunk(b"tRNS", key) if key else b""
        head = png.SIGNATURE + png.header(SIDE, SIDE, bits, colours, interlaced)
        return head + transparent + png.chunk(b"IDAT", data) + png.chunk(b"IEND")

    return make


def of_jpeg() -> Iterator[Hostile]:
    """An upload's worth of segments that hold nothing, and scans that take many pixels in few bytes."""
    plain, late = jpeg_files.saved(art.soft()), jpeg_files.saved(art.soft(), progressive=True)

    def among(data: bytes, at: int, part: bytes) -> Callable[[], bytes]:
        return lambda: data[:at] + part * (UPLOAD // len(part)) + data[at:]

    last_scan = late.rindex(b"\xff\xda")
    for name, part in (
        ("empty comments", b"\xff\xfe\0\2"),
        ("empty Huffman tables", b"\xff\xc4\0\2"),
        ("marks that stand alone", b"\xff\x01"),
        ("marks of number 0", b"\xff\x00"),
        ("fill bytes", b"\xff"),
    ):
        yield Hostile("JPEG", f"31 MB of {name} before its frame", among(plain, 20, part))
        yield Hostile("JPEG", f"31 MB of {name} between its scans", among(late, last_scan, part))
    yield Hostile("JPEG", "64 megapixels of one grey, without its end mark", lambda: _uniform()[:-2])
    yield Hostile("JPEG", "64 megapixels, progressive", _gradient)
    yield Hostile("JPEG", "64 megapixels, progressive, without its end mark", lambda: _gradient()[:-2])
    for count, side in ((20, SIDE), (90, SIDE), (90, 2000)):
        whole = side * (side - 100) / 1e6
        name = f"{whole:.0f} megapixels in {count} scans"
        yield Hostile("JPEG", name, partial(scans, side, side - 100, count))
        yield Hostile("JPEG", f"{name}, without its end mark", partial(scans, side, side - 100, count, end=b""))


def _uniform() -> bytes:
    return jpeg_files.saved(Image.new("RGB", (SIDE, _HEIGHT), (128, 128, 128)), quality=80)


@cache
def _gradient() -> bytes:
    cells = np.random.default_rng(17).integers(0, 256, (60, 80, 3), np.uint8)
    picture = Image.fromarray(cells).resize((SIDE, _HEIGHT), Image.Resampling.BILINEAR)
    return jpeg_files.saved(picture, quality=80, progressive=True)


def scans(width: int, height: int, count: int, end: bytes = b"\xff\xd9") -> bytes:
    """A grey progressive JPEG, sound and whole: `count` scans, of which each but the first takes some 60 bytes.

    The first says that no block differs from the one before it. Each other says of one coefficient that it is zero in
    all blocks: at half precision, or the last bit of one that was said so.
    """
    if not 2 <= count <= 127:
        raise ValueError("a block has 63 coefficients beside the first, each in two steps")
    blocks = -(-width // 8) * -(-height // 8)
    out = b"\xff\xd8" + jpeg_files.segment(0xDB, b"\0" + b"\1" * 64)
    out += jpeg_files.segment(0xC2, struct.pack(">BHHBBBB", 8, height, width, 1, 1, 0x11, 0))
    # One code of one bit in each table: "no difference", and "so many blocks end here" with 14 bits of their number.
    for table, symbol in ((0x00, 0x00), (0x10, 0xE0)):
        out += jpeg_files.segment(0xC4, bytes([table, 1]) + bytes(15) + bytes([symbol]))
    out += _scan(0, 0, _bits("0" * blocks))
    runs = -(-blocks // 32767)
    each = [blocks // runs + (k < blocks % runs) for k in range(runs)]
    if min(each) < 1 << 14:
        raise ValueError("too few blocks for runs of 14 bits")
    ends = _bits("".join("0" + format(run - (1 << 14), "014b") for run in each))
    steps: Sequence[tuple[int, int]] = [(k, step) for step in (0x01, 0x10) for k in range(1, 64)]
    return out + b"".join(_scan(k, step, ends) for k, step in steps[: count - 1]) + end


def _scan(coefficient: int, step: int, data: bytes) -> bytes:
    head = bytes([1, 1, 0, coefficient, coefficient, step])
    return jpeg_files.segment(0xDA, head) + data


def _bits(digits: str) -> bytes:
    """Filled up with ones, and a zero behind each byte of ones, as a scan's data are."""
    digits += "1" * (-len(digits) % 8)
    return int(digits, 2).to_bytes(len(digits) // 8).replace(b"\xff", b"\xff\0")
