"""BMP: each header, depth and compression."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bench.decoders import case as art
from bench.decoders.case import Case, Samples, Should
from bench.decoders.writers import bmp as raw

_W, _H = art.WIDTH, art.HEIGHT


def cases() -> Iterator[Case]:
    yield from _palettes()
    yield from _direct()
    yield from _masks()
    yield from _rare()
    yield from _ends()


def _palettes() -> Iterator[Case]:
    for bits in (1, 4, 8):
        count = 1 << bits
        palette = [((k * 255) // (count - 1), 255 - (k * 200) // (count - 1), (k * 37) % 256) for k in range(count)]
        y, x = np.mgrid[:_H, :_W]
        indexes = ((x * count // _W + (y // 5) % 3) % count).astype(np.uint8)
        shown = np.array(palette, np.uint8)[indexes]
        body = raw.rows(indexes, bits)
        for version in (1, 3, 4, 5):
            data = raw.write(_W, _H, bits, body, palette=palette, version=version)
            yield Case("BMP", "depth and colour", f"palette, {bits} bit, header {version}", data, shown)
        down = raw.write(_W, -_H, bits, raw.rows(indexes, bits, from_top=True), palette=palette)
        yield Case("BMP", "from the top", f"palette, {bits} bit", down, shown)
        grey = [(k * 255 // (count - 1),) * 3 for k in range(count)]
        data = raw.write(_W, _H, bits, body, palette=grey)
        yield Case("BMP", "depth and colour", f"grey palette, {bits} bit", data, np.array(grey, np.uint8)[indexes])
        zero = raw.write(_W, _H, bits, body, palette=palette, used=0)
        yield Case("BMP", "depth and colour", f"palette, {bits} bit, count 0", zero, shown)
        if bits > 1:
            runs = raw.rle8(indexes) if bits == 8 else raw.rle4(indexes)
            kind = raw.RLE8 if bits == 8 else raw.RLE4
            packed = raw.write(_W, _H, bits, runs, palette=palette, compression=kind)
            yield Case("BMP", "runs", f"{bits} bit", packed, shown)


def _bgr(picture: Samples) -> Samples:
    return picture[..., ::-1]


def _direct() -> Iterator[Case]:
    shown = art.blocks()
    for version in (1, 3, 4, 5):
        data = raw.write(_W, _H, 24, raw.rows(_bgr(shown), 24), version=version)
        yield Case("BMP", "depth and colour", f"RGB, 24 bit, header {version}", data, shown)
    down = raw.write(_W, -_H, 24, raw.rows(_bgr(shown), 24, from_top=True))
    yield Case("BMP", "from the top", "RGB, 24 bit", down, shown)
    wide = shown.astype(np.uint32)
    whole = wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]
    for name, high in (("zero", 0), ("255", 255)):
        data = raw.write(_W, _H, 32, raw.rows(whole | high << 24, 32))
        yield Case("BMP", "depth and colour", f"RGB, 32 bit, fourth byte {name}", data, shown)
    five = art.to_bits(shown, 5)
    data = raw.write(_W, _H, 16, raw.rows(five[..., 0] << 10 | five[..., 1] << 5 | five[..., 2], 16))
    yield Case("BMP", "depth and colour", "RGB, 16 bit (555)", data, art.from_bits(five, 5), near=8)


def _masks() -> Iterator[Case]:
    shown = art.blocks()
    five, six = art.to_bits(shown, 5), art.to_bits(shown, 6)
    body = raw.rows(five[..., 0] << 11 | six[..., 1] << 5 | five[..., 2], 16)
    about = {"compression": raw.BITFIELDS, "masks": (0xF800, 0x07E0, 0x001F)}
    expected = np.dstack(
        [art.from_bits(five, 5)[..., 0], art.from_bits(six, 6)[..., 1], art.from_bits(five, 5)[..., 2]]
    )
    for version in (3, 4, 5):
        data = raw.write(_W, _H, 16, body, version=version, **about)  # type: ignore[arg-type]
        yield Case("BMP", "masks", f"RGB, 16 bit (565), header {version}", data, expected, near=8)
    wide, levels = shown.astype(np.uint32), art.alpha().astype(np.uint32)
    orders = {"BGRA": (16, 8, 0, 24), "RGBA": (0, 8, 16, 24), "ABGR": (24, 16, 8, 0), "ARGB": (8, 16, 24, 0)}
    for name, (red, green, blue, opacity) in orders.items():
        whole = wide[..., 0] << red | wide[..., 1] << green | wide[..., 2] << blue
        masks = [0xFF << shift for shift in (red, green, blue)]
        plain = raw.write(_W, _H, 32, raw.rows(whole, 32), compression=raw.BITFIELDS, masks=masks)
        yield Case("BMP", "masks", f"RGB, 32 bit, {name} without alpha", plain, shown)
        data = raw.write(
            _W,
            _H,
            32,
            raw.rows(whole | levels << opacity, 32),
            compression=raw.BITFIELDS,
            masks=[*masks, 0xFF << opacity],
            version=5,
        )
        with_levels = art.with_alpha(shown, art.alpha())
        yield Case("BMP", "alpha", f"32 bit, {name}, header 5", data, with_levels)


def _rare() -> Iterator[Case]:
    shown = art.blocks()
    four, levels = art.to_bits(shown, 4), art.to_bits(art.alpha(), 4)
    body = raw.rows(levels << 12 | four[..., 0] << 8 | four[..., 1] << 4 | four[..., 2], 16)
    data = raw.write(_W, _H, 16, body, compression=raw.BITFIELDS, masks=(0xF00, 0xF0, 0xF, 0xF000), version=5)
    expected = art.with_alpha(art.from_bits(four, 4), art.from_bits(levels, 4))
    yield Case("BMP", "rare", "16 bit (4444), with alpha", data, expected, 8, Should.BE_NAMED)
    ten = art.to_bits(shown, 10)
    body = raw.rows(ten[..., 0] << 20 | ten[..., 1] << 10 | ten[..., 2], 32)
    data = raw.write(_W, _H, 32, body, compression=raw.BITFIELDS, masks=(0x3FF00000, 0xFFC00, 0x3FF))
    yield Case("BMP", "rare", "32 bit (10 each)", data, art.from_bits(ten, 10), 2, Should.BE_NAMED)
    palette = [(20, 20, 30), (220, 30, 40), (30, 60, 200), (250, 240, 10)]
    y, x = np.mgrid[:_H, :_W]
    indexes = ((x * 4 // _W + y // 5) % 4).astype(np.uint8)
    data = raw.write(_W, _H, 2, raw.rows(indexes, 2), palette=palette)
    yield Case("BMP", "rare", "palette, 2 bit", data, np.array(palette, np.uint8)[indexes], 1, Should.BE_NAMED)
    grey = [(k, k, k) for k in range(256)]
    # The rows end early, and one jumps: what no run covers is the palette's first colour, or nothing.
    runs = (b"\x14\x50\0\0" * 10) + b"\0\2\x05\x03\x0a\xc0" + b"\0\1"
    data = raw.write(40, 30, 8, runs, palette=grey, compression=raw.RLE8)
    yield Case("BMP", "rare", "runs that leave pixels out", data, None, should=Should.BE_NAMED)
    few = [(k, 0, 255 - k) for k in range(100)]
    data = raw.write(_W, _H, 8, raw.rows((indexes * 30).astype(np.uint8), 8), palette=few)
    yield Case("BMP", "depth and colour", "palette of 100", data, np.array(few, np.uint8)[indexes * 30])
    plain = raw.write(_W, _H, 24, raw.rows(_bgr(shown), 24))
    gap = plain[:10] + (54 + 20).to_bytes(4, "little") + plain[14:54] + bytes(20) + plain[54:]
    yield Case("BMP", "structure", "a gap before the pixels", gap, shown)
    wrong = b"BM" + bytes(4) + plain[6:]
    yield Case("BMP", "structure", "a length of nothing", wrong, shown)
    planes = plain[:26] + b"\0\0" + plain[28:]
    yield Case("BMP", "structure", "no planes", planes, None, should=Should.BE_NAMED)


def _ends() -> Iterator[Case]:
    shown = art.blocks()
    whole = raw.write(_W, _H, 24, raw.rows(_bgr(shown), 24))
    yield Case("BMP", "end", "bytes behind the end", whole + b"trailer" * 9, shown)
    yield Case("BMP", "end", "without the last row's padding", whole[:-1], shown)
    for share in (0.4, 0.9):
        data = whole[: int(len(whole) * share)]
        yield Case("BMP", "cut short", f"after {share:.0%}", data, should=Should.BE_REFUSED)
