"""Whether a scan of a JPEG is complete, told by one more MCU than it has.

When libjpeg runs out of data it leaves all further blocks at zero, which is grey. So a further MCU that is not grey
proves that all others were decoded from what is there. Where it is grey, it may be so by chance: all levels (DC) are
stored as differences from the one before, and the last one may just be grey's. So MCUs are put before the scan as well,
of its own codes, which shift all levels by the same amount: if the further one is grey still, it was not decoded. Both
take a decoding at 1/8, at which a block is one sample, its level.

This holds for the scans that begin with the levels: all of a sequential JPEG, and the first ones of a progressive one.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image

from server.preprocessing.jpeg_segments import DHT, DQT, DRI, EOI, FRAMES, Component, Frame, Scan

_END = bytes((0xFF, EOI))
_LONGEST_SIDE = 65_500  # libjpeg's

# So that the smallest difference in the level shows in the one sample of a block at 1/8, and the largest does not
# overflow.
_STEP = 7

# Whether each of eight MCUs before the scan raises the level or lowers it. Eight of the same length are whole bytes,
# whatever that length: the scan's own bytes stay as they are.
_RAISE, _KEEP = (True,) * 5 + (False,) * 3, (True,) * 4 + (False,) * 4
_MOST_CATEGORY = 11
_LONGEST_CODE = 16

_Codes = dict[int, str]
"""By symbol: its Huffman code, as 0s and 1s."""


def goes_on(
    data: bytes, frame: Frame, tables: Sequence[bytes], scan: Scan, coded: tuple[int, int], mcus: tuple[int, int]
) -> bool | None:
    """Whether, of a scan that begins with the levels, no MCU is missing; None where that cannot be told.

    `tables`: all segments before it but scans, each whole. `coded`: from where to where in `data` its MCUs lie, the
    first level being stored as it is. `mcus`: how many they are in a row, and in all. Raises what Pillow raises for
    damage.
    """
    parts = [one for one in frame.components if one.id in scan.components]
    if len(parts) not in (1, 3, 4):
        return None
    single = len(parts) == 1
    unit_across = 8 if single else 8 * max(one.across for one in parts)
    unit_down = 8 if single else 8 * max(one.down for one in parts)
    header = bytearray(data[scan.at : scan.entropy])
    if frame.progressive:
        header[-1] = 0  # levels from their lowest bit on: the codes are the same
    across, count = mcus
    longest = _LONGEST_SIDE // unit_down * across

    def further(before: Sequence[bytes], behind: Sequence[bytes | memoryview], count: int) -> object:
        width, height = across * unit_across, (count // across + 1) * unit_down
        parted = (_before(frame, parts, tables, width, height), *before, header, *behind, _END)
        left, top = count % across * unit_across // 8, count // across * unit_down // 8
        return _levels(b"".join(parted)).crop((left, top, left + unit_across // 8, top + unit_down // 8)).getextrema()

    if count + len(_RAISE) >= longest:
        return None
    # Of MCUs without data the first is decoded from zeros in its place, the second not at all.
    grey = further((), (), 1)
    there = memoryview(data)[slice(*coded)]
    if further((), (there,), count) != grey:
        return True
    if (shift := _shift(frame, parts, tables, bytes(header))) is None:
        return None
    table, first = shift
    return further((table,), (first, there), count + len(_RAISE)) != grey


def resized(frame: Frame, parts: Sequence[Component], tables: Sequence[bytes], width: int, height: int) -> list[bytes]:
    """All before the first scan, for a picture of another size and of some of its components."""
    sof = next(table for table in tables if table[1] in FRAMES)
    listed = [sof[at : at + 3] for at in range(10, 10 + 3 * len(frame.components), 3)]
    named = b"".join(one for one in listed if one[0] in [part.id for part in parts])
    payload = sof[4:5] + height.to_bytes(2) + width.to_bytes(2) + bytes((len(parts),)) + named
    return [sof[:2] + (2 + len(payload)).to_bytes(2) + payload if one is sof else one for one in tables]


def _before(frame: Frame, parts: Sequence[Component], tables: Sequence[bytes], width: int, height: int) -> bytes:
    """As `resized`, without restarts, and quantized so that each difference of a level shows at 1/8."""
    kept = [one for one in resized(frame, parts, tables, width, height) if one[1] not in (DQT, DRI)]
    # Steps of 0 for all but the level keep libjpeg from smoothing a progressive picture, which would bring the
    # neighbours' levels into a block that was not decoded.
    steps = b"".join(bytes((table, _STEP, *bytes(63))) for table in range(4))
    return b"".join((*kept, bytes((0xFF, DQT)), (2 + len(steps)).to_bytes(2), steps))


def _levels(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data), formats=("JPEG",))
    image.draft(None, (1, 1))  # at 1/8: both sides are multiples of 8
    image.load()
    return image


def _shift(
    frame: Frame, parts: Sequence[Component], tables: Sequence[bytes], header: bytes
) -> tuple[bytes, bytes] | None:
    """A further table, or nothing; and MCUs that leave another level of the first component behind them."""
    huffman = _huffman(tables)
    table = b""
    blocks: list[tuple[_Codes, str]] = []
    for number in range(len(parts)):  # in the order of the scan
        part = next(one for one in parts if one.id == header[5 + 2 * number])
        choice = header[6 + 2 * number]
        stored, of_rest = huffman.get(choice >> 4), huffman.get(0x10 | choice & 15)
        if stored is None:
            return None
        codes, end = _codes(stored), ""
        if number == 0 and not any(codes):
            # All levels are the same. A code that is not used yet stands for a difference of 1.
            if (longer := _with_one_more(stored)) is None:
                return None
            table, codes = bytes((0xFF, DHT)) + (2 + len(longer)).to_bytes(2) + longer, _codes(longer)
        if not frame.progressive:
            if of_rest is None or (ends := _codes(of_rest).get(0)) is None:
                return None
            end = ends
        blocks += [(codes, end)] * (1 if len(parts) == 1 else part.across * part.down)
    bits = ""
    for raised, kept in zip(_RAISE, _KEEP, strict=True):
        for number, (codes, end) in enumerate(blocks):
            category = min((one for one in codes if one > 0 or number > 0), default=16)
            if category > _MOST_CATEGORY:
                return None
            bits += codes[category] + _least(category, above=raised if number == 0 else kept) + end
    return table, int(bits, 2).to_bytes(len(bits) // 8).replace(b"\xff", b"\xff\0")


def _least(category: int, *, above: bool) -> str:
    """The bits of the difference of this category that is nearest to 0, above it or below."""
    if category == 0:
        return ""
    return "1" + "0" * (category - 1) if above else "0" + "1" * (category - 1)


def _huffman(tables: Sequence[bytes]) -> dict[int, bytes]:
    """By class and number: each table as it is stored. A later one replaces an earlier."""
    found = {}
    for segment in tables:
        at = 4
        while segment[1] == DHT and at + 17 <= len(segment):
            behind = at + 17 + sum(segment[at + 1 : at + 17])
            found[segment[at]] = segment[at:behind]
            at = behind
    return found


def _codes(table: bytes) -> _Codes:
    codes, code, at = dict[int, str](), 0, 17
    for length, count in enumerate(table[1:17], 1):
        for symbol in table[at : at + count]:
            codes[symbol] = format(code, f"0{length}b")
            code += 1
        at, code = at + count, code << 1
    return codes


def _with_one_more(table: bytes) -> bytes | None:
    """A Huffman table with a further, longer code, for the symbol 1; None where no code is free."""
    counts = bytearray(table[1:17])
    longest = max((length for length, count in enumerate(counts, 1) if count), default=0)
    used = sum(count << (longest - length) for length, count in enumerate(counts, 1) if length <= longest)
    if not 0 < longest < _LONGEST_CODE or used >= 1 << longest:
        return None
    counts[longest] += 1
    return bytes((table[0], *counts)) + table[17:] + b"\x01"
