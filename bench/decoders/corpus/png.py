"""PNG: each colour type and depth, transparency by colour, and everything that may stand beside the pixels."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from bench.decoders import case as art
from bench.decoders.case import Case, Samples, Should
from bench.decoders.corpus.png_chunks import oddities, plain
from bench.decoders.writers import metadata
from bench.decoders.writers import png as raw

_PALETTE = [(20, 20, 30), (220, 30, 40), (30, 60, 200), (250, 240, 10)]


def cases() -> Iterator[Case]:
    yield from _depths()
    yield from _transparent_colours()
    yield from _odd_palettes()
    yield from _orientations()
    yield from _profiles()
    yield from oddities()
    yield from _damaged()


def _depths() -> Iterator[Case]:
    for interlaced in (False, True):
        group = "interlaced" if interlaced else "depth and colour"
        for bits in (1, 2, 4, 8, 16):
            wide = art.to_bits(art.grey_of(art.blocks()), bits)
            yield Case(
                "PNG",
                group,
                f"grey, {bits} bit",
                raw.write(wide, bits, raw.GREY, interlaced=interlaced),
                art.rgb(art.from_bits(wide, bits)),
            )
        for bits in (8, 16):
            wide = art.to_bits(art.blocks(), bits)
            levels = art.to_bits(art.alpha(), bits)
            eight, transparency = art.from_bits(wide, bits), art.from_bits(levels, bits)
            grey = art.to_bits(art.grey_of(art.blocks()), bits)
            yield Case("PNG", group, f"RGB, {bits} bit", raw.write(wide, bits, raw.RGB, interlaced=interlaced), eight)
            yield Case(
                "PNG",
                group,
                f"RGB with alpha, {bits} bit",
                raw.write(np.dstack([wide, levels]), bits, raw.RGBA, interlaced=interlaced),
                art.with_alpha(eight, transparency),
            )
            yield Case(
                "PNG",
                group,
                f"grey with alpha, {bits} bit",
                raw.write(np.dstack([grey, levels]), bits, raw.GREY_ALPHA, interlaced=interlaced),
                art.with_alpha(art.rgb(art.from_bits(grey, bits)), transparency),
            )
        for bits in (1, 2, 4, 8):
            palette = _palette(bits)
            indexes = _indexes(len(palette))
            shown = np.array(palette, np.uint8)[indexes]
            yield Case(
                "PNG",
                group,
                f"palette, {bits} bit",
                raw.write(indexes, bits, raw.PALETTE, palette=palette, interlaced=interlaced),
                shown,
            )
            levels8 = np.array([0, 128, 255][: min(3, len(palette))], np.uint8)
            full = np.concatenate([levels8, np.full(len(palette) - len(levels8), 255, np.uint8)])
            yield Case(
                "PNG",
                group,
                f"palette with alpha, {bits} bit",
                raw.write(
                    indexes,
                    bits,
                    raw.PALETTE,
                    palette=palette,
                    interlaced=interlaced,
                    middle=raw.chunk(b"tRNS", levels8.tobytes()),
                ),
                art.with_alpha(shown, full[indexes]),
            )


def _palette(bits: int) -> list[tuple[int, int, int]]:
    if bits == 8:
        return [(k, 255 - k, (k * 7) % 256) for k in range(256)]
    return [*_PALETTE, *((15 * k, 255 - 15 * k, 90) for k in range(12))][: 1 << bits]


def _indexes(count: int) -> NDArray[np.uint8]:
    y, x = np.mgrid[: art.HEIGHT, : art.WIDTH]
    indexes: Samples = ((x * count // art.WIDTH + (y // 6) % 3) % count).astype(np.uint8)
    return indexes


def _transparent_colours() -> Iterator[Case]:
    """One colour of all is transparent (tRNS without a palette)."""
    for bits in (1, 2, 4, 8, 16):
        wide = art.to_bits(art.grey_of(art.blocks()), bits)
        gone = int(wide[0, 0])
        if bits == 16:  # next to it lie values that only 8 bits could not tell from it
            wide[5:20, 5:20] = gone
            wide[0:5, 10:20] = gone ^ 1
        yield Case(
            "PNG",
            "transparent colour",
            f"grey, {bits} bit",
            raw.write(wide, bits, raw.GREY, middle=raw.chunk(b"tRNS", struct.pack(">H", gone))),
            art.with_alpha(art.rgb(art.from_bits(wide, bits)), np.where(wide == gone, 0, 255).astype(np.uint8)),
        )
        yield Case(
            "PNG",
            "transparent colour",
            f"grey, {bits} bit, interlaced",
            raw.write(wide, bits, raw.GREY, middle=raw.chunk(b"tRNS", struct.pack(">H", gone)), interlaced=True),
            art.with_alpha(art.rgb(art.from_bits(wide, bits)), np.where(wide == gone, 0, 255).astype(np.uint8)),
        )
    for bits in (8, 16):
        wide = art.to_bits(art.blocks(), bits)
        wide[15:26, 24:40] = art.to_bits(np.array([30, 60, 200], np.uint8), bits)
        gone3 = wide[16, 30].copy()
        if bits == 16:
            wide[0:6, 0:6] = gone3
            wide[0:6, 6:9] = gone3 ^ np.array([0, 0, 1], np.uint32)
        hole = (wide == gone3).all(axis=-1)
        yield Case(
            "PNG",
            "transparent colour",
            f"RGB, {bits} bit",
            raw.write(wide, bits, raw.RGB, middle=raw.chunk(b"tRNS", struct.pack(">3H", *gone3))),
            art.with_alpha(art.from_bits(wide, bits), np.where(hole, 0, 255).astype(np.uint8)),
        )


def _odd_palettes() -> Iterator[Case]:
    palette = [*_PALETTE, (90, 90, 90)]
    indexes = _indexes(4)
    shown = np.array(palette, np.uint8)[indexes]

    def paletted(colours: list[tuple[int, int, int]], **parts: bytes) -> bytes:
        return raw.write(indexes, 8, raw.PALETTE, palette=colours, **parts)  # type: ignore[arg-type]

    yield Case("PNG", "palettes", "profile", paletted(palette, before=_iccp(metadata.profile("Display P3"))), shown)
    long = raw.chunk(b"tRNS", bytes((0, 100, 200, 255, 255, 3, 4, 5, 6)))
    clear = np.array([0, 100, 200, 255], np.uint8)[indexes]
    yield Case("PNG", "palettes", "more transparency than colours", paletted(_PALETTE, middle=long),
               art.with_alpha(shown, clear), should=Should.BE_NAMED)  # fmt: skip
    yield Case("PNG", "palettes", "too few colours", paletted(_PALETTE[:3]), None, should=Should.BE_NAMED)
    early = raw.chunk(b"tRNS", bytes((0, 100, 200)))
    yield Case("PNG", "palettes", "transparency before the palette", paletted(_PALETTE, before=early), None,
               should=Should.BE_NAMED)  # fmt: skip
    grey = [(k, k, k) for k in (10, 200, 90, 160)]
    yield Case("PNG", "palettes", "of greys", paletted(grey), np.array(grey, np.uint8)[indexes])
    for width, height in ((1, 1), (1, 40), (40, 1), (3, 5)):
        small = art.blocks()[2 : 2 + height, 2 : 2 + width] if height < 28 and width < 43 else None
        if small is not None:
            for interlaced in (False, True):
                data = raw.write(small, 8, raw.RGB, interlaced=interlaced)
                how = "interlaced" if interlaced else "plain"
                yield Case("PNG", "small", f"{width} x {height}, {how}", data, small)


def _itxt(keyword: bytes, text: bytes, *, compressed: bool = False) -> bytes:
    body = zlib.compress(text) if compressed else text
    return raw.chunk(b"iTXt", keyword + b"\0" + bytes([compressed, 0]) + b"\0\0" + body)


def _raw_profile(name: bytes, data: bytes) -> bytes:
    """As ImageMagick keeps EXIF: digits in a compressed text."""
    text = b"\n" + name + b"\n" + b"%8d" % len(data) + b"\n" + data.hex().encode() + b"\n"
    return raw.chunk(b"zTXt", b"Raw profile type " + name + b"\0\0" + zlib.compress(text))


def _orientations() -> Iterator[Case]:
    for way in range(1, 9):
        upright = art.turned(art.blocks(), way)
        yield Case(
            "PNG", "orientation", f"{way} by eXIf", plain(before=raw.chunk(b"eXIf", metadata.exif(way))), upright
        )
    for way in (3, 6):
        upright = art.turned(art.blocks(), way)
        big = raw.chunk(b"eXIf", metadata.exif(way, ">"))
        xmp = _itxt(b"XML:com.adobe.xmp", metadata.xmp(way))
        text = _raw_profile(b"exif", metadata.EXIF_PREFIX + metadata.exif(way))
        yield Case("PNG", "orientation", f"{way} by big-endian eXIf", plain(before=big), upright)
        yield Case("PNG", "orientation", f"{way} by eXIf after the pixels", plain(after=big), upright)
        yield Case("PNG", "orientation in XMP or text", f"{way} by XMP", plain(before=xmp), upright)
        yield Case("PNG", "orientation in XMP or text", f"{way} by EXIF as text", plain(before=text), upright)


def _iccp(data: bytes) -> bytes:
    return raw.chunk(b"iCCP", b"profile\0\0" + zlib.compress(data))


def _profiles() -> Iterator[Case]:
    for name in ("sRGB", "Display P3", "Adobe RGB (1998)"):
        yield Case("PNG", "profile", name, plain(before=_iccp(metadata.profile(name))), art.blocks())
    for name in ("sRGB", "Display P3", "Adobe RGB (1998)"):
        data, shown = plain(before=_iccp(metadata.profile(name))), metadata.to_srgb(name, art.blocks())
        yield Case("PNG", "profile applied", name, data, shown, 3, managed=True)
    untagged = plain(before=_iccp(metadata.BROKEN_PROFILE))
    named = plain(before=raw.chunk(b"cICP", bytes((12, 13, 0, 1))))
    yield Case(
        "PNG",
        "profile applied",
        "cICP, Display P3",
        named,
        metadata.to_srgb("Display P3", art.blocks()),
        3,
        managed=True,
    )
    yield Case("PNG", "profile applied", "broken", untagged, art.blocks(), managed=True)
    yield Case("PNG", "profile", "grey, beside colours", plain(before=_iccp(metadata.profile("grey"))), art.blocks())
    grey = raw.write(art.grey_of(art.blocks()), 8, raw.GREY, before=_iccp(metadata.profile("grey")))
    yield Case("PNG", "profile", "grey", grey, art.rgb(art.grey_of(art.blocks())))
    yield Case("PNG", "profile", "broken", plain(before=_iccp(metadata.BROKEN_PROFILE)), art.blocks())
    yield Case("PNG", "profile", "of 3 MB", plain(before=_iccp(bytes(3_000_000))), art.blocks())
    yield Case(
        "PNG", "profile", "that does not unpack", plain(before=raw.chunk(b"iCCP", b"p\0\0nothing")), art.blocks()
    )
    yield Case("PNG", "profile", "sRGB chunk", plain(before=raw.chunk(b"sRGB", b"\0")), art.blocks())
    # sRGB's own curve and primaries in gAMA and cHRM, so that it makes no difference who minds them.
    gamma = raw.chunk(b"gAMA", struct.pack(">I", 45455))
    primaries = raw.chunk(b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000))
    yield Case("PNG", "profile", "gAMA and cHRM", plain(before=gamma + primaries), art.blocks())
    yield Case("PNG", "profile", "cICP, sRGB", plain(before=raw.chunk(b"cICP", bytes((1, 13, 0, 1)))), art.blocks())


def _damaged() -> Iterator[Case]:
    whole = plain()
    for share in (0.3, 0.6, 0.9):
        data = whole[: int(len(whole) * share)]
        yield Case("PNG", "cut short", f"after {share:.0%}", data, should=Should.BE_REFUSED)
