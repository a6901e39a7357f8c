"""The coded pictures of a HEIF file: each taken out of it once, and packed into a small file for the decoder.

Thousands of items may lie over each other in a small file. So what they hold is counted here, and items that hold the
same are one picture, which is decoded once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from server.errors import UnreadablePicture, UnsupportedPicture
from server.preprocessing import hevc
from server.preprocessing.heif_file import HeifFile, Item, Property
from server.preprocessing.heif_turns import Size, shown
from server.preprocessing.isobmff import written, written_full

# Cameras write tiles of 512 x 512: 192 for 48 million pixels, some 800 for a panorama of 200 million, and as many for
# its alpha. To decode one takes a millisecond before its first pixel, so these take no more than about a second.
_MOST_PICTURES = 1024
# Slices and parameter sets of all of them: each has a slice or two.
_MOST_UNITS = 16384
_LONGEST_CONFIGURATION = 64 << 10  # bytes; encoders write some hundred


@dataclass(frozen=True, slots=True, eq=False)
class Coded:
    """A picture as HEVC holds it."""

    size: Size
    configuration: hevc.Configuration
    stream: bytes
    turns: tuple[Property, ...]
    """Of a tile: those that are done before it is put in its place."""
    shown: Size
    """What these leave of it."""


def extent(item: Item) -> Size:
    """Width and height as the item says. Raises UnreadablePicture where it does not."""
    content = item.get(b"ispe") or b""
    found = int.from_bytes(content[4:8]), int.from_bytes(content[8:12])
    if len(content) < 12 or not all(found):
        raise UnreadablePicture()
    return found


class CodedItems:
    """The coded pictures of a file, those that are needed: together no larger than the file."""

    def __init__(self, file: HeifFile) -> None:
        self._file = file
        self._bytes_left, self._units_left = len(file.data), _MOST_UNITS
        self._checked: dict[tuple[tuple[tuple[int, int, int], ...], hevc.Configuration, Size], Coded] = {}
        self._turned: dict[tuple[Coded, tuple[Property, ...]], Coded] = {}

    def of(self, item: Item, turns: tuple[Property, ...] = ()) -> Coded:
        """One and the same object for items of the same bytes, configuration, size and turns.

        Raises UnreadablePicture, UnsupportedPicture.
        """
        size, configuration = extent(item), item.get(b"hvcC")
        if configuration is None:
            raise UnreadablePicture()
        if len(configuration) > _LONGEST_CONFIGURATION:
            raise UnsupportedPicture(
                "This HEIF has longer parameters than any camera or program writes; save it as JPEG or PNG."
            )
        key = tuple(item.parts), configuration, size
        if key not in self._checked:
            self._checked[key] = self._new(item, configuration, size)
        as_placed = self._checked[key], turns
        if as_placed not in self._turned:
            if len(self._turned) == _MOST_PICTURES:
                raise UnsupportedPicture(
                    "This HEIF has more tiles than any camera or program writes; save it as JPEG or PNG."
                )
            self._turned[as_placed] = replace(as_placed[0], turns=turns, shown=shown(size, turns))
        return self._turned[as_placed]

    def _new(self, item: Item, configuration: hevc.Configuration, size: Size) -> Coded:
        content = self._file.content(item)
        self._bytes_left -= len(content)
        if self._bytes_left < 0:  # items that overlap would make a small file a large one
            raise UnreadablePicture()
        told, stream, units = hevc.checked(configuration, content, *size, most_units=self._units_left)
        self._units_left -= units
        return Coded(size, told, stream, (), size)


def packed(coded: Coded, nclx: bytes | None) -> bytes:
    """A HEIF file of nothing but this."""
    width, height = coded.size
    properties = [
        written(b"hvcC", coded.configuration),
        written_full(b"ispe", 0, 0, width.to_bytes(4), height.to_bytes(4)),
    ]
    if nclx is not None:
        properties.append(written(b"colr", b"nclx", nclx))
    places = bytes([len(properties), *range(1, len(properties) + 1)])
    one = (1).to_bytes(2)
    head = written(b"ftyp", b"heic", bytes(4), b"mif1heic")

    def meta(start: int) -> bytes:
        place = start.to_bytes(4) + len(coded.stream).to_bytes(4)
        return written_full(
            b"meta", 0, 0,
            written_full(b"hdlr", 0, 0, bytes(4), b"pict", bytes(13)),
            written_full(b"pitm", 0, 0, one),
            written_full(b"iinf", 0, 0, one, written_full(b"infe", 2, 0, one, bytes(2), b"hvc1", b"\0")),
            written(
                b"iprp",
                written(b"ipco", *properties),
                written_full(b"ipma", 0, 0, (1).to_bytes(4), one, places),
            ),
            written_full(b"iloc", 0, 0, b"\x44\0", one, one, bytes(2), one, place),
        )  # fmt: skip

    return head + meta(len(head) + len(meta(0)) + 8) + written(b"mdat", coded.stream)
