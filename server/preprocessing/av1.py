"""How large the frames inside an AVIF are, which need not be what its header says.

libavif compares the two only when a frame is decoded, and its decoder takes frames of up to 268 million pixels: a file
of a few kilobytes could ask for a gigabyte. The size stands in the sequence header at the beginning of each frame's
data, so it is read there. What cannot be found here is left to libavif.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from server.errors import UnsupportedPicture

# Boxes, items, their parts and units, all together. A picture of a thousand tiles has some 6,000.
_MOST_STEPS = 100_000
# Each takes some 30 microseconds; a tile has one.
_MOST_SEQUENCE_HEADERS = 10_000
_CONTAINERS = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
_AV1 = b"av01"
_SEQUENCE_HEADER = 1
# Of an item in several parts: its sequence header stands at the beginning.
_ENOUGH = 1 << 16


class _Steps:
    """Counts what is looked at, so that no file keeps the reader busy."""

    def __init__(self) -> None:
        self._left = _MOST_STEPS
        self._headers_left = _MOST_SEQUENCE_HEADERS

    def take(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise UnsupportedPicture(f"This AVIF has more than {_MOST_STEPS:,} parts; save it anew.")

    def take_header(self) -> None:
        self._headers_left -= 1
        if self._headers_left < 0:
            raise UnsupportedPicture(
                f"This AVIF has more than {_MOST_SEQUENCE_HEADERS:,} frames or tiles; save it as a JPEG or a PNG."
            )


def frame_sizes(data: bytes) -> Iterator[tuple[int, int]]:
    """Width and height by each sequence header: of every item of AV1, and of the first frame of every track.

    Raises UnsupportedPicture for a file of too many parts.
    """
    view, steps = memoryview(data), _Steps()
    try:
        for part in (*_items(view, steps), *_first_samples(view, view, steps)):
            yield from _sequence_headers(part, steps)
    except (struct.error, IndexError, ValueError):  # it ends before what it promises
        return


def _boxes(view: memoryview, steps: _Steps) -> Iterator[tuple[bytes, memoryview]]:
    at = 0
    while at + 8 <= len(view):
        steps.take()
        length, kind = struct.unpack_from(">I4s", view, at)
        head = 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", view, at + 8)
            head = 16
        end = at + length if length else len(view)
        if end < at + head:
            return
        yield kind, view[at + head : end]
        at = end


def _items(view: memoryview, steps: _Steps) -> Iterator[memoryview]:
    """The data of every item of AV1, from its first part."""
    for kind, content in _boxes(view, steps):
        if kind != b"meta":
            continue
        inner: dict[bytes, memoryview] = {}
        for name, box in _boxes(content[4:], steps):
            inner.setdefault(name, box)
        if b"iloc" in inner and b"iinf" in inner:
            wanted = _of_av1(inner[b"iinf"], steps)
            yield from _located(inner[b"iloc"], wanted, view, inner.get(b"idat", view[:0]), steps)


def _of_av1(iinf: memoryview, steps: _Steps) -> set[int]:
    """The numbers of the items that are AV1."""
    found = set()
    for kind, entry in _boxes(iinf[8 if iinf[0] else 6 :], steps):
        wide = 2 if kind == b"infe" and entry[0] == 3 else 0
        if kind == b"infe" and entry[0] >= 2 and entry[8 + wide : 12 + wide] == _AV1:
            found.add(int.from_bytes(entry[4 : 6 + wide]))
    return found


def _located(
    iloc: memoryview, wanted: set[int], file: memoryview, idat: memoryview, steps: _Steps
) -> Iterator[memoryview]:
    """By the box that says where items lie, in any of its three versions."""
    version, sizes, more = iloc[0], iloc[4], iloc[5]
    widths = (sizes >> 4, sizes & 15, more >> 4, more & 15 if version else 0)
    at = 8 if version < 2 else 10
    count = int.from_bytes(iloc[6:at])

    def number(width: int) -> int:
        nonlocal at
        at += width
        if at > len(iloc):
            raise ValueError
        return int.from_bytes(iloc[at - width : at])

    for _ in range(count):
        steps.take()
        item = number(4 if version == 2 else 2)
        method = number(2) & 15 if version else 0
        number(2)
        base = number(widths[2])
        whole = idat if method == 1 else file
        parts: list[memoryview] = []
        held = 0
        for _ in range(number(2)):
            steps.take()
            number(widths[3])
            start, length = base + number(widths[0]), number(widths[1])
            if item in wanted and held < _ENOUGH:
                parts.append(whole[start : start + length] if length else whole[start:])
                held += len(parts[-1])
        if parts:
            yield parts[0] if len(parts) == 1 else memoryview(b"".join(part[:_ENOUGH] for part in parts))


def _first_samples(view: memoryview, file: memoryview, steps: _Steps, depth: int = 0) -> Iterator[memoryview]:
    """The first frame of every track of AV1."""
    tables: dict[bytes, memoryview] = {}
    found = []
    for kind, content in _boxes(view, steps):
        tables.setdefault(kind, content)
        if kind in _CONTAINERS and depth < len(_CONTAINERS):
            found.append(content)
    offsets = tables.get(b"stco", tables.get(b"co64"))
    if offsets is not None and tables.get(b"stsd", view[:0])[12:16] == _AV1:
        (start,) = struct.unpack_from(">I" if b"stco" in tables else ">Q", offsets, 8)
        sizes = tables.get(b"stsz", view[:0])
        (length,) = struct.unpack_from(">I", sizes, 4)
        if not length:  # they differ
            (length,) = struct.unpack_from(">I", sizes, 12)
        yield file[start : start + length]
    for content in found:
        yield from _first_samples(content, file, steps, depth + 1)


def _sequence_headers(part: memoryview, steps: _Steps) -> Iterator[tuple[int, int]]:
    at = 0
    while at + 2 <= len(part):
        steps.take()
        head = part[at]
        at += 2 if head & 4 else 1
        length = len(part) - at
        if head & 2:  # its length is said: 7 bits a byte, the lowest first
            length = 0
            for place in range(8):
                byte = part[at]
                at += 1
                length |= (byte & 127) << 7 * place
                if byte < 128:
                    break
        if head & 0x80:
            return  # no unit begins so
        if head >> 3 & 15 == _SEQUENCE_HEADER:
            steps.take_header()
            yield _size(bytes(part[at : at + min(length, 256)]))
        at += length


def _size(header: bytes) -> tuple[int, int]:
    """By section 5.5.1 of the AV1 specification, whose order this follows."""
    bits = f"{int.from_bytes(header):0{8 * len(header)}b}"
    at = 4

    def read(width: int) -> int:
        nonlocal at
        at += width
        return int(bits[at - width : at] or "0", 2)

    if read(1):  # reduced_still_picture_header
        read(5)
    else:
        delay_bits = 0
        if read(1):  # timing_info
            read(64)
            if read(1):
                zeros = len(bits[at:]) - len(bits[at:].lstrip("0"))
                read(2 * zeros + 1)
            if read(1):  # decoder_model_info
                delay_bits = read(5) + 1
                read(42)
        display_delays = read(1)
        for _ in range(read(5) + 1):
            read(12)
            if read(5) > 7:
                read(1)
            if delay_bits and read(1):
                read(2 * delay_bits + 1)
            if display_delays and read(1):
                read(4)
    across, down = read(4) + 1, read(4) + 1
    return read(across) + 1, read(down) + 1
