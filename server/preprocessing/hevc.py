"""What an HEVC picture says of itself (ITU-T H.265), read before it is decoded.

A HEIF file gives the size of its picture twice: in its boxes, and in the compressed picture. Decoders go by the second.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from server.errors import UnreadablePicture, UnsupportedPicture

_VPS, _SPS, _PPS = 32, 33, 34
_SLICES = range(32)
_HEADER = 23  # bytes of a configuration before its parameter sets, their number among them
_MOST_BITS = 12
# An encoder may cut a picture into some hundred slices.
_MOST_UNITS = 1000
# HEVC can number 16 VPS, 16 SPS and 64 PPS; others are left for what else an encoder has to say.
_MOST_CONFIGURED = 128
_LONGEST_SPS = 1024
# One that differs from another would be for another picture; each takes a while to read.
_MOST_SPS = 4
# An exp-Golomb code of more zeros counts beyond every field of a parameter set.
_MOST_ZEROS = 31

Configuration = bytes
"""The content of an `hvcC` box."""


@dataclass(frozen=True, slots=True)
class _Coded:
    """What a sequence parameter set says of the pictures that follow it."""

    width: int
    height: int
    """Of what is decoded, in pixels; the picture may be a part of that."""
    chroma: int
    """0: grey, 1: 4:2:0, 2: 4:2:2, 3: 4:4:4."""
    luma_bits: int
    chroma_bits: int


def checked(
    configuration: Configuration, stream: bytes, width: int, height: int, *, most_units: int = _MOST_UNITS
) -> tuple[Configuration, bytes, int]:
    """The configuration, the units of one picture that are needed to decode it, each behind its length (4 bytes), and
    how many units the stream has.

    `stream`: the bytes of an item. `width`, `height`: as the boxes say. `most_units`: raise UnsupportedPicture for
    more, as for more than any encoder writes. Raises UnreadablePicture where the picture has
    another size, so that nothing is decoded that is larger than the boxes say.
    """
    if len(configuration) < _HEADER:
        raise UnreadablePicture()
    count, inside = _units(stream, (configuration[21] & 3) + 1, min(most_units, _MOST_UNITS))
    sets = {unit[:_LONGEST_SPS] for unit in (*_configured(configuration), *inside) if _kind(unit) == _SPS}
    if len(sets) > _MOST_SPS:
        raise UnreadablePicture()
    coded = {_coded(unit) for unit in sets}
    if len(coded) != 1:
        raise UnreadablePicture()
    (one,) = coded
    # Encoders fill a picture up to blocks of at most 64 x 64.
    if not (width <= one.width <= width + 64 and height <= one.height <= height + 64):
        raise UnreadablePicture("The HEIF says another size than the picture in it has.")
    if one.chroma > 3 or max(one.luma_bits, one.chroma_bits) > _MOST_BITS:
        raise UnsupportedPicture(
            f"This HEIF has {one.luma_bits} bits a sample, which is not read here; save it as PNG."
        )
    if one.chroma and one.luma_bits != one.chroma_bits:
        raise UnsupportedPicture(
            "This HEIF has another number of bits for its colours than for its brightness, which is not read here; "
            "save it as JPEG or PNG."
        )
    # A slice says in its first bit, behind the two bytes of the unit's header, whether it begins a picture.
    pictures = sum(_kind(unit) in _SLICES and unit[2:3] >= b"\x80" for unit in inside)
    if pictures > 1:
        raise UnsupportedPicture("This HEIF has several pictures in the place of one; save it as JPEG or PNG.")
    if not pictures:
        raise UnreadablePicture()
    needed = (unit for unit in inside if _kind(unit) in (*_SLICES, _VPS, _SPS, _PPS))
    return _told(configuration, one), b"".join(len(unit).to_bytes(4) + unit for unit in needed), count


def bits(configuration: Configuration) -> int:
    """Of a sample, 8 to 12."""
    return (configuration[17] & 7) + 8


def _told(configuration: Configuration, coded: _Coded) -> Configuration:
    """With what the picture itself says of its samples: decoders go by this where they make room for them."""
    said = bytes((0xFC | coded.chroma, 0xF8 | coded.luma_bits - 8, 0xF8 | coded.chroma_bits - 8))
    lengths = bytes((configuration[21] | 3,))
    return configuration[:16] + said + configuration[19:21] + lengths + configuration[22:]


def _kind(unit: bytes) -> int:
    return unit[0] >> 1 & 63


def _units(stream: bytes, length: int, most: int) -> tuple[int, list[bytes]]:
    """How many there are, and those of the base layer; others hold a second view or the like."""
    at = count = 0
    found: list[bytes] = []
    while at < len(stream):
        size = int.from_bytes(stream[at : at + length])
        at += length
        count += 1
        if count > most:
            raise UnsupportedPicture("This HEIF is cut into more slices than any camera or program writes.")
        if size < 2 or at + size > len(stream):
            raise UnreadablePicture()
        unit = stream[at : at + size]
        at += size
        if not (unit[0] & 1 or unit[1] >> 3):
            found.append(unit)
    return count, found


def _configured(configuration: Configuration) -> Iterator[bytes]:
    at, count = _HEADER, 0
    for _ in range(configuration[_HEADER - 1]):
        arrays = int.from_bytes(configuration[at + 1 : at + 3])
        at += 3
        for _ in range(arrays):
            size = int.from_bytes(configuration[at : at + 2])
            at += 2
            count += 1
            if size < 2 or at + size > len(configuration) or count > _MOST_CONFIGURED:
                raise UnreadablePicture()
            yield configuration[at : at + size]
            at += size


class _Bits:
    def __init__(self, data: bytes) -> None:
        self._data, self._at, self._end = int.from_bytes(data), 0, 8 * len(data)

    def number(self, count: int) -> int:
        self._at += count
        if self._at > self._end:
            raise UnreadablePicture()
        return self._data >> (self._end - self._at) & ((1 << count) - 1)

    def code(self) -> int:
        """An exp-Golomb code: as many zeros as bits follow the one after them."""
        zeros = 0
        while not self.number(1):
            zeros += 1
            if zeros > _MOST_ZEROS:
                raise UnreadablePicture()
        return (1 << zeros) - 1 + self.number(zeros)


def _coded(unit: bytes) -> _Coded:
    # A third byte keeps two zeros from looking like the start of a unit.
    fields = _Bits(unit[2:].replace(b"\0\0\3", b"\0\0"))
    fields.number(4)
    layers = fields.number(3)
    fields.number(1 + 96)  # the profile and level of all layers
    if layers:
        _skip_layers(fields, [(fields.number(1), fields.number(1)) for _ in range(layers)])
    fields.code()
    chroma = fields.code()
    if chroma == 3 and fields.number(1):
        raise UnsupportedPicture("This HEIF has its colours in separate planes, which is not read here.")
    width, height = fields.code(), fields.code()
    if fields.number(1):  # the picture is a part of what is decoded
        for _ in range(4):
            fields.code()
    return _Coded(width, height, chroma, fields.code() + 8, fields.code() + 8)


def _skip_layers(fields: _Bits, present: Iterable[tuple[int, int]]) -> None:
    present = list(present)
    fields.number(2 * (8 - len(present)))
    for profile, level in present:
        fields.number(88 * profile + 8 * level)
