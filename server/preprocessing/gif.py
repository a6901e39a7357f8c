"""GIF: the first frame in its place on the screen, as browsers show it before anything moves.

What the frame does not cover is transparent; the background colour that a GIF names is used by no browser. Nothing
behind the first frame is read, however many follow. A number beyond the palette is black; without any palette, which
leaves the colours open, numbers are greys. GIFs are not turned and not colour-managed: no program that shows them does.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from PIL import Image

from server.errors import UnreadablePicture, UnsupportedPicture
from server.preprocessing.formats import Format
from server.preprocessing.stored import Bounds, Stored

_SCREEN = struct.Struct("<6xHHBxx")
_FRAME = struct.Struct("<HHHHB")
_PALETTE_FOLLOWS, _INTERLACED, _PALETTE_SIZE = 0x80, 0x40, 0x07
_CONTROL = 0xF9

_GREYS = bytes(number for grey in range(256) for number in (grey, grey, grey))

# An extension, a frame, or the end. What stands between them is skipped, mostly zeros.
_NEXT = re.compile(rb"[!,;]")
# Of extensions before the first frame, 255 bytes each at most: 25 MB. A file may hold millions of empty ones.
_MOST_BLOCKS = 100_000
# Of a frame that ends too early, which is then looked at anew: 255 bytes each at most, too.
_MOST_BLOCKS_OF_A_FRAME = 1_000_000


@dataclass(frozen=True, slots=True)
class _First:
    """The first frame, as its header describes it."""

    screen: tuple[int, int]
    """Made larger where the frame lies beyond it, as browsers make it; many files say 0 x 0."""
    place: tuple[int, int]
    size: tuple[int, int]
    palette: bytes
    transparent: int | None
    interlaced: bool
    bits: int
    """The first width of its codes, less one."""
    at: int
    """Where its sub-blocks begin."""


def measure(data: bytes, _form: Format) -> tuple[int, int]:
    """Width and height of the screen, from the headers alone. Raises as `read` does."""
    return _first(data).screen


def read(data: bytes, _form: Format, bounds: Bounds) -> Stored:
    """Raises PictureTooLarge before it decodes, UnreadablePicture, UnsupportedPicture."""
    first = _first(data)
    bounds.check(*first.screen)  # which is as large as the frame or larger
    frame = _decoded(data, first)
    frame.putpalette(first.palette)
    if first.transparent is not None:
        frame.info["transparency"] = first.transparent
    if first.size == first.screen:
        return Stored(frame, first.screen)
    screen = Image.new("RGBA", first.screen, (0, 0, 0, 0))
    screen.paste(frame.convert("RGBA"), first.place)
    return Stored(screen, first.screen)


def _first(data: bytes) -> _First:
    try:
        return _found(data)
    except (struct.error, IndexError):  # it ends before what it promises
        raise UnreadablePicture() from None


def _found(data: bytes) -> _First:
    width, height, flags = _SCREEN.unpack_from(data)
    palette, at = _palette(data, _SCREEN.size, flags)
    transparent = None
    blocks = 0
    while (found := _NEXT.search(data, at)) and found[0] != b";":
        at = found.end()
        if found[0] == b",":
            left, top, across, down, flags = _FRAME.unpack_from(data, at)
            own, at = _palette(data, at + _FRAME.size, flags)
            if not across or not down:
                raise UnreadablePicture("The first frame of this GIF is damaged: it has no width or no height.")
            screen = max(width, left + across), max(height, top + down)
            interlaced = bool(flags & _INTERLACED)
            colours = (own or palette or _GREYS).ljust(len(_GREYS), b"\0")
            return _First(screen, (left, top), (across, down), colours, transparent, interlaced, data[at], at + 1)
        label, at = data[at], at + 1
        if label == _CONTROL and data[at] >= 4:
            # The last one before the frame counts.
            transparent = data[at + 4] if data[at + 1] & 1 else None
        while (length := data[at]) and blocks < _MOST_BLOCKS:
            at += 1 + length
            blocks += 1
        at += 1
        blocks += 1
        if blocks >= _MOST_BLOCKS:
            raise UnsupportedPicture(
                f"This GIF has more than {_MOST_BLOCKS:,} blocks of comments and the like before its picture; "
                "save it anew."
            )
    raise UnreadablePicture("This GIF is cut short or damaged: it holds no picture.")


def _palette(data: bytes, at: int, flags: int) -> tuple[bytes, int]:
    """The palette that stands at `at`, where the flags say so, or nothing; and where it ends."""
    end = at + (3 << (flags & _PALETTE_SIZE) + 1 if flags & _PALETTE_FOLLOWS else 0)
    return data[at:end], end


def _decoded(data: bytes, first: _First) -> Image.Image:
    try:
        return _frombytes(data[first.at :], first)
    except ValueError:
        whole = _with_a_whole_end(data, first.at)
        if whole is None:
            raise UnreadablePicture() from None
    try:
        return _frombytes(whole, first)
    except ValueError as exc:
        raise UnreadablePicture() from exc


def _frombytes(blocks: bytes, first: _First) -> Image.Image:
    """Raises ValueError where a row is missing or a code is damaged."""
    return Image.frombytes("P", first.size, blocks, "gif", first.bits, int(first.interlaced))


def _with_a_whole_end(data: bytes, at: int) -> bytes | None:
    """The sub-blocks with the length of the last corrected, where the file ends within it; else None.

    The decoder leaves out a sub-block that is not whole, and with it up to 255 bytes of pixels that are there.
    """
    start = at
    for _ in range(_MOST_BLOCKS_OF_A_FRAME):
        if at >= len(data) or not data[at]:
            return None
        if at + 1 + data[at] > len(data):
            return data[start:at] + bytes([len(data) - at - 1]) + data[at + 1 :]
        at += 1 + data[at]
    return None
