"""GIF, frame by frame. The codes are LZW that never compresses: each is a palette index, cleared before it widens."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

TRAILER = b";"


def screen(width: int, height: int, palette: Sequence[tuple[int, int, int]], *, version: bytes = b"GIF89a") -> bytes:
    """The header; `palette` may be empty."""
    if not palette:
        return version + struct.pack("<HHBBB", width, height, 0, 0, 0)
    return version + struct.pack("<HHBBB", width, height, 0x80 | 0x70 | (_bits(palette) - 1), 0, 0) + _table(palette)


def control(*, transparent: int | None = None, disposal: int = 0, delay: int = 10) -> bytes:
    """What stands before a frame that has transparency or is one of several."""
    flags = disposal << 2 | (transparent is not None)
    return b"!\xf9\4" + struct.pack("<BHB", flags, delay, transparent or 0) + b"\0"


def comment(text: bytes) -> bytes:
    return b"!\xfe" + blocks(text)


def frame(
    indexes: NDArray[np.uint8],
    bits: int,
    *,
    left: int = 0,
    top: int = 0,
    palette: Sequence[tuple[int, int, int]] = (),
    interlaced: bool = False,
) -> bytes:
    """A frame of palette indexes [H, W] below 2^bits."""
    height, width = indexes.shape
    flags = (0x80 | (_bits(palette) - 1) if palette else 0) | (0x40 if interlaced else 0)
    head = b"," + struct.pack("<HHHHB", left, top, width, height, flags) + (_table(palette) if palette else b"")
    if interlaced:
        indexes = np.concatenate([indexes[0::8], indexes[4::8], indexes[2::4], indexes[1::2]])
    least = max(2, bits)
    return head + bytes([least]) + blocks(_codes(indexes.reshape(-1), least))


def blocks(data: bytes) -> bytes:
    return b"".join(bytes([len(data[at : at + 255])]) + data[at : at + 255] for at in range(0, len(data), 255)) + b"\0"


def _codes(indexes: NDArray[np.uint8], least: int) -> bytes:
    clear, stop, width = 1 << least, (1 << least) + 1, least + 1
    # The decoder's table grows by one with each code; before it is full, and codes would widen, it is cleared.
    each = clear - 2
    codes: list[int] = []
    for start in range(0, len(indexes), each):
        codes += [clear, *(int(index) for index in indexes[start : start + each])]
    codes.append(stop)
    bits = np.array([(code >> digit) & 1 for code in codes for digit in range(width)], np.uint8)
    return np.packbits(bits, bitorder="little").tobytes()


def _bits(palette: Sequence[tuple[int, int, int]]) -> int:
    return max(1, (len(palette) - 1).bit_length())


def _table(palette: Sequence[tuple[int, int, int]]) -> bytes:
    return b"".join(bytes(colour) for colour in palette).ljust(3 << _bits(palette), b"\0")
