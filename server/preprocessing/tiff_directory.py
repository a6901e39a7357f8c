"""What a TIFF says about its pictures: its directories of tags, and which of them holds the picture to read.

Every number in a directory comes from a stranger: tags are read only where they lie within the file, and only those
that are asked for.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from server.errors import UnreadablePicture, UnsupportedPicture

Numbers = NDArray[np.int64]

NEW_SUBFILE_TYPE, SUBFILE_TYPE = 254, 255
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
FILL_ORDER, ORIENTATION, SAMPLES, PLANAR = 266, 274, 277, 284
STRIP_OFFSETS, ROWS_PER_STRIP, STRIP_COUNTS = 273, 278, 279
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_COUNTS = 322, 323, 324, 325
T4_OPTIONS, T6_OPTIONS, PREDICTOR, COLOUR_MAP = 292, 293, 317, 320
SUB_DIRECTORIES, INK_SET, EXTRA_SAMPLES, SAMPLE_FORMAT = 330, 332, 338, 339
JPEG_TABLES, COEFFICIENTS, SUBSAMPLING, REFERENCE = 347, 529, 530, 532
PROFILE, DNG_VERSION = 34675, 50706

# What the numbers of a directory are written in, by the type that an entry names.
_INTEGERS = {1: "u1", 3: "u2", 4: "u4", 6: "i1", 8: "i2", 9: "i4", 13: "u4", 16: "u8", 17: "i8", 18: "u8"}
_RATIONAL = 5
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}

_MOST_ENTRIES = 1000
# Only pages before the first full one are looked at: a thumbnail or two, seldom a pyramid.
_MOST_PAGES = 100
_LARGEST_NUMBER = 2**62

_REDUCED, _MASK_PAGE, _OLD_REDUCED = 1, 4, 2
_MASK = 4  # as a photometric interpretation
# Colour filter arrays and linear raw; and how cameras compress them (Nikon, Pentax, Sony, Samsung).
_RAW_PHOTOMETRIC = (32803, 34892)
_RAW_COMPRESSION = (34713, 65535, 32767, 32769, 32770, 34892, 65000)


_RAW = "This TIFF is a camera's raw picture, which is not read here; develop it and save it as JPEG, PNG or TIFF."


@dataclass(frozen=True, slots=True)
class Directory:
    """One page of a TIFF: where the values of its tags lie. Of a tag that is there twice, the first counts."""

    data: bytes
    order: str
    """As `struct` writes it: < for files that begin with II, > for MM."""
    entries: dict[int, tuple[int, int, int]]
    """Tag to the type, the number and the place of its values."""
    following: int
    """Where the next directory lies; 0 after the last."""

    def numbers(self, tag: int, *, most: int) -> Numbers | None:
        """The first whole numbers of a tag, at most so many: 31 million take 248 MB. None where the tag is absent.

        Raises UnreadablePicture where it holds others, or lies outside of the file.
        """
        if tag not in self.entries:
            return None
        kind, count, at = self.entries[tag]
        if kind not in _INTEGERS or at + count * _SIZES[kind] > len(self.data):
            raise UnreadablePicture()
        stored = np.frombuffer(self.data, self.order + _INTEGERS[kind], min(count, most), at)
        if stored.dtype.itemsize == 8:
            stored = np.minimum(stored, _LARGEST_NUMBER)
        numbers: Numbers = stored.astype(np.int64)
        return numbers

    def number(self, tag: int, default: int) -> int:
        """The first whole number of a tag. Raises as `numbers` does."""
        found = self.numbers(tag, most=1)
        return default if found is None or not len(found) else int(found[0])

    def rationals(self, tag: int) -> list[tuple[int, int]] | None:
        """The fractions of a tag as numerators and denominators; None where it holds none that can be read."""
        kind, count, at = self.entries.get(tag, (0, 0, 0))
        if kind != _RATIONAL or count > 16 or at + count * 8 > len(self.data):
            return None
        flat = struct.unpack_from(f"{self.order}{2 * count}I", self.data, at)
        return list(zip(flat[::2], flat[1::2], strict=True))

    def raw(self, tag: int, *, most: int) -> bytes | None:
        """The bytes of a tag; None where it is absent, empty, outside of the file or longer than `most`."""
        kind, count, at = self.entries.get(tag, (0, 0, 0))
        size = count * _SIZES.get(kind, 0)
        if not 0 < size <= most or at + size > len(self.data):
            return None
        return self.data[at : at + size]

    def has_full_picture(self) -> bool:
        """Whether the page is neither a smaller version of another one nor a mask."""
        kind = self.number(NEW_SUBFILE_TYPE, 0)
        if NEW_SUBFILE_TYPE not in self.entries and self.number(SUBFILE_TYPE, 0) == _OLD_REDUCED:
            return False
        return not kind & (_REDUCED | _MASK_PAGE) and not self.is_mask()

    def is_mask(self) -> bool:
        return bool(self.number(NEW_SUBFILE_TYPE, 0) & _MASK_PAGE) or self.number(PHOTOMETRIC, 0) == _MASK

    def is_camera_raw(self) -> bool:
        raw = self.number(PHOTOMETRIC, 0) in _RAW_PHOTOMETRIC or self.number(COMPRESSION, 1) in _RAW_COMPRESSION
        return raw or DNG_VERSION in self.entries

    def area(self) -> int:
        return self.number(WIDTH, 0) * self.number(HEIGHT, 0)


def find_picture(data: bytes) -> Directory:
    """The page to read: the first one in full.

    A file may begin with a thumbnail, or keep the full picture in a directory below the thumbnail's. Where all say that
    they are reduced, the largest. Raises UnreadablePicture, and UnsupportedPicture for a
    camera's raw pictures.
    """
    if data[8:10] == b"CR":  # Canon's, which describes its preview as an ordinary picture
        raise UnsupportedPicture(_RAW)
    reduced = []
    for page in _chain(data):
        if page.is_camera_raw():
            raise UnsupportedPicture(_RAW)
        if page.has_full_picture():
            return page
        reduced.append(page)
    below = (page for parent in tuple(reduced) for page in _below(parent))
    for found in islice(below, _MOST_PAGES):
        if found is None:
            continue
        if found.is_camera_raw():
            raise UnsupportedPicture(_RAW)
        if found.has_full_picture():
            return found
        reduced.append(found)
    pictures = [page for page in reduced if not page.is_mask()] or reduced
    if not pictures:
        raise UnreadablePicture()
    return max(pictures, key=Directory.area)


def _chain(data: bytes) -> Iterator[Directory]:
    """The directories that follow each other, as far as they can be read; the first one must be."""
    order = {b"II": "<", b"MM": ">"}[data[:2]]
    (version,) = struct.unpack_from(order + "H", data, 2)
    big = version == 43
    try:
        (at,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    except struct.error as exc:
        raise UnreadablePicture() from exc
    seen: set[int] = set()
    while at and at not in seen and len(seen) < _MOST_PAGES:
        seen.add(at)
        page = _read(data, order, big, at)
        if page is None:
            break
        yield page
        at = page.following


def _below(page: Directory) -> Iterator[Directory | None]:
    """The directories that a page names as its own; None for each that cannot be read, for it takes as long."""
    at = page.numbers(SUB_DIRECTORIES, most=_MOST_PAGES)
    big = page.data[2:4] in (b"+\0", b"\0+")
    for start in [] if at is None else at.tolist():
        yield _read(page.data, page.order, big, start)


def _read(data: bytes, order: str, big: bool, at: int) -> Directory | None:
    """The directory that begins there; None where it lies outside of the file or ends before its last entry."""
    head, entry, value = ("Q", "HHQ", 8) if big else ("H", "HHI", 4)
    entry_size = struct.calcsize("<" + entry) + value
    entries: dict[int, tuple[int, int, int]] = {}
    try:
        (count,) = struct.unpack_from(order + head, data, at)
        if count > _MOST_ENTRIES:
            return None
        start = at + struct.calcsize("<" + head)
        for place in range(start, start + count * entry_size, entry_size):
            tag, kind, number = struct.unpack_from(order + entry, data, place)
            values = place + entry_size - value
            if number * _SIZES.get(kind, 1) > value:
                (values,) = struct.unpack_from(order + ("Q" if big else "I"), data, values)
            entries.setdefault(tag, (kind, number, values))
        end = start + count * entry_size
        # Some writers leave out the place of the next directory at the end of the file.
        following = struct.unpack_from(order + ("Q" if big else "I"), data, end)[0] if end + value <= len(data) else 0
    except (struct.error, OverflowError):
        return None
    return Directory(data, order, entries, following)
