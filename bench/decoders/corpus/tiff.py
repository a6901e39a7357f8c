"""TIFF: bits x colours x planes x alpha x compression, orientation, pages and profiles."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.decoders import case as art
from bench.decoders.case import Case, Samples, Should
from bench.decoders.writers import metadata
from bench.decoders.writers import tiff as raw
from bench.decoders.writers.tiff import Layout


def cases() -> Iterator[Case]:
    yield from _grey()
    yield from _colour()
    yield from _alpha()
    yield from _compressed()
    yield from _by_libtiff()
    yield from _rare()
    yield from _orientations()
    yield from _pages()
    yield from _ends()


def _file(samples: NDArray[Any], layout: Layout, order: str = "<", big: bool = False) -> bytes:
    return raw.write(raw.page(samples, layout, order), order=order, big=big)


def _grey() -> Iterator[Case]:
    for bits in (1, 2, 4, 8, 12, 16):
        wide = art.to_bits(art.grey_of(art.blocks()), bits)
        shown = art.rgb(art.from_bits(wide, bits))
        for order, name in (("<", "little-endian"), (">", "big-endian")):
            layout = Layout(bits=bits, photometric=raw.BLACK_IS_ZERO)
            yield Case("TIFF", "grey", f"{bits} bit, {name}", _file(wide, layout, order), shown)
            negative = replace(layout, photometric=raw.WHITE_IS_ZERO)
            data = _file((1 << bits) - 1 - wide, negative, order)
            yield Case("TIFF", "grey, white is zero", f"{bits} bit, {name}", data, shown)
    for bits in (1, 2, 4, 8):
        count = 1 << bits
        colours = np.array(
            [(k * 255 // (count - 1), 255 - k * 200 // (count - 1), (k * 37) % 256) for k in range(count)]
        )
        y, x = np.mgrid[: art.HEIGHT, : art.WIDTH]
        indexes = ((x * count // art.WIDTH + (y // 5) % 3) % count).astype(np.uint8)
        table = [int(value) * 257 for channel in colours.T for value in channel]
        layout = Layout(bits=bits, photometric=raw.PALETTE, tags={320: (raw.SHORT, table)})
        yield Case("TIFF", "palette", f"{bits} bit", _file(indexes, layout), colours.astype(np.uint8)[indexes])


def _colour() -> Iterator[Case]:
    for bits in (1, 2, 4, 8, 12, 16):
        wide = art.to_bits(art.blocks(), bits)
        for planar in (False, True):
            for order, name in (("<", "little-endian"), (">", "big-endian")):
                layout = Layout(bits=bits, planar=planar)
                kind = "RGB, separate planes" if planar else "RGB"
                yield Case("TIFF", kind, f"{bits} bit, {name}", _file(wide, layout, order), art.from_bits(wide, bits))


def _alpha() -> Iterator[Case]:
    for bits in (8, 16):
        most = (1 << bits) - 1
        levels = art.to_bits(art.alpha(), bits)
        for name, picture, photometric in (
            ("RGB", art.to_bits(art.blocks(), bits), raw.RGB),
            ("grey", art.to_bits(art.grey_of(art.blocks()), bits)[..., None], raw.BLACK_IS_ZERO),
        ):
            eight = art.from_bits(picture, bits)
            colours: Samples = np.repeat(eight, 3, axis=-1) if eight.shape[2] == 1 else eight
            shown = art.with_alpha(colours, art.from_bits(levels, bits))
            multiplied = (picture.astype(np.uint64) * levels[..., None] + most // 2) // most
            for planar in (False, True):
                where = ", separate planes" if planar else ""
                straight = Layout(bits=bits, photometric=photometric, planar=planar, extra=(2,))
                data = _file(np.dstack([picture, levels]), straight)
                yield Case("TIFF", f"{name} with alpha", f"{bits} bit{where}", data, shown)
                data = _file(np.dstack([multiplied, levels]), replace(straight, extra=(1,)))
                yield Case("TIFF", f"{name} with alpha", f"{bits} bit, premultiplied{where}", data, shown, near=3)
        extra = np.dstack([art.to_bits(art.blocks(), bits), levels])
        data = _file(extra, Layout(bits=bits, extra=(0,)))
        # A fourth sample of no stated meaning: TIFF has other words for alpha, so it is left out; some take it for one.
        shown = art.from_bits(art.to_bits(art.blocks(), bits), bits)
        yield Case("TIFF", "unexplained samples", f"RGB, {bits} bit", data, shown, should=Should.BE_NAMED)
        unknown = art.to_bits(art.alpha()[:, ::-1], bits)
        data = _file(np.dstack([art.to_bits(art.blocks(), bits), unknown, levels]), Layout(bits=bits, extra=(0, 2)))
        clear = art.with_alpha(shown, art.from_bits(levels, bits))
        name = f"RGB, {bits} bit, and alpha behind it"
        yield Case("TIFF", "unexplained samples", name, data, clear, should=Should.BE_NAMED)


def _compressed() -> Iterator[Case]:
    kinds = {"PackBits": raw.PACKBITS, "LZW": raw.LZW, "deflate": raw.DEFLATE}
    for bits in (8, 16):
        wide, grey = art.to_bits(art.blocks(), bits), art.to_bits(art.grey_of(art.blocks()), bits)
        for name, compression in kinds.items():
            layout = Layout(bits=bits, compression=compression)
            yield Case(
                "TIFF", "compression", f"{name}, RGB, {bits} bit", _file(wide, layout), art.from_bits(wide, bits)
            )
            strips = replace(layout, rows_per_strip=7, photometric=raw.BLACK_IS_ZERO)
            shown = art.rgb(art.from_bits(grey, bits))
            yield Case("TIFF", "compression", f"{name}, grey in strips, {bits} bit", _file(grey, strips), shown)
            if compression != raw.PACKBITS:
                predicted = replace(layout, predictor=True)
                shown = art.from_bits(wide, bits)
                yield Case("TIFF", "compression", f"{name}, predicted, {bits} bit", _file(wide, predicted), shown)
        for planar in (False, True):
            tiled = Layout(bits=bits, tile=16, planar=planar, compression=raw.DEFLATE)
            name = f"RGB, {bits} bit" + (", separate planes" if planar else "")
            yield Case("TIFF", "tiles", name, _file(wide, tiled), art.from_bits(wide, bits))
    shown = art.blocks()
    yield Case("TIFF", "BigTIFF", "RGB, 8 bit", _file(shown, Layout(), big=True), shown)
    yield Case("TIFF", "BigTIFF", "RGB, 8 bit, big-endian", _file(shown, Layout(), ">", big=True), shown)
    one = art.to_bits(art.grey_of(shown), 1)
    data = _file(one, Layout(bits=1, photometric=raw.BLACK_IS_ZERO, lowest_bit_first=True))
    yield Case("TIFF", "grey", "1 bit, lowest bit first", data, art.rgb(art.from_bits(one, 1)))


def _by_libtiff() -> Iterator[Case]:
    """Compressions that are not written here, as Pillow's libtiff writes them."""
    soft, two = Image.fromarray(art.soft()), Image.fromarray(art.grey_of(art.blocks())).convert("1")
    bits = np.repeat(np.asarray(two)[..., None], 3, axis=-1).astype(np.uint8) * 255
    for name, image, expected, near in (
        ("group3", two, bits, 0),
        ("group4", two, bits, 0),
        ("tiff_ccitt", two, bits, 0),
        ("jpeg", soft, art.soft(), 20),
        ("lzma", soft, art.soft(), 0),
        ("zstd", soft, art.soft(), 0),
        ("tiff_adobe_deflate", soft, art.soft(), 0),
        ("webp", soft, art.soft(), 20),
    ):
        out = io.BytesIO()
        try:
            image.save(out, "TIFF", compression=name, **({"quality": 95} if near else {}))
        except (OSError, KeyError, ValueError):  # built without it
            continue
        yield Case("TIFF", "compressed by libtiff", name, out.getvalue(), expected, near, Should.BE_NAMED)
    shown = art.blocks()
    for planar in (False, True):
        layout = Layout(rows_per_strip=7, planar=planar)
        name = "RGB in strips" + (", separate planes" if planar else "")
        yield Case("TIFF", "compression", f"none, {name}", _file(shown, layout), shown)
        wide = art.to_bits(shown, 16)
        layout = Layout(bits=16, rows_per_strip=7, planar=planar, predictor=True, compression=raw.LZW)
        yield Case(
            "TIFF", "compression", f"LZW, predicted, {name}, 16 bit", _file(wide, layout), art.from_bits(wide, 16)
        )
    for bits_each in (4, 12):
        grey = art.to_bits(art.grey_of(shown), bits_each)
        layout = Layout(bits=bits_each, photometric=raw.BLACK_IS_ZERO, tile=16, compression=raw.DEFLATE)
        shown_grey = art.rgb(art.from_bits(grey, bits_each))
        yield Case("TIFF", "tiles", f"grey, {bits_each} bit", _file(grey, layout), shown_grey)
    for way in (3, 6):
        for planar in (False, True):
            wide = art.to_bits(shown, 16)
            layout = Layout(bits=16, planar=planar, tags={274: (raw.SHORT, [way])})
            name = f"{way}, RGB of 16 bit" + (", separate planes" if planar else "")
            yield Case("TIFF", "orientation", name, _file(wide, layout), art.turned(art.from_bits(wide, 16), way))
    table = [k * 257 for k in range(256)] * 3
    low = Layout(photometric=raw.PALETTE, tags={320: (raw.SHORT, [one >> 8 for one in table])})
    grey8 = art.grey_of(shown)
    yield Case(
        "TIFF", "palette", "8 bit, colours of 8 bits by mistake", _file(grey8, low), None, should=Should.BE_NAMED
    )
    mask = raw.page(np.zeros((10, 10), np.uint8), Layout(photometric=4, tags={254: (raw.LONG, [4])}))
    whole = raw.page(shown, Layout())
    yield Case("TIFF", "pages", "mask second", raw.write(whole, mask), shown)
    yield Case("TIFF", "pages", "mask first", raw.write(mask, whole), shown, should=Should.BE_NAMED)


