"""Damage at random, and always the same for a seed."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from bench.decoders.case import Case

# Small files are quickly read, and damage hits what matters.
_LARGEST = 16 << 10
# Lengths, counts and sizes at which arithmetic goes wrong.
_ODD = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


@dataclass(frozen=True, slots=True)
class Mutant:
    """A damaged file, and how it came to be."""

    format: str
    number: int
    """With the seed and the format it makes the very same file again."""
    parent: str
    ways: Sequence[str]
    data: bytes

    @property
    def title(self) -> str:
        return f"{self.format} {self.number}: {self.parent}; {', '.join(self.ways)}"


def mutants(cases: Sequence[Case], count: int, seed: int) -> Iterator[Mutant]:
    """So many, of each format as many as of any other, taking turns."""
    parents: dict[str, list[Case]] = {}
    for case in cases:
        if len(case.data) <= _LARGEST:
            parents.setdefault(case.format, []).append(case)
    for number in range(count):
        form = list(parents)[number % len(parents)]
        yield mutant(parents[form], form, number // len(parents), seed)


def mutant(parents: Sequence[Case], form: str, number: int, seed: int) -> Mutant:
    """One, from files of its format."""
    chance = random.Random(f"{seed} {form} {number}")  # noqa: S311 - it must be the same again
    parent = chance.choice(parents)
    data, ways = parent.data, []
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        way = chance.choice(list(_WAYS))
        ways.append(way)
        data = _WAYS[way](bytearray(data), chance, chance.choice(parents).data)
    if form == "PNG" and chance.random() < 0.7:
        # Else the checksums would keep nearly all damage from whoever reads what is inside.
        data = mended(data)
        ways.append("checksums mended")
    return Mutant(form, number, parent.name, ways, data)


def mended(data: bytes) -> bytes:
    """A PNG whose checksums are right for what its chunks now hold."""
    out, at = bytearray(data), 8
    while at + 12 <= len(out):
        (length,) = struct.unpack_from(">I", out, at)
        end = at + 8 + length
        if end + 4 > len(out):
            break
        struct.pack_into(">I", out, end, zlib.crc32(out[at + 4 : end]))
        at = end + 4
    return bytes(out)


def _place(data: bytes | bytearray, chance: random.Random) -> int:
    """Anywhere, but half of the time near the beginning, where the structure is."""
    most = min(len(data), 160) if chance.random() < 0.5 else len(data)
    return chance.randrange(max(1, most))


def _flip_bits(data: bytearray, chance: random.Random, _: bytes) -> bytes:
    for _n in range(chance.choice((1, 1, 2, 4, 16))):
        if data:
            data[_place(data, chance)] ^= 1 << chance.randrange(8)
    return bytes(data)


def _set_bytes(data: bytearray, chance: random.Random, _: bytes) -> bytes:
    for _n in range(chance.choice((1, 1, 2, 4, 16))):
        if data:
            data[_place(data, chance)] = chance.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF, chance.randrange(256)))
    return bytes(data)


def _cut(data: bytearray, chance: random.Random, _: bytes) -> bytes:
    return bytes(data[: chance.randrange(len(data) + 1)])


def _splice(data: bytearray, chance: random.Random, other: bytes) -> bytes:
    """The beginning of one file and the end of another."""
    return bytes(data[: _place(data, chance)]) + other[_place(other, chance) :]


def _number(data: bytearray, chance: random.Random, _: bytes) -> bytes:
    """A length, a count or a size that nobody expects."""
    code = chance.choice((">H", "<H", ">I", "<I"))
    size = struct.calcsize(code)
    if len(data) >= size:
        at = min(_place(data, chance), len(data) - size)
        (was,) = struct.unpack_from(code, data, at)
        value = chance.choice((*_ODD, was + 1, was - 1, was * 2, was // 2))
        struct.pack_into(code, data, at, value & ((1 << 8 * size) - 1))
    return bytes(data)


def _repeat(data: bytearray, chance: random.Random, _: bytes) -> bytes:
    """A stretch that comes twice, or many times."""
    at = _place(data, chance)
    part = bytes(data[at : at + chance.choice((1, 4, 12, 60, 400))])
    return bytes(data[:at]) + part * chance.choice((2, 2, 3, 40)) + bytes(data[at + len(part) :])


def _remove(data: bytearray, chance: random.Random, _: bytes) -> bytes:
    at = _place(data, chance)
    del data[at : at + chance.choice((1, 2, 4, 12, 60))]
    return bytes(data)


def _blank(data: bytearray, chance: random.Random, _: bytes) -> bytes:
    at = _place(data, chance)
    length = min(chance.choice((4, 16, 64, 300)), len(data) - at)
    data[at : at + length] = bytes([chance.choice((0, 0xFF))]) * length
    return bytes(data)


def _chunks(data: bytearray, chance: random.Random, other: bytes) -> bytes:
    """Parts as the format knows them, in another order, twice, or from another file."""
    cut = _parts(bytes(data))
    if len(cut) < 3:
        return _repeat(data, chance, other)
    first, second = chance.randrange(1, len(cut)), chance.randrange(1, len(cut))
    match chance.randrange(4):
        case 0:
            cut.insert(first, cut[second])
        case 1:
            cut[first], cut[second] = cut[second], cut[first]
        case 2:
            del cut[first]
        case _:
            foreign = _parts(other)
            cut.insert(first, chance.choice(foreign))
    return b"".join(cut)


def _parts(data: bytes) -> list[bytes]:
    """A PNG's chunks, a JPEG's segments, a RIFF's chunks or a file's boxes, behind the signature."""
    if data.startswith(b"\x89PNG"):
        return _lengths(data, 8, ">I", before=0, extra=12)
    if data.startswith(b"RIFF"):
        return _lengths(data, 12, "<I", before=4, extra=8)
    if data[4:8] == b"ftyp":
        return _lengths(data, 0, ">I", before=0, extra=0)
    if data.startswith(b"\xff\xd8"):
        return _lengths(data, 2, ">H", before=2, extra=2)
    return [data]


def _lengths(data: bytes, start: int, code: str, *, before: int, extra: int) -> list[bytes]:
    parts, at = [data[:start]], start
    while at + before + struct.calcsize(code) <= len(data):
        (length,) = struct.unpack_from(code, data, at + before)
        end = at + length + extra
        if end <= at or end > len(data):
            break
        parts.append(data[at:end])
        at = end
    return [*parts, data[at:]]


_WAYS: Mapping[str, Callable[[bytearray, random.Random, bytes], bytes]] = {
    "bits flipped": _flip_bits,
    "bytes set": _set_bytes,
    "cut short": _cut,
    "spliced": _splice,
    "a number changed": _number,
    "another number changed": _number,
    "a stretch repeated": _repeat,
    "a stretch removed": _remove,
    "a stretch blanked": _blank,
    "parts moved": _chunks,
}
