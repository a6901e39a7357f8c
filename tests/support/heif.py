"""HEIF files of any structure, around pictures that were coded beforehand (tests/data/heif)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from tests import ROOT

FOLDER = ROOT / "tests" / "data" / "heif"

ALPHA = bytes(4) + b"urn:mpeg:hevc:2015:auxid:1\0"


def file(name: str) -> bytes:
    return (FOLDER / f"{name}.heic").read_bytes()


def box(kind: bytes, *content: bytes) -> bytes:
    body = b"".join(content)
    return (8 + len(body)).to_bytes(4) + kind + body


def full(kind: bytes, *content: bytes, version: int = 0, flags: int = 0) -> bytes:
    return box(kind, bytes([version]), flags.to_bytes(3), *content)


@dataclass
class Item:
    content: bytes
    properties: list[bytes] = field(default_factory=list)
    kind: bytes = b"hvc1"
    needed: bytes = b""
    """The type of a property that is marked as essential."""


@dataclass
class Coded:
    """A picture as HEVC holds it, out of a file of one picture."""

    configuration: bytes
    stream: bytes
    size: tuple[int, int]

    def item(self, *properties: bytes, size: tuple[int, int] | None = None) -> Item:
        return Item(self.stream, [box(b"hvcC", self.configuration), extent(*(size or self.size)), *properties])


def coded(name: str, size: tuple[int, int] = (96, 64)) -> Coded:
    data = file(name)
    at = data.index(b"hvcC") - 4
    stream = data.rindex(b"mdat") + 4
    return Coded(data[at + 8 : at + int.from_bytes(data[at : at + 4])], data[stream:], size)


def extent(width: int, height: int) -> bytes:
    return full(b"ispe", width.to_bytes(4), height.to_bytes(4))


def grid(rows: int, columns: int, width: int, height: int) -> bytes:
    return bytes([0, 0, rows - 1, columns - 1]) + width.to_bytes(2) + height.to_bytes(2)


def aperture(width: int, height: int, right: tuple[int, int], down: tuple[int, int]) -> bytes:
    """What is cut out, and how far its middle lies from the picture's, as a numerator and a denominator."""
    numbers = (width, 1, height, 1, *right, *down)
    return box(b"clap", *(number.to_bytes(4, signed=number < 0) for number in numbers))


def written(
    items: Sequence[Item],
    references: Sequence[tuple[bytes, int, Sequence[int]]] = (),
    *,
    primary: int = 1,
    brands: bytes = b"heic\0\0\0\0mif1heic",
    extra: bytes = b"",
    overlap: bool = False,
    share: bool = False,
) -> bytes:
    """Items are counted from 1. `extra`: boxes within the metadata. `overlap`: all items lie where the first does.
    `share`: properties that are alike, and items of the same bytes, are written once."""
    properties = [one for item in items for one in item.properties]
    if share:
        properties = list(dict.fromkeys(properties))
    contents = list(dict.fromkeys(item.content for item in items)) if share else [item.content for item in items]
    infos, associations, number = [], [], 0
    for place, item in enumerate(items, 1):
        infos.append(full(b"infe", place.to_bytes(2), bytes(2), item.kind, b"\0", version=2))
        indexes = []
        for one in item.properties:
            number = properties.index(one) + 1 if share else number + 1
            indexes.append((number | (0x8000 if one[4:8] == item.needed else 0)).to_bytes(2))
        associations.append(place.to_bytes(2) + bytes([len(indexes)]) + b"".join(indexes))
    referring = [
        box(kind, start.to_bytes(2), len(ends).to_bytes(2), *(end.to_bytes(2) for end in ends))
        for kind, start, ends in references
    ]
    head = box(b"ftyp", brands)

    def meta(start: int) -> bytes:
        places = []
        starts = dict(zip(contents, accumulate(map(len, contents), initial=start), strict=False)) if share else {}
        for place, item in enumerate(items, 1):
            size = len(items[0].content if overlap else item.content)
            begin = starts.get(item.content, start)
            places.append(place.to_bytes(2) + bytes(2) + (1).to_bytes(2) + begin.to_bytes(4) + size.to_bytes(4))
            start += 0 if overlap else size
        count = len(items).to_bytes(2)
        return full(
            b"meta",
            full(b"hdlr", bytes(4), b"pict", bytes(13)),
            full(b"pitm", primary.to_bytes(2)),
            full(b"iinf", count, *infos),
            full(b"iref", *referring) if referring else b"",
            box(b"iprp", box(b"ipco", *properties), full(b"ipma", len(items).to_bytes(4), *associations, flags=1)),
            full(b"iloc", b"\x44\0", count, *places),
            extra,
        )

    return head + meta(len(head) + len(meta(0)) + 8) + box(b"mdat", *contents)
