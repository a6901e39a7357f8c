"""Hostile files of formats that hold parts within parts: TIFF, WebP, AVIF, HEIC and JPEG XL. See `hostile`."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import partial

import numpy as np

from bench.decoders import case as art
from bench.decoders.corpus import coded, heif
from bench.decoders.corpus import webp as webp_files
from bench.decoders.writers import jxl, tiff
from bench.fuzz.hostile_file import SIDE, Hostile, box, zeros


def of_tiff() -> Iterator[Hostile]:
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
        return tiff.write(tiff.Page(sound.tags, [zeros(1000)]))

    yield Hostile("TIFF", "4,294,967,295 a side by its header", lambda: sized(2**32 - 1, 2**32 - 1))
    yield Hostile("TIFF", "64 megapixels by its header", lambda: sized(SIDE, SIDE))
    yield Hostile("TIFF", "64 megapixels in a single strip of 4 kB", lambda: sized(SIDE, SIDE, t278=[SIDE]))
    yield Hostile("TIFF", "64 megapixels, a strip for each row", lambda: sized(SIDE, SIDE, t278=[1]))
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


def of_webp() -> Iterator[Hostile]:
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
    yield Hostile("WEBP", "64 megapixels by its header", lambda: sized(SIDE, SIDE))
    yield Hostile("WEBP", "canvas of 16,777,216 a side", lambda: webp_files.container(2**24, 2**24, 0, still))
    yield Hostile("WEBP", "10,000 frames", lambda: frames(10_000, 64))
    yield Hostile("WEBP", "10,000 frames on 64 megapixels", lambda: frames(10_000, SIDE))
    profile = webp_files.chunk(b"ICCP", bytes(16_000_000))
    yield Hostile("WEBP", "profile of 16 MB", lambda: webp_files.container(art.WIDTH, art.HEIGHT, 32, profile, still))
    tiny = webp_files.chunk(b"what", b"") * 100_000
    yield Hostile("WEBP", "100,000 chunks", lambda: webp_files.container(art.WIDTH, art.HEIGHT, 0, still, tiny))


def of_boxes() -> Iterator[Hostile]:
    """AVIF, HEIC and JPEG XL."""
    for form, brand in (("AVIF", b"avif"), ("HEIF", b"heic")):
        yield from _of_brand(form, box(b"ftyp", brand + bytes(4) + brand + b"mif1"))
        for case in list(coded.avif_cases() if form == "AVIF" else heif.cases())[:1]:
            yield Hostile(form, "65,535 a side by its header", partial(_grown, case.data, 65535))
            yield Hostile(form, "64 megapixels by its header", partial(_grown, case.data, SIDE))
    yield Hostile("JXL", "1,073,741,824 a side by its header", partial(jxl.codestream, 2**30, 2**30))
    yield Hostile("JXL", "64 megapixels by its header", partial(jxl.codestream, SIDE, SIDE))
    parts = (box(b"jxlp", struct.pack(">I", k)) for k in range(100_000))
    yield Hostile("JXL", "100,000 boxes", lambda: jxl.CONTAINER + box(b"free") * 100_000)
    yield Hostile("JXL", "100,000 empty parts", lambda: jxl.CONTAINER + b"".join(parts))


def _of_brand(form: str, start: bytes) -> Iterator[Hostile]:
    def nested() -> bytes:
        data = b""
        for _ in range(10_000):
            data = box(b"meta", bytes(4) + data)
        return start + data

    items = struct.pack(">IH", 0, 65535) + box(b"infe", bytes(12)) * 65535
    meta = box(b"meta", bytes(4) + box(b"iinf", items))
    yield Hostile(form, "100,000 boxes", lambda: start + box(b"free") * 100_000)
    yield Hostile(form, "boxes 10,000 deep", nested)
    yield Hostile(form, "65,535 items", lambda: start + meta)
    endless = struct.pack(">I4sQ", 1, b"meta", 2**63 - 1)
    yield Hostile(form, "a box of 2^63 bytes", lambda: start + endless + bytes(50))


def _grown(data: bytes, side: int) -> bytes:
    """With another size in each box that says how large a picture is."""
    out, at = bytearray(data), data.find(b"ispe")
    while at >= 0:
        struct.pack_into(">II", out, at + 8, side, side)
        at = data.find(b"ispe", at + 4)
    return bytes(out)
