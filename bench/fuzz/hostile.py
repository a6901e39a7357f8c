"""Files that claim or cost far more than they hold, against our own bounds: made when needed, never kept.

Each is built from the format's rules alone. Whoever has bounds refuses them or reads them in a moment.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial

import numpy as np

from bench.decoders import case as art
from bench.decoders.corpus import coded, heif
from bench.decoders.corpus import jpeg as jpeg_files
from bench.decoders.corpus import webp as webp_files
from bench.decoders.writers import bmp, gif, jxl, metadata, png, tiff

_SIDE = 8000
"""Pixels a side: squared, as many as a server accepts that is given no other bound."""


@dataclass(frozen=True, slots=True)
class Hostile:
    """A file, made when asked for: some are large."""

    format: str
    name: str
    make: Callable[[], bytes]

    @property
    def title(self) -> str:
        return f"{self.format}: {self.name}"


def hostile() -> Iterator[Hostile]:
    """All of them."""
    yield from _png()
    yield from _jpeg()
    yield from _gif()
    yield from _bmp()
    yield from _tiff()
    yield from _webp()
    yield from _boxes()


@cache
def _zeros(million: int) -> bytes:
    """So many megabytes of nothing, packed."""
    packer = zlib.compressobj(1)
    return b"".join([*(packer.compress(bytes(1_000_000)) for _ in range(million)), packer.flush()])


def _png() -> Iterator[Hostile]:
    def sized(width: int, height: int, bits: int = 8, colours: int = png.RGB) -> bytes:
        body = png.chunk(b"IDAT", zlib.compress(bytes(1000)))
        return png.SIGNATURE + png.header(width, height, bits, colours) + body + png.chunk(b"IEND")

    def with_chunk(kind: bytes, data: bytes) -> Callable[[], bytes]:
        return lambda: png.write(art.blocks(), 8, png.RGB, before=png.chunk(kind, data))

    yield Hostile("PNG", "65,535 x 65,535 by its header", lambda: sized(65535, 65535))
    yield Hostile("PNG", "2,147,483,647 a side by its header", lambda: sized(2**31 - 1, 2**31 - 1))
    yield Hostile("PNG", "64 megapixels by its header, 1 kB of pixels", lambda: sized(_SIDE, _SIDE, 16, png.RGBA))
    yield Hostile("PNG", "2,147,483,647 x 1 by its header", lambda: sized(2**31 - 1, 1))
    yield Hostile("PNG", "pixels that unpack to 1 GB", lambda: _unpacking(_zeros(1000)))
    yield Hostile("PNG", "profile of 100 MB", with_chunk(b"iCCP", b"p\0\0" + _zeros(100)))
    yield Hostile("PNG", "compressed text of 100 MB", with_chunk(b"zTXt", b"Comment\0\0" + _zeros(100)))
    yield Hostile("PNG", "international text of 100 MB", with_chunk(b"iTXt", b"c\0\1\0\0\0" + _zeros(100)))
    yield Hostile("PNG", "EXIF as text of 100 MB", with_chunk(b"zTXt", b"Raw profile type exif\0\0" + _zeros(100)))
    yield Hostile("PNG", "XMP of 100 MB", with_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + _zeros(100)))
    yield Hostile(
        "PNG", "100 profiles of 4 MB", lambda: png.write(art.blocks(), 8, png.RGB, before=_twelve(_zeros(4)) * 100)
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
    yield Hostile("JPEG", "64 megapixels by its header", lambda: sized(_SIDE, _SIDE))
    yield Hostile("JPEG", "64 megapixels by its header, progressive", lambda: sized(_SIDE, _SIDE, progressive=True))
    yield Hostile("JPEG", "5,000 scans", lambda: scans(5000))
    yield Hostile("JPEG", "90 scans of 64 megapixels, of 2 bytes each", lambda: scans(90, _SIDE))
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
    yield Hostile("GIF", "screen of 64 megapixels, frame of 4 x 4", lambda: screen(_SIDE, _SIDE))
    yield Hostile("GIF", "frame of 65,535 x 65,535 on a screen of 4 x 4", lambda: screen(4, 4, large(65535, 65535)))
    yield Hostile("GIF", "frame of 64 megapixels", lambda: screen(_SIDE, _SIDE, large(_SIDE, _SIDE)))
    yield Hostile("GIF", "screen of 0 x 0", lambda: screen(0, 0))
    yield Hostile("GIF", "10,000 frames", lambda: screen(4, 4, (gif.control() + small) * 10_000))
    yield Hostile("GIF", "10,000 frames of 64 megapixels", lambda: screen(_SIDE, _SIDE, small + (
        gif.control(disposal=2) + large(_SIDE, _SIDE)) * 10_000))  # fmt: skip
    yield Hostile("GIF", "100,000 comments", lambda: screen(4, 4, gif.comment(b"a") * 100_000 + small))
    yield Hostile("GIF", "comment of 20 MB", lambda: screen(4, 4, gif.comment(bytes(20_000_000)) + small))


def _bmp() -> Iterator[Hostile]:
    def sized(width: int, height: int, bits: int = 24, compression: int = 0) -> bytes:
        palette = [(k, k, k) for k in range(256)] if bits == 8 else ()
        return bmp.write(width, height, bits, bytes(1000), compression=compression, palette=palette)

    yield Hostile("BMP", "2,147,483,647 a side by its header", lambda: sized(2**31 - 1, 2**31 - 1))
    yield Hostile("BMP", "a height of -2,147,483,648", lambda: sized(1, -(2**31)))
    yield Hostile("BMP", "a width below nothing", lambda: sized(-100, 100))
    yield Hostile("BMP", "64 megapixels by its header", lambda: sized(_SIDE, _SIDE))
    yield Hostile("BMP", "64 megapixels of runs, 1 kB of them", lambda: sized(_SIDE, _SIDE, 8, bmp.RLE8))
    jump = b"\0\2\xff\xff" * 50_000
    yield Hostile("BMP", "runs that jump away 50,000 times", lambda: bmp.write(
        100, 100, 8, jump, compression=bmp.RLE8, palette=[(k, k, k) for k in range(256)]))  # fmt: skip
    yield Hostile("BMP", "palette of 4 billion", lambda: bmp.write(10, 10, 8, bytes(200), used=2**32 - 1))


def _tiff() -> Iterator[Hostile]:
    def sized(width: int, height: int, **tags: list[int]) -> bytes:
        numbers = {int(tag[1:]): (tiff.LONG, values) for tag, values in tags.items()}
        changed = {256: (tiff.LONG, [width]), 257: (tiff.LONG, [height])}
        return tiff.write(tiff.page(art.blocks(), tiff.Layout(tags=changed | numbers)))

    def looping() -> bytes:
        data = bytearray(sized(art.WIDTH, art.HEIGHT))
        (start,) = struct.unpack_from("<I", data, 4)
        data[-4:] = struct.pack("<I", start)
        return bytes(data)

    def pages(count: int) -> bytes:
        one = tiff.page(np.zeros((1, 1), np.uint8), tiff.Layout(photometric=1, tags={254: (tiff.LONG, [1])}))
        return tiff.write(*[one] * count)

    def entries() -> bytes:
        return b"II*\0" + struct.pack("<IH", 8, 65535) + struct.pack("<HHII", 65000, 7, 2**32 - 1, 8) * 65535 + bytes(4)

    def unpacking(compression: int) -> bytes:
        sound = tiff.page(art.blocks(), tiff.Layout(compression=compression))
        return tiff.write(tiff.Page(sound.tags, [_zeros(1000)]))

    yield Hostile("TIFF", "4,294,967,295 a side by its header", lambda: sized(2**32 - 1, 2**32 - 1))
    yield Hostile("TIFF", "64 megapixels by its header", lambda: sized(_SIDE, _SIDE))
    yield Hostile("TIFF", "64 megapixels in a single strip of 4 kB", lambda: sized(_SIDE, _SIDE, t278=[_SIDE]))
    yield Hostile("TIFF", "64 megapixels, a strip for each row", lambda: sized(_SIDE, _SIDE, t278=[1]))
    yield Hostile("TIFF", "tiles of 2 billion a side", lambda: sized(64, 64, t322=[2**31], t323=[2**31]))
    yield Hostile("TIFF", "65,535 samples a pixel", lambda: sized(45, 30, t277=[65535]))
    yield Hostile("TIFF", "65,535 bits a sample", lambda: sized(45, 30, t258=[65535] * 3))
    yield Hostile("TIFF", "directories that go in a circle", looping)
    yield Hostile("TIFF", "10,000 reduced pages", lambda: pages(10_000))
    yield Hostile("TIFF", "65,535 entries, each of 4 GB", entries)
    yield Hostile("TIFF", "pixels that unpack to 1 GB", lambda: unpacking(tiff.DEFLATE))
    strips = {273: (tiff.LONG, [8] * 1_000_000), 279: (tiff.LONG, [2**31 - 1] * 1_000_000)}
    yield Hostile("TIFF", "1,000,000 strips of 2 GB", lambda: sized(
        45, 30, **{f"t{tag}": list(values) for tag, (_, values) in strips.items()}))  # fmt: skip
    yield Hostile("TIFF", "profile of 16 MB", lambda: sized(45, 30, t34675=[0] * 4_000_000))


def _webp() -> Iterator[Hostile]:
    still = webp_files.saved(art.blocks(), lossless=True)[12:]

    def sized(width: int, height: int) -> bytes:
        body = bytearray(still)  # 'VP8L', length, signature, then 14 bits of width and of height
        struct.pack_into("<I", body, 9, (width - 1) | (height - 1) << 14)
        return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + bytes(body)

    def frames(count: int, side: int) -> bytes:
        box = (
            struct.pack("<I", 0)[:3] * 2 + struct.pack("<I", art.WIDTH - 1)[:3] + struct.pack("<I", art.HEIGHT - 1)[:3]
        )
        frame = webp_files.chunk(b"ANMF", box + b"\x64\0\0\0" + still)
        return webp_files.container(side, side, 2, webp_files.chunk(b"ANIM", bytes(6)), frame * count)

    yield Hostile("WEBP", "16,384 x 16,384 by its header", lambda: sized(16384, 16384))
    yield Hostile("WEBP", "64 megapixels by its header", lambda: sized(_SIDE, _SIDE))
    yield Hostile("WEBP", "canvas of 16,777,216 a side", lambda: webp_files.container(2**24, 2**24, 0, still))
    yield Hostile("WEBP", "10,000 frames", lambda: frames(10_000, 64))
    yield Hostile("WEBP", "10,000 frames on 64 megapixels", lambda: frames(10_000, _SIDE))
    profile = webp_files.chunk(b"ICCP", bytes(16_000_000))
    yield Hostile("WEBP", "profile of 16 MB", lambda: webp_files.container(art.WIDTH, art.HEIGHT, 32, profile, still))
    tiny = webp_files.chunk(b"what", b"") * 100_000
    yield Hostile("WEBP", "100,000 chunks", lambda: webp_files.container(art.WIDTH, art.HEIGHT, 0, still, tiny))


def _boxes() -> Iterator[Hostile]:
    """AVIF, HEIC and JPEG XL."""
    for form, brand in (("AVIF", b"avif"), ("HEIF", b"heic")):
        yield from _of_brand(form, _box(b"ftyp", brand + bytes(4) + brand + b"mif1"))
        for case in list(coded.avif_cases() if form == "AVIF" else heif.cases())[:1]:
            yield Hostile(form, "65,535 a side by its header", partial(_grown, case.data, 65535))
            yield Hostile(form, "64 megapixels by its header", partial(_grown, case.data, _SIDE))
    yield Hostile("JXL", "1,073,741,824 a side by its header", partial(jxl.codestream, 2**30, 2**30))
    yield Hostile("JXL", "64 megapixels by its header", partial(jxl.codestream, _SIDE, _SIDE))
    parts = (_box(b"jxlp", struct.pack(">I", k)) for k in range(100_000))
    yield Hostile("JXL", "100,000 boxes", lambda: jxl.CONTAINER + _box(b"free") * 100_000)
    yield Hostile("JXL", "100,000 empty parts", lambda: jxl.CONTAINER + b"".join(parts))


def _of_brand(form: str, start: bytes) -> Iterator[Hostile]:
    def nested() -> bytes:
        data = b""
        for _ in range(10_000):
            data = _box(b"meta", bytes(4) + data)
        return start + data

    items = struct.pack(">IH", 0, 65535) + _box(b"infe", bytes(12)) * 65535
    meta = _box(b"meta", bytes(4) + _box(b"iinf", items))
    yield Hostile(form, "100,000 boxes", lambda: start + _box(b"free") * 100_000)
    yield Hostile(form, "boxes 10,000 deep", nested)
    yield Hostile(form, "65,535 items", lambda: start + meta)
    endless = struct.pack(">I4sQ", 1, b"meta", 2**63 - 1)
    yield Hostile(form, "a box of 2^63 bytes", lambda: start + endless + bytes(50))


def _box(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data) + 8) + kind + data


def _grown(data: bytes, side: int) -> bytes:
    """With another size in each box that says how large a picture is."""
    out, at = bytearray(data), data.find(b"ispe")
    while at >= 0:
        struct.pack_into(">II", out, at + 8, side, side)
        at = data.find(b"ispe", at + 4)
    return bytes(out)