def _rare() -> Iterator[Case]:
    """What some readers read: rightly, or refused by name."""
    shown = art.blocks()
    grey = art.grey_of(shown)
    inks = np.dstack([255 - shown, np.zeros_like(grey)])
    yield Case("TIFF", "rare", "CMYK, 8 bit", _file(inks, Layout(photometric=raw.CMYK)), shown, 2, Should.BE_NAMED)
    wide = 65535 - art.to_bits(shown, 16)
    inks16 = np.dstack([wide, np.zeros_like(wide[..., 0])])
    data = _file(inks16, Layout(bits=16, photometric=raw.CMYK))
    yield Case("TIFF", "rare", "CMYK, 16 bit", data, shown, 2, Should.BE_NAMED)
    # White is the largest number that there can be, as for fewer bits; other readers cut what is above 255.
    whole = Layout(bits=32, photometric=raw.BLACK_IS_ZERO)
    data = _file(art.to_bits(grey, 16) << 16, whole)
    yield Case("TIFF", "rare", "grey, 32 bit", data, art.rgb(grey), 2, Should.BE_NAMED)
    fraction = Layout(bits=32, photometric=raw.BLACK_IS_ZERO, sample_format=3)
    data = _file(grey / np.float32(255), fraction)
    yield Case("TIFF", "rare", "grey, fractions from 0 to 1", data, art.rgb(grey), 1, Should.BE_NAMED)
    colours = Layout(bits=32, sample_format=3)
    yield Case("TIFF", "rare", "RGB, fractions", _file(shown / np.float32(255), colours), None, should=Should.BE_NAMED)
    signed = Layout(bits=16, photometric=raw.BLACK_IS_ZERO, sample_format=2)
    data = _file(grey.astype(np.int32) * 100, signed)
    yield Case("TIFF", "rare", "grey, 16 bit signed", data, None, should=Should.BE_NAMED)
    lab = np.dstack([grey, np.full_like(grey, 10), np.full_like(grey, 250)])
    data = _file(lab, Layout(photometric=raw.LAB))
    yield Case("TIFF", "rare", "Lab, 8 bit", data, None, should=Should.BE_NAMED)
    data = _file(shown, Layout(photometric=raw.YCBCR, tags={530: (raw.SHORT, [1, 1])}))
    yield Case("TIFF", "rare", "YCbCr, not compressed", data, None, should=Should.BE_NAMED)
    soft = art.soft()
    luma = np.asarray(Image.fromarray(soft).convert("YCbCr"))
    for predictor in (False, True):
        layout = Layout(
            photometric=raw.YCBCR, compression=raw.LZW, predictor=predictor, tags={530: (raw.SHORT, [1, 1])}
        )
        name = "YCbCr, LZW" + (", predicted" if predictor else "")
        yield Case("TIFF", "rare", name, _file(luma, layout), soft, 3, Should.BE_NAMED)
    out = io.BytesIO()
    both = Image.fromarray(np.dstack([art.grey_of(soft), art.alpha()]), "LA")
    both.save(out, "TIFF", compression="jpeg", quality=95)
    shown = art.with_alpha(art.rgb(art.grey_of(soft)), art.alpha())
    yield Case("TIFF", "rare", "grey with alpha, JPEG", out.getvalue(), shown, 20, Should.BE_NAMED)


