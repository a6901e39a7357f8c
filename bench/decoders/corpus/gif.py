"""GIF: palettes, transparency, frames that are smaller than their screen, and odd ends."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from bench.decoders import case as art
from bench.decoders.case import Case, Samples, Should
from bench.decoders.writers import gif as raw

_GREEN = (0, 160, 70)


def cases() -> Iterator[Case]:
    for bits in (1, 2, 3, 4, 8):
        palette, indexes = _made(bits)
        shown = np.array(palette, np.uint8)[indexes]
        head, picture = raw.screen(art.WIDTH, art.HEIGHT, palette), raw.frame(indexes, bits)
        old = raw.screen(art.WIDTH, art.HEIGHT, palette, version=b"GIF87a")
        yield Case("GIF", "depth and colour", f"{bits} bit", head + picture + raw.TRAILER, shown)
        yield Case("GIF", "depth and colour", f"{bits} bit, GIF87a", old + picture + raw.TRAILER, shown)
        rows = raw.frame(indexes, bits, interlaced=True)
        yield Case("GIF", "interlaced", f"{bits} bit", head + rows + raw.TRAILER, shown)
        local = raw.screen(art.WIDTH, art.HEIGHT, ()) + raw.frame(indexes, bits, palette=palette) + raw.TRAILER
        yield Case("GIF", "depth and colour", f"{bits} bit, palette of the frame", local, shown)
        for gone in {0, len(palette) - 1}:
            hole = art.with_alpha(shown, np.where(indexes == gone, 0, 255).astype(np.uint8))
            data = head + raw.control(transparent=gone) + picture + raw.TRAILER
            yield Case("GIF", "transparency", f"{bits} bit, colour {gone}", data, hole)
    palette, indexes = _made(4)
    shown = np.array(palette, np.uint8)[indexes]
    grey = [(k * 17, k * 17, k * 17) for k in range(16)]
    data = raw.screen(art.WIDTH, art.HEIGHT, grey) + raw.frame(indexes, 4) + raw.TRAILER
    yield Case("GIF", "depth and colour", "grey palette", data, np.array(grey, np.uint8)[indexes])
    yield from _smaller(palette, indexes, shown)
    yield from _odd(palette, indexes, shown)


def _made(bits: int) -> tuple[list[tuple[int, int, int]], NDArray[np.uint8]]:
    count = 1 << bits
    palette = [((k * 255) // (count - 1), 255 - (k * 200) // (count - 1), (k * 37 + 20) % 256) for k in range(count)]
    y, x = np.mgrid[: art.HEIGHT, : art.WIDTH]
    return palette, ((x * count // art.WIDTH + (y // 5) % 3) % count).astype(np.uint8)


def _smaller(palette: list[tuple[int, int, int]], indexes: NDArray[np.uint8], shown: Samples) -> Iterator[Case]:
    """What no frame covers is transparent, as browsers have it; the screen's background colour counts nowhere."""
    for name, left, top in (("in a corner", 0, 0), ("in the middle", 7, 4)):
        width, height = art.WIDTH + 12, art.HEIGHT + 9
        screen = np.zeros((height, width, 4), np.uint8)
        screen[top : top + art.HEIGHT, left : left + art.WIDTH] = art.with_alpha(shown, np.full_like(indexes, 255))
        head = raw.screen(width, height, palette)
        picture = raw.frame(indexes, 4, left=left, top=top) + raw.TRAILER
        yield Case("GIF", "frame smaller than the screen", name, head + picture, screen)
        data = head + raw.control(transparent=3) + picture
        hole = screen.copy()
        hole[top : top + art.HEIGHT, left : left + art.WIDTH][indexes == 3] = 0
        yield Case("GIF", "frame smaller than the screen", f"{name}, with transparency", data, hole)


def _odd(palette: list[tuple[int, int, int]], indexes: NDArray[np.uint8], shown: Samples) -> Iterator[Case]:
    head, picture = raw.screen(art.WIDTH, art.HEIGHT, palette), raw.frame(indexes, 4)
    second = raw.control() + raw.frame(15 - indexes, 4)
    loop = b"!\xff\x0bNETSCAPE2.0\3\1\0\0\0"
    yield Case("GIF", "animated", "two frames", head + loop + raw.control() + picture + second + raw.TRAILER, shown)
    yield Case("GIF", "structure", "comment", head + raw.comment(b"hello" * 90) + picture + raw.TRAILER, shown)
    odd = b"!\x77" + raw.blocks(b"what is this")
    yield Case("GIF", "structure", "unknown extension", head + odd + picture + raw.TRAILER, shown)
    xmp = b"!\xff\x0bXMP DataXMP" + b"<x/>" + b"\1" + bytes(range(255, -1, -1)) + b"\0"
    yield Case("GIF", "structure", "XMP", head + xmp + picture + raw.TRAILER, shown)
    yield Case("GIF", "structure", "control after the frame", head + picture + raw.control() + raw.TRAILER, shown)
    short = head + b"!\xf9\1\0\0" + picture + raw.TRAILER
    yield Case("GIF", "structure", "short control", short, None, should=Should.BE_NAMED)
    beyond = raw.screen(art.WIDTH - 10, art.HEIGHT - 8, palette) + picture + raw.TRAILER
    yield Case("GIF", "screens", "smaller than the frame", beyond, shown, should=Should.BE_NAMED)
    nothing = raw.screen(0, 0, palette) + picture + raw.TRAILER
    yield Case("GIF", "screens", "of 0 x 0", nothing, shown, should=Should.BE_NAMED)
    wide = head + raw.frame(indexes, 8) + raw.TRAILER
    yield Case("GIF", "structure", "codes wider than the palette needs", wide, shown)
    gone = head + raw.control(transparent=200) + picture + raw.TRAILER
    yield Case("GIF", "transparency", "4 bit, a colour that is not there", gone, shown)
    for disposal in (1, 2, 3):
        left = head + raw.control(disposal=disposal) + picture + second + raw.TRAILER
        yield Case("GIF", "animated", f"first frame with disposal {disposal}", left, shown)
    both = raw.control(transparent=3) + raw.comment(b"between") + picture
    hole = art.with_alpha(shown, np.where(indexes == 3, 0, 255).astype(np.uint8))
    yield Case("GIF", "structure", "comment between control and frame", head + both + raw.TRAILER, hole)
    bare = raw.screen(art.WIDTH, art.HEIGHT, ()) + picture + raw.TRAILER
    yield Case("GIF", "structure", "without any palette", bare, None, should=Should.BE_NAMED)
    yield Case("GIF", "end", "without its trailer", head + picture, shown)
    yield Case("GIF", "end", "without the last block's end", head + picture[:-1], shown)
    yield Case("GIF", "end", "bytes behind the end", head + picture + raw.TRAILER + b"trailer" * 9, shown)
    for share in (0.4, 0.7):
        cut = head + picture[: int(len(picture) * share)]
        yield Case("GIF", "cut short", f"after {share:.0%}", cut, should=Should.BE_REFUSED)
