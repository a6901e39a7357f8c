"""TIFF files of any layout, written from numbers; for what no library writes, and to know what a file holds."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = bytes | Sequence[int] | Sequence[tuple[int, int]]

GREY_WHITE_ZERO, GREY, RGB, PALETTE, CMYK, YCBCR, LAB = 0, 1, 2, 3, 5, 6, 8
NONE, LZW, DEFLATE, PACKBITS, OLD_DEFLATE = 1, 5, 8, 32773, 32946


@dataclass(frozen=True)
class Page:
    """A picture for `written`: its tags without those of its blocks, and its blocks, compressed already."""

    tags: Mapping[int, Values]
    blocks: Sequence[bytes] = ()
    tiled: bool = False
    below: Sequence[Page] = field(default=())
    """Pages that this one names in SubIFDs."""


def page(
    samples: NDArray[Any],
    *,
    bits: int,
    photometric: int,
    planar: bool = False,
    order: str = "<",
    compression: int = NONE,
    predictor: int = 1,
    rows: int | None = None,
    tile: tuple[int, int] | None = None,
    extra: Sequence[int] | None = None,
    numbering: int = 1,
    bits_reversed: bool = False,
    further: Mapping[int, Values] | None = None,
    below: Sequence[Page] = (),
) -> Page:
    """[height, width, samples] of numbers that fit into `bits`. `rows`: of a strip; `tile`: width and height."""
    height, width, count = samples.shape
    block_width, block_height = tile or (width, rows or height)
    stored = [samples[..., k : k + 1] for k in range(count)] if planar else [samples]
    blocks = []
    for part in stored:
        for top in range(0, height, block_height):
            for left in range(0, width, block_width):
                block = part[top : top + block_height, left : left + block_width]
                if tile:
                    missing = (block_height - block.shape[0], block_width - block.shape[1])
                    block = np.pad(block, ((0, missing[0]), (0, missing[1]), (0, 0)))
                blocks.append(_compressed(_packed(block, bits, order, predictor), compression, bits_reversed))
    tags: dict[int, Values] = {
        256: [width],
        257: [height],
        258: [bits] * count,
        259: [compression],
        262: [photometric],
        277: [count],
        284: [2 if planar else 1],
    }
    if tile:
        tags |= {322: [block_width], 323: [block_height]}
    else:
        tags[278] = [block_height]
    if predictor != 1:
        tags[317] = [predictor]
    if extra is not None:
        tags[338] = extra
    if numbering != 1:
        tags[339] = [numbering] * count
    if bits_reversed:
        tags[266] = [2]
    return Page({**tags, **(further or {})}, blocks, tile is not None, below)


def written(*pages: Page, order: str = "<", big: bool = False) -> bytes:
    """A file of these pages, each after its blocks."""
    place, size = ("Q", 8) if big else ("I", 4)
    out = bytearray((b"II" if order == "<" else b"MM") + struct.pack(order + "H", 43 if big else 42))
    if big:
        out += struct.pack(order + "HH", 8, 0)
    link = len(out)
    out += bytes(size)

    def add(one: Page) -> int:
        """The place of its directory; the link to the next one is the last thing that was written."""
        nonlocal link
        below = [add(other) for other in one.below]
        starts = []
        for block in one.blocks:
            starts.append(len(out))
            out.extend(block + b"\0" * (len(block) % 2))
        tags: dict[int, Any] = dict(one.tags)
        if one.blocks:
            tags.setdefault(324 if one.tiled else 273, starts)
            tags.setdefault(325 if one.tiled else 279, [len(block) for block in one.blocks])
        if below:
            tags[330] = below
        entries = []
        for tag in sorted(tags):
            kind, count, raw = _entry(tag, tags[tag], order)
            if len(raw) > size:
                at, raw = len(out), raw + b"\0" * (len(raw) % 2)
                out.extend(raw)
                raw = struct.pack(order + place, at)
            entries.append(struct.pack(order + "HH" + place, tag, kind, count) + raw.ljust(size, b"\0"))
        at = len(out)
        out.extend(struct.pack(order + ("Q" if big else "H"), len(entries)) + b"".join(entries))
        link = len(out)
        out.extend(bytes(size))
        return at

    for one in pages:
        before = link
        struct.pack_into(order + place, out, before, add(one))
    return bytes(out)


def _entry(tag: int, values: Values, order: str) -> tuple[int, int, bytes]:
    if isinstance(values, bytes):
        return 7, len(values), values
    if isinstance(values[0], tuple):
        flat = [number for fraction in values for number in fraction]  # type: ignore[union-attr]
        return 5, len(values), struct.pack(f"{order}{len(flat)}I", *flat)
    long = tag in (254, 256, 257, 273, 278, 279, 324, 325, 330)
    return 4 if long else 3, len(values), struct.pack(f"{order}{len(values)}{'I' if long else 'H'}", *values)


def _packed(block: NDArray[Any], bits: int, order: str, predictor: int) -> bytes:
    rows, width, count = block.shape
    if predictor == 3:
        spread = np.ascontiguousarray(block.astype(f">f{bits // 8}")).view(np.uint8).reshape(rows, width * count, -1)
        spread = spread.transpose(0, 2, 1).reshape(rows, -1, count)
        return np.diff(spread, axis=1, prepend=np.uint8(0)).astype(np.uint8).tobytes()
    if bits in (8, 16, 32, 64):
        kind = block.dtype.kind if block.dtype.kind in "fi" else "u"
        if predictor == 2:
            block = np.diff(block, axis=1, prepend=block.dtype.type(0))
        return block.astype(f"{order}{kind}{bits // 8}").tobytes()
    flat = block.reshape(rows, width * count)
    single = (flat[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(single.reshape(rows, -1).astype(np.uint8), axis=1).tobytes()


def _compressed(raw: bytes, compression: int, bits_reversed: bool) -> bytes:
    how: dict[int, Callable[[bytes], bytes]] = {
        NONE: bytes,
        LZW: _lzw,
        DEFLATE: zlib.compress,
        OLD_DEFLATE: zlib.compress,
        PACKBITS: _packbits,
    }
    data = how[compression](raw)
    if bits_reversed:
        return bytes(np.packbits(np.unpackbits(np.frombuffer(data, np.uint8)), bitorder="little"))
    return data


def _packbits(raw: bytes) -> bytes:
    """Each run of 3 to 128 equal bytes as one, and the bytes between them as they are."""
    out, plain, at = bytearray(), bytearray(), 0
    while at < len(raw):
        run = 1
        while at + run < len(raw) and run < 128 and raw[at + run] == raw[at]:
            run += 1
        if plain and (run >= 3 or len(plain) == 128):
            out += bytes([len(plain) - 1]) + plain
            plain.clear()
        if run >= 3:
            out += bytes([257 - run, raw[at]])
            at += run
        else:
            plain.append(raw[at])
            at += 1
    return bytes(out + (bytes([len(plain) - 1]) + plain if plain else b""))


def _lzw(raw: bytes) -> bytes:
    """Codes of 9 bits: the table is cleared before they would need ten."""
    clear, end = 256, 257
    codes = [clear]
    for at in range(0, len(raw), 200):
        codes += [*raw[at : at + 200], clear]
    codes.append(end)
    single = (np.array(codes)[:, None] >> np.arange(8, -1, -1)) & 1
    return np.packbits(single.astype(np.uint8)).tobytes()