def _orientations() -> Iterator[Case]:
    for way in range(1, 9):
        layout = Layout(tags={274: (raw.SHORT, [way])})
        yield Case("TIFF", "orientation", f"{way}", _file(art.blocks(), layout), art.turned(art.blocks(), way))
    for name in ("sRGB", "Display P3", "Adobe RGB (1998)"):
        layout = Layout(tags={34675: (7, list(metadata.profile(name)))})
        yield Case("TIFF", "profile", name, _file(art.blocks(), layout), art.blocks())
    broken = Layout(tags={34675: (7, list(metadata.BROKEN_PROFILE))})
    yield Case("TIFF", "profile", "broken", _file(art.blocks(), broken), art.blocks())


def _pages() -> Iterator[Case]:
    shown = art.blocks()
    small = raw.page(np.ascontiguousarray(shown[::3, ::3]), Layout(tags={254: (raw.LONG, [1])}))
    whole = raw.page(shown, Layout(tags={254: (raw.LONG, [0])}))
    other = raw.page(255 - shown, Layout())
    yield Case("TIFF", "pages", "two pages", raw.write(raw.page(shown, Layout()), other), shown)
    yield Case("TIFF", "pages", "reduced one second", raw.write(whole, small), shown)
    # Other readers show the first page; here the reduced one is passed over.
    yield Case("TIFF", "reduced page first", "RGB", raw.write(small, whole), shown)
    odd = Layout(tags={65000: (raw.SHORT, [1, 2, 3]), 65001: (7, list(b"private")), 305: (2, list(b"x\0"))})
    yield Case("TIFF", "other tags", "private ones", _file(shown, odd), shown)
    resolution = Layout(tags={282: (raw.RATIONAL, [0, 0]), 283: (raw.RATIONAL, [72, 1]), 296: (raw.SHORT, [2])})
    yield Case("TIFF", "other tags", "resolution of 0/0", _file(shown, resolution), shown)
    wrong = Layout(tags={306: (raw.SHORT, [7])})
    yield Case("TIFF", "other tags", "date of a wrong type", _file(shown, wrong), shown)


def _ends() -> Iterator[Case]:
    whole = _file(art.blocks(), Layout())
    yield Case("TIFF", "end", "bytes behind the end", whole + b"trailer" * 9, art.blocks())
    for share in (0.4, 0.99):
        data = whole[: int(len(whole) * share)]
        yield Case("TIFF", "cut short", f"after {share:.0%}", data, should=Should.BE_REFUSED)
    layout = Layout()
    one = raw.page(art.blocks(), layout)
    missing = raw.write(replace(one, parts=[one.parts[0][: len(one.parts[0]) // 2]]))
    yield Case("TIFF", "cut short", "a strip of half its length", missing, should=Should.BE_REFUSED)
