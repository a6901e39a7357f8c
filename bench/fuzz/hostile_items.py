"""Hostile HEIF, AVIF and WebP: items by the thousand that share what they hold, and many pixels. See `hostile`."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from bench.decoders.corpus import heif
from bench.decoders.corpus import webp as webp_files
from bench.fuzz.hostile_file import SIDE, Hostile, box

_MAX_ITEMS = 250
"""Associations that one entry is given."""


def of_items() -> Iterator[Hostile]:
    """All of them."""
    for path in heif.files_of_tests("heif", "plain.heic"):
        yield from _of_heif(_Tile.read(path.read_bytes()))
    yield Hostile("AVIF", "90,000 sequence headers", partial(_sequence_headers, 90_000))
    yield Hostile("WEBP", "64 megapixels with alpha, all of them coded", _clear)
    yield Hostile("WEBP", "3,900,000 empty chunks", lambda: b"RIFF" + struct.pack("<I", 31_200_004) + b"WEBP" + (
        b"what" + bytes(4)) * 3_900_000)  # fmt: skip


@dataclass(frozen=True)
class _Tile:
    """A coded picture, of which a grid is made."""

    configuration: bytes
    """hvcC, without its head."""
    width: int
    height: int
    stream: bytes

    @classmethod
    def read(cls, data: bytes) -> _Tile:
        """From a file with one item, which fills its mdat box."""
        width, height = struct.unpack_from(">II", data, data.index(b"ispe") + 8)
        return cls(_content(data, b"hvcC"), width, height, _content(data, b"mdat"))

    @cached_property
    def size(self) -> bytes:
        return _size(self.width, self.height)


def _content(data: bytes, kind: bytes) -> bytes:
    at = data.index(kind)
    (length,) = struct.unpack_from(">I", data, at - 4)
    return data[at + 4 : at - 4 + length]


def _of_heif(tile: _Tile) -> Iterator[Hostile]:
    bulk = box(b"free", bytes(20_000_000))
    yield Hostile("HEIF", "grid of 4 tiles", partial(_grid, tile, 2, 2, 4))
    yield Hostile("HEIF", "20 MB of a property, taken 1,000 times", partial(
        _grid, tile, 2, 2, 4, properties=bulk, taken=1000))  # fmt: skip
    for million in (1, 4, 10):
        long = _Tile(tile.configuration + bytes(million * 1_000_000), tile.width, tile.height, tile.stream)
        yield Hostile(
            "HEIF", f"200 tiles that share a configuration of {million} MB", partial(_grid, long, 10, 20, 200)
        )
        parameters = bytes([32 << 1, 1]) + bytes(million * 1_000_000)  # of a kind that a decoder passes over
        stream = struct.pack(">I", len(parameters)) + parameters + tile.stream
        long = _Tile(tile.configuration, tile.width, tile.height, stream)
        yield Hostile("HEIF", f"200 tiles that share a stream of {million} MB", partial(_grid, long, 10, 20, 200))
    yield Hostile("HEIF", "10,000 tiles, and 55,000 references of others", partial(
        _grid, tile, 50, 200, 1, references=55_000))  # fmt: skip
    yield Hostile("HEIF", "32,000 tiles, and 33,000 references of others", partial(
        _grid, tile, 128, 250, 1, references=33_000))  # fmt: skip
    yield Hostile("HEIF", "4,080 items of the same bytes", partial(_grid, tile, 16, 255, 4080))


def _grid(
    tile: _Tile, rows: int, columns: int, items: int, *, properties: bytes = b"", taken: int = 0, references: int = 0
) -> bytes:
    """A grid of so many tiles, which so many items take turns in; all items have the same bytes.

    `properties`: one more, which the first items take so many times. `references`: of an item that is not there.
    """
    numbers = range(2, 2 + items)
    shown = struct.pack(">BBBBII", 0, 1, rows - 1, columns - 1, columns * tile.width, rows * tile.height)
    store = box(b"ipco", box(b"hvcC", tile.configuration), box(b"ispe", tile.size),
                box(b"ispe", _size(columns * tile.width, rows * tile.height)), properties)  # fmt: skip
    takes = [struct.pack(">HBB", 1, 1, 3)]
    for number in numbers:
        more = min(taken, _MAX_ITEMS)
        taken -= more
        takes.append(struct.pack(">HBBB", number, 2 + more, 1, 2) + bytes([4]) * more)
    association = _full(b"ipma", 0, struct.pack(">I", 1 + items), *takes)
    kinds = [_full(b"infe", 2, struct.pack(">HH4s", 1, 0, b"grid"), b"\0")]
    kinds += [_full(b"infe", 2, struct.pack(">HH4s", number, 0, b"hvc1"), b"\0") for number in numbers]
    cells = rows * columns
    tiles = struct.pack(f">HH{cells}H", 1, cells, *(numbers[k % items] for k in range(cells)))
    others = struct.pack(f">HH{references}H", 60_000, references, *[59_999] * references)
    links = _full(b"iref", 0, box(b"dimg", tiles), box(b"auxl", others) if references else b"")

    def meta(start: int) -> bytes:
        places = [struct.pack(">HHHHII", 1, 1, 0, 1, 0, len(shown))]
        places += [struct.pack(">HHHHII", number, 0, 0, 1, start, len(tile.stream)) for number in numbers]
        return _full(
            b"meta", 0,
            _full(b"hdlr", 0, bytes(4) + b"pict" + bytes(13)),
            _full(b"pitm", 0, struct.pack(">H", 1)),
            _full(b"iinf", 0, struct.pack(">H", 1 + items), *kinds),
            _full(b"iloc", 1, b"\x44\0", struct.pack(">H", 1 + items), *places),
            box(b"iprp", store, association), links, box(b"idat", shown),
        )  # fmt: skip

    head = box(b"ftyp", b"heic" + bytes(4) + b"mif1heic")
    return head + meta(len(head) + len(meta(0)) + 8) + box(b"mdat", tile.stream)


def _full(kind: bytes, version: int, *content: bytes) -> bytes:
    return box(kind, bytes([version, 0, 0, 0]), *content)


def _size(width: int, height: int) -> bytes:
    return bytes(4) + struct.pack(">II", width, height)


def _sequence_headers(count: int) -> bytes:
    """An AVIF whose one item has so many of them, each of 255 bytes, nearly all zeros."""
    payload = bytes([0b00000110, *bytes(8), 0b11000000]) + bytes(245)
    unit = bytes([0x0A, 0x80 | len(payload) & 127, len(payload) >> 7]) + payload
    data = unit * count
    entry = box(b"infe", bytes([2, 0, 0, 0]), struct.pack(">HH", 1, 0), b"av01\0")
    items = box(b"iinf", bytes(4), struct.pack(">H", 1), entry)

    def meta(start: int) -> bytes:
        place = struct.pack(">HHHHII", 1, 1, 0, 1, start, len(data))
        return box(b"meta", bytes(4), items, box(b"iloc", bytes(4), b"\x44\0", place))

    head = box(b"ftyp", b"avif", bytes(4), b"avifmif1")
    return head + meta(len(head) + len(meta(0)) + 8) + box(b"mdat", data)


def _clear() -> bytes:
    """Transparent in part, and no two rows alike."""
    down, across = np.mgrid[:SIDE, :SIDE].astype(np.uint16)
    picture = np.full((SIDE, SIDE, 4), 90, np.uint8)
    for channel, values in ((0, across >> 5), (1, down >> 5), (3, (across ^ down) >> 6)):
        picture[..., channel] = values
    return webp_files.saved(picture, lossless=True, method=0, quality=0)
