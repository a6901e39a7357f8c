"""WebP: with and without loss, alpha, animation, and odd chunks."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from bench.decoders import case as art
from bench.decoders.case import Case, Samples, Should
from bench.decoders.writers import metadata

# WebP's colours at half size, of 16 to 235, move a sample of `soft` by so much.
NEAR = 14


def saved(picture: Samples, **options: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "WEBP", **{"quality": 95, "method": 4, **options})
    return out.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return kind + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)


def container(width: int, height: int, flags: int, *chunks: bytes) -> bytes:
    """A file in the extended layout; flags: 32 ICC, 16 alpha, 8 EXIF, 4 XMP, 2 animation."""
    size = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    body = b"WEBP" + chunk(b"VP8X", bytes((flags, 0, 0, 0)) + size) + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def cases() -> Iterator[Case]:
    blocks, soft, levels = art.blocks(), art.soft(), art.alpha()
    clear = art.with_alpha(blocks, levels)
    yield Case("WEBP", "depth and colour", "RGB, lossless", saved(blocks, lossless=True), blocks)
    yield Case("WEBP", "alpha", "RGBA, lossless", saved(clear, lossless=True, exact=True), clear)
    yield Case("WEBP", "alpha", "RGBA, lossless, colours below nothing left out", saved(clear, lossless=True), clear)
    yield Case("WEBP", "depth and colour", "RGB, lossy", saved(soft), soft, NEAR)
    yield Case(
        "WEBP",
        "alpha",
        "RGBA, lossy",
        saved(art.with_alpha(soft, levels), exact=True),
        art.with_alpha(soft, levels),
        NEAR,
    )
    grey = art.rgb(art.grey_of(soft))
    yield Case("WEBP", "depth and colour", "grey, lossy", saved(grey), grey, NEAR)
    yield Case("WEBP", "depth and colour", "one pixel", saved(blocks[:1, :1], lossless=True), blocks[:1, :1])
    frames = [Image.fromarray(art.blocks()), Image.fromarray(255 - art.blocks())]
    out = io.BytesIO()
    frames[0].save(out, "WEBP", save_all=True, append_images=frames[1:], lossless=True, duration=100)
    yield Case("WEBP", "animated", "two frames", out.getvalue(), blocks)
    yield from _in_part()
    yield from _metadata()
    yield from _ends()


def _in_part() -> Iterator[Case]:
    """The first frame of an animation, smaller than its canvas: transparent around it, as browsers have it."""
    blocks = art.blocks()
    still = saved(blocks, lossless=True)[12:]
    canvas = np.zeros((art.HEIGHT + 8, art.WIDTH + 12, 4), np.uint8)
    canvas[4 : 4 + art.HEIGHT, 6 : 6 + art.WIDTH] = art.with_alpha(blocks, np.full_like(blocks[..., 0], 255))
    sides = struct.pack("<I", art.WIDTH - 1)[:3] + struct.pack("<I", art.HEIGHT - 1)[:3]
    place = struct.pack("<I", 6 // 2)[:3] + struct.pack("<I", 4 // 2)[:3]
    frame = chunk(b"ANMF", place + sides + b"\x64\0\0\0" + still)
    for name, ground in (("white", b"\xff" * 4), ("green", b"\0\xff\0\xff")):
        start = chunk(b"ANIM", ground + b"\0\0")
        data = container(art.WIDTH + 12, art.HEIGHT + 8, 2 | 16, start, frame, frame)
        yield Case("WEBP", "frame smaller than the canvas", f"on a ground of {name}", data, canvas)


def _metadata() -> Iterator[Case]:
    blocks = art.blocks()
    pixels = saved(blocks, lossless=True)[12:]
    w, h = art.WIDTH, art.HEIGHT
    for way in range(1, 9):
        data = container(w, h, 8, pixels, chunk(b"EXIF", metadata.exif(way)))
        yield Case("WEBP", "orientation", f"{way} by EXIF", data, art.turned(blocks, way))
    for way in (3, 6):
        shown = art.turned(blocks, way)
        prefixed = container(w, h, 8, pixels, chunk(b"EXIF", metadata.EXIF_PREFIX + metadata.exif(way, ">")))
        yield Case("WEBP", "orientation", f"{way} by EXIF with its prefix", prefixed, shown)
        packet = container(w, h, 4, pixels, chunk(b"XMP ", metadata.xmp(way)))
        yield Case("WEBP", "orientation in XMP or text", f"{way} by XMP", packet, shown)
    for name in ("sRGB", "Display P3", "Adobe RGB (1998)", "grey"):
        data = container(w, h, 32, chunk(b"ICCP", metadata.profile(name)), pixels)
        yield Case("WEBP", "profile", name, data, blocks)
    odd = {
        "broken profile": (32, chunk(b"ICCP", metadata.BROKEN_PROFILE), b""),
        "empty profile": (32, chunk(b"ICCP", b""), b""),
        "EXIF of nonsense": (8, b"", chunk(b"EXIF", bytes(range(99)))),
        "short EXIF": (8, b"", chunk(b"EXIF", b"II")),
        "XMP of nonsense": (4, b"", chunk(b"XMP ", bytes(range(99)))),
        "EXIF that no flag names": (0, b"", chunk(b"EXIF", metadata.exif(1))),
        "flag without EXIF": (8, b"", b""),
        "unknown chunk before": (0, chunk(b"what", b"12345"), b""),
        "unknown chunk behind": (0, b"", chunk(b"what", b"12345")),
    }
    for name, (flags, before, behind) in odd.items():
        yield Case("WEBP", "other chunks", name, container(w, h, flags, before, pixels, behind), blocks)


def _ends() -> Iterator[Case]:
    blocks = art.blocks()
    whole = saved(blocks, lossless=True)
    yield Case("WEBP", "end", "bytes behind the end", whole + b"trailer" * 9, blocks)
    longer = whole[:4] + struct.pack("<I", len(whole)) + whole[8:]
    yield Case("WEBP", "end", "a length that is 8 too large", longer, None, should=Should.BE_NAMED)
    for share in (0.4, 0.8):
        data = whole[: int(len(whole) * share)]
        yield Case("WEBP", "cut short", f"lossless, after {share:.0%}", data, should=Should.BE_REFUSED)
    lossy = saved(np.ascontiguousarray(art.soft()))
    yield Case("WEBP", "cut short", "lossy, after 60%", lossy[: int(len(lossy) * 0.6)], should=Should.BE_REFUSED)
