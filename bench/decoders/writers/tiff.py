"""TIFF and BigTIFF: any bits, planes, strips or tiles, and as many directories as asked."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

SHORT, LONG, RATIONAL, LONG8 = 3, 4, 5, 16
NONE, LZW, DEFLATE, PACKBITS = 1, 5, 8, 32773
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR, LAB = 0, 1, 2, 3, 5, 6, 8
_LETTERS = {1: "B", 2: "B", SHORT: "H", LONG: "I", RATIONAL: "I", 7: "B", LONG8: "Q"}


@dataclass(frozen=True, slots=True)
class Page:
    """A directory and its pixels, in strips or tiles that are ready to be written."""

    tags: Mapping[int, tuple[int, Sequence[int]]]
    """Tag to (type, values), without those that say where the pixels are."""
    parts: Sequence[bytes]
    tiled: bool = False


@dataclass(frozen=True, slots=True)
class Layout:
    """How samples are laid out in a page."""

    bits: int = 8
    photometric: int = RGB
    compression: int = NONE
    planar: bool = False
    predictor: bool = False
    rows_per_strip: int | None = None
    tile: int | None = None
    """Side of a tile, a multiple of 16."""
    extra: Sequence[int] = ()
    """0 unknown, 1 associated (premultiplied) alpha, 2 straight alpha."""
    sample_format: int = 1
    """1 whole numbers, 2 signed, 3 fractions."""
    lowest_bit_first: bool = False
    tags: Mapping[int, tuple[int, Sequence[int]]] = field(default_factory=dict)


def page(samples: NDArray[np.generic], layout: Layout, order: str = "<") -> Page:
    """Samples [H, W] or [H, W, C] as a page; fractions as float32."""
    values = samples[..., None] if samples.ndim == 2 else samples
    height, width, count = values.shape
    tags: dict[int, tuple[int, Sequence[int]]] = {
        256: (LONG, [width]),
        257: (LONG, [height]),
        258: (SHORT, [layout.bits] * count),
        259: (SHORT, [layout.compression]),
        262: (SHORT, [layout.photometric]),
        277: (SHORT, [count]),
        284: (SHORT, [2 if layout.planar else 1]),
    }
    if layout.extra:
        tags[338] = (SHORT, layout.extra)
    if layout.sample_format != 1:
        tags[339] = (SHORT, [layout.sample_format] * count)
    if layout.predictor:
        tags[317] = (SHORT, [2])
    if layout.lowest_bit_first:
        tags[266] = (SHORT, [2])
    planes = [values[..., k : k + 1] for k in range(count)] if layout.planar else [values]
    if layout.tile:
        side = layout.tile
        tags |= {322: (LONG, [side]), 323: (LONG, [side])}
        cells = []
        for plane in planes:
            padded = np.pad(plane, ((0, -height % side), (0, -width % side), (0, 0)), mode="edge")
            for top in range(0, height, side):
                cells += [padded[top : top + side, left : left + side] for left in range(0, width, side)]
    else:
        rows = layout.rows_per_strip or height
        tags[278] = (LONG, [rows])
        cells = [plane[top : top + rows] for plane in planes for top in range(0, height, rows)]
    parts = [_packed(cell, layout, order) for cell in cells]
    return Page(tags | dict(layout.tags), parts, tiled=bool(layout.tile))


def _packed(cell: NDArray[np.generic], layout: Layout, order: str) -> bytes:
    if layout.predictor:
        step = cell.astype(np.int64)
        step[:, 1:] -= cell[:, :-1].astype(np.int64)
        cell = (step & ((1 << layout.bits) - 1)).astype(np.uint32)
    rows = [_row(row.reshape(-1), layout, order) for row in cell]
    if layout.compression == PACKBITS:
        return b"".join(_packbits(row) for row in rows)
    data = b"".join(rows)
    if layout.lowest_bit_first:
        data = np.packbits(np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")).tobytes()
    if layout.compression == DEFLATE:
        return zlib.compress(data)
    if layout.compression == LZW:
        return _lzw(data)
    return data


def _row(row: NDArray[np.generic], layout: Layout, order: str) -> bytes:
    if layout.sample_format == 3:
        return row.astype(f"{order}f{layout.bits // 8}").tobytes()
    if layout.bits in (8, 16, 32):
        kind = "i" if layout.sample_format == 2 else "u"
        return row.astype(f"{order}{kind}{layout.bits // 8}").tobytes()
    digits = (row.astype(np.uint32)[:, None] >> np.arange(layout.bits - 1, -1, -1)) & 1
    return np.packbits(digits.astype(np.uint8).reshape(-1)).tobytes()


def _packbits(row: bytes) -> bytes:
    return b"".join(bytes([len(row[at : at + 128]) - 1]) + row[at : at + 128] for at in range(0, len(row), 128))


def _lzw(data: bytes) -> bytes:
    """Codes of 9 bits that are cleared before they would widen."""
    codes: list[int] = []
    for start in range(0, len(data), 250):
        codes += [256, *data[start : start + 250]]
    codes.append(257)
    bits = np.array([(code >> digit) & 1 for code in codes for digit in range(8, -1, -1)], np.uint8)
    return np.packbits(bits).tobytes()


def write(*pages: Page, order: str = "<", big: bool = False) -> bytes:
    """The file: pages in their order, pixels first."""
    mark, pointer = (b"II" if order == "<" else b"MM"), "Q" if big else "I"
    size = 8 if big else 4
    head = mark + struct.pack(order + "H", 43 if big else 42)
    if big:
        head += struct.pack(order + "HH", 8, 0)
    out = bytearray(head + bytes(size))
    link = len(head)
    for one in pages:
        starts = []
        for part in one.parts:
            out += bytes(len(out) % 2)
            starts.append(len(out))
            out += part
        where, lengths = (324, 325) if one.tiled else (273, 279)
        kind = LONG8 if big else LONG
        tags = dict(one.tags) | {where: (kind, starts), lengths: (kind, [len(part) for part in one.parts])}
        entries = b""
        for tag, (form, values) in sorted(tags.items()):
            raw = struct.pack(f"{order}{len(values)}{_LETTERS[form]}", *values)
            count = len(values) // (2 if form == RATIONAL else 1)
            if len(raw) > size:
                out += bytes(len(out) % 2)
                raw, place = struct.pack(order + pointer, len(out)), raw
                out += place
            entries += struct.pack(order + "HH" + pointer, tag, form, count) + raw.ljust(size, b"\0")
        out += bytes(len(out) % 2)
        struct.pack_into(order + pointer, out, link, len(out))
        out += struct.pack(order + ("Q" if big else "H"), len(tags)) + entries
        link = len(out)
        out += bytes(size)
    return bytes(out)
