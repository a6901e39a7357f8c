"""Files that claim or cost far more than they hold, against our own bounds: made when needed, never kept.

Each is built from the format's rules alone. Whoever has bounds refuses them or reads them in a moment.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator

import numpy as np

from bench.decoders import case as art
from bench.decoders.corpus import jpeg as jpeg_files
from bench.decoders.writers import bmp, gif, metadata, png
from bench.fuzz.hostile_file import SIDE, Hostile, zeros
from bench.fuzz.hostile_items import of_items
from bench.fuzz.hostile_pages import of_pages
from bench.fuzz.hostile_parts import of_boxes, of_tiff, of_webp
from bench.fuzz.hostile_pixels import of_jpeg, of_png


def hostile() -> Iterator[Hostile]:
    """All of them."""
    yield from _png()
    yield from _jpeg()
    yield from _gif()
    yield from _bmp()
    yield from of_tiff()
    yield from of_webp()
    yield from of_boxes()
    yield from of_png()
    yield from of_jpeg()
    yield from of_pages()
    yield from of_items()


def _png() -> Iterator[Hostile]:
    def sized(width: int, height: int, bits: int = 8, colours: int = png.RGB) -> bytes:
        body = png.chunk(b"IDAT", zlib.compress(bytes(1000)))
        return png.SIGNATURE + png.header(width, height, bits, colours) + body + png.chunk(b"IEND")

    def with_chunk(kind: bytes, data: bytes) -> Callable[[], bytes]:
        return lambda: png.write(art.blocks(), 8, png.RGB, before=png.chunk(kind, data))

    yield Hostile("PNG", "65,535 x 65,535 by its header", lambda: sized(65535, 65535))
    yield Hostile("PNG", "2,147,483,647 a side by its header", lambda: sized(2**31 - 1, 2**31 - 1))
    yield Hostile("PNG", "64 megapixels by its header, 1 kB of pixels", lambda: sized(SIDE, SIDE, 16, png.RGBA))
    yield Hostile("PNG", "2,147,483,647 x 1 by its header", lambda: sized(2**31 - 1, 1))
    yield Hostile("PNG", "pixels that unpack to 1 GB", lambda: _unpacking(zeros(1000)))
    yield Hostile("PNG", "profile of 100 MB", with_chunk(b"iCCP", b"p\0\0" + zeros(100)))
    yield Hostile("PNG", "compressed text of 100 MB", with_chunk(b"zTXt", b"Comment\0\0" + zeros(100)))
    yield Hostile("PNG", "international text of 100 MB", with_chunk(b"iTXt", b"c\0\1\0\0\0" + zeros(100)))
    yield Hostile("PNG", "EXIF as text of 100 MB", with_chunk(b"zTXt", b"Raw profile type exif\0\0" + zeros(100)))
    yield Hostile("PNG", "XMP of 100 MB", with_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zeros(100)))
    yield Hostile(
        "PNG", "100 profiles of 4 MB", lambda: png.write(art.blocks(), 8, png.RGB, before=_twelve(zeros(4)) * 100)
    )
    comments = png.chunk(b"tEXt", b"a\0b") * 100_000
    yield Hostile("PNG", "100,000 chunks", lambda: png.write(art.blocks(), 8, png.RGB, before=comments))
    yield Hostile(
        "PNG", "100,000 empty IDAT", lambda: png.write(art.blocks(), 8, png.RGB, middle=png.chunk(b"IDAT") * 100_000)
    )
    yield Hostile("PNG", "10,000 frames", _apng)
    yield Hostile("PNG", "frame count of 4 billion", with_chunk(b"acTL", struct.pack(">II", 2**32 - 1, 0)))
    for name, data in _profiles().items():
        yield Hostile("PNG", name, with_chunk(b"iCCP", b"p\0\0" + zlib.compress(data)))


def _twelve(packed: bytes) -> bytes:
    return png.chunk(b"iCCP", b"p\0\0" + packed)


def _unpacking(packed: bytes) -> bytes:
    head = png.SIGNATURE + png.header(64, 64, 8, png.RGB)
    return head + png.chunk(b"IDAT", packed) + png.chunk(b"IEND")


def _apng() -> bytes:
    size = struct.pack(">II", art.WIDTH, art.HEIGHT)
    body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in art.blocks()))

    def control(number: int) -> bytes:
        return png.chunk(b"fcTL", struct.pack(">I", number) + size + struct.pack(">IIHHBB", 0, 0, 1, 10, 0, 0))

    frames = b"".join(
        control(2 * k + 1) + png.chunk(b"fdAT", struct.pack(">I", 2 * k + 2) + body) for k in range(10_000)
    )
    start = png.chunk(b"acTL", struct.pack(">II", 10_001, 0)) + control(0)
    return png.write(art.blocks(), 8, png.RGB, middle=start, after=frames)


def _profiles() -> dict[str, bytes]:
    """ICC profiles that promise more than they hold."""
    sound = metadata.profile("sRGB")
    tags = struct.pack(">I", 2**32 - 1)
    overlapping = sound[:128] + struct.pack(">I", 100) + struct.pack(">4sII", b"rXYZ", 132, 20) * 100
    table = b"mft2" + bytes(4) + bytes((15, 15, 255, 0)) + bytes(36) + struct.pack(">HH", 4096, 4096)
    lut = sound[:128] + struct.pack(">I", 1) + struct.pack(">4sII", b"A2B0", 144, 2**31) + table
    return {
        "profile of 4 billion tags": sound[:128] + tags + sound[132:],
        "profile that claims 4 GB": struct.pack(">I", 2**32 - 1) + sound[4:],
        "profile of tags that point at themselves": overlapping,
        "profile with a table of 15 colours": lut,
        "profile within a profile": sound + sound * 20,
    }


def _jpeg() -> Iterator[Hostile]:
    def sized(width: int, height: int, *, progressive: bool = False) -> bytes:
        plain = jpeg_files.saved(art.soft(), progressive=progressive)
        at = plain.index(b"\xff\xc2" if progressive else b"\xff\xc0") + 5
        return plain[:at] + struct.pack(">HH", height, width) + plain[at + 4 :]

    def scans(count: int, side: int | None = None) -> bytes:
        late = sized(side, side, progressive=True) if side else jpeg_files.saved(art.soft(), progressive=True)
        # The first of its scans again and again, with next to nothing in it.
        first = late.index(b"\xff\xda")
        (length,) = struct.unpack_from(">H", late, first + 2)
        scan = late[first : first + 2 + length] + b"\0\0"
        return late[:first] + scan * count + b"\xff\xd9"

    plain = jpeg_files.saved(art.soft())

    def among(data: bytes) -> Callable[[], bytes]:
        return lambda: plain[:20] + data + plain[20:]

    yield Hostile("JPEG", "65,535 x 65,535 by its header", lambda: sized(65535, 65535))
    yield Hostile("JPEG", "108 megapixels by its header", lambda: sized(12000, 9000))
    yield Hostile("JPEG", "108 megapixels by its header, progressive", lambda: sized(12000, 9000, progressive=True))
    yield Hostile("JPEG", "64 megapixels by its header", lambda: sized(SIDE, SIDE))
    yield Hostile("JPEG", "64 megapixels by its header, progressive", lambda: sized(SIDE, SIDE, progressive=True))
    yield Hostile("JPEG", "5,000 scans", lambda: scans(5000))
    yield Hostile("JPEG", "90 scans of 64 megapixels, of 2 bytes each", lambda: scans(90, SIDE))
    yield Hostile("JPEG", "0 x 0 by its header", lambda: sized(0, 0))
    yield Hostile("JPEG", "100,000 comments", among(jpeg_files.segment(0xFE, b"a") * 100_000))
    yield Hostile("JPEG", "1,000,000 fill bytes", among(b"\xff" * 1_000_000))
    yield Hostile("JPEG", "10,000 quantisation tables", among(jpeg_files.segment(0xDB, bytes(1) + b"\1" * 64) * 10_000))
    parts = b"".join(
        jpeg_files.segment(0xE2, b"ICC_PROFILE\0" + bytes((number, 255)) + bytes(65_000)) for number in range(1, 256)
    )
    yield Hostile("JPEG", "profile of 16 MB in 255 parts", among(parts))
    for name, data in _profiles().items():
        yield Hostile("JPEG", name, among(jpeg_files.segment(0xE2, b"ICC_PROFILE\0\1\1" + data[:60_000])))
    loop = b"II*\0\x08\0\0\0" + struct.pack("<H", 65535) + struct.pack("<HHII", 0x8769, 4, 1, 8) * 5000
    yield Hostile("JPEG", "EXIF of 65,535 entries that point at themselves", among(
        jpeg_files.segment(0xE1, metadata.EXIF_PREFIX + loop)))  # fmt: skip
    xmp = b"http://ns.adobe.com/xap/1.0/\0" + b" Orientation" * 5000
    yield Hostile("JPEG", "XMP that is nearly an orientation, 5,000 times", among(jpeg_files.segment(0xE1, xmp)))


def _gif() -> Iterator[Hostile]:
    palette = [(0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255)]
    dots = np.zeros((4, 4), np.uint8)
    small = gif.frame(dots, 2)

    def screen(width: int, height: int, frames: bytes = small) -> bytes:
        return gif.screen(width, height, palette) + frames + gif.TRAILER

    def large(width: int, height: int) -> bytes:
        return small[:5] + struct.pack("<HH", width, height) + small[9:]

    yield Hostile("GIF", "screen of 65,535 x 65,535", lambda: screen(65535, 65535))
    yield Hostile("GIF", "screen of 64 megapixels, frame of 4 x 4", lambda: screen(SIDE, SIDE))
    yield Hostile("GIF", "frame of 65,535 x 65,535 on a screen of 4 x 4", lambda: screen(4, 4, large(65535, 65535)))
    yield Hostile("GIF", "frame of 64 megapixels", lambda: screen(SIDE, SIDE, large(SIDE, SIDE)))
    yield Hostile("GIF", "screen of 0 x 0", lambda: screen(0, 0))
    yield Hostile("GIF", "10,000 frames", lambda: screen(4, 4, (gif.control() + small) * 10_000))
    yield Hostile("GIF", "10,000 frames of 64 megapixels", lambda: screen(SIDE, SIDE, small + (
        gif.control(disposal=2) + large(SIDE, SIDE)) * 10_000))  # fmt: skip
    yield Hostile("GIF", "100,000 comments", lambda: screen(4, 4, gif.comment(b"a") * 100_000 + small))
    yield Hostile("GIF", "comment of 20 MB", lambda: screen(4, 4, gif.comment(bytes(20_000_000)) + small))


def _bmp() -> Iterator[Hostile]:
    def sized(width: int, height: int, bits: int = 24, compression: int = 0) -> bytes:
        palette = [(k, k, k) for k in range(256)] if bits == 8 else ()
        return bmp.write(width, height, bits, bytes(1000), compression=compression, palette=palette)

    yield Hostile("BMP", "2,147,483,647 a side by its header", lambda: sized(2**31 - 1, 2**31 - 1))
    yield Hostile("BMP", "a height of -2,147,483,648", lambda: sized(1, -(2**31)))
    yield Hostile("BMP", "a width below nothing", lambda: sized(-100, 100))
    yield Hostile("BMP", "64 megapixels by its header", lambda: sized(SIDE, SIDE))
    yield Hostile("BMP", "64 megapixels of runs, 1 kB of them", lambda: sized(SIDE, SIDE, 8, bmp.RLE8))
    jump = b"\0\2\xff\xff" * 50_000
    yield Hostile("BMP", "runs that jump away 50,000 times", lambda: bmp.write(
        100, 100, 8, jump, compression=bmp.RLE8, palette=[(k, k, k) for k in range(256)]))  # fmt: skip
    yield Hostile("BMP", "palette of 4 billion", lambda: bmp.write(10, 10, 8, bytes(200), used=2**32 - 1))
