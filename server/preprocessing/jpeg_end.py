"""Whether a JPEG without an end mark is whole: whether every coefficient of it is in the file.

Some programs leave the end mark out, and phones put other data in its place. A file that was cut short lacks it as
well, and libjpeg, asked to decode one all the same, fills what is missing with grey and says so to nobody who calls it
by way of Pillow. So the file is decoded in ways that show the difference:

- Of a scan that begins with the levels of the blocks (DC) `jpeg_row` tells it for certain.
- A scan of one further bit of each level is a row of bits: there are enough of them, or not.
- Of any other the file is decoded with nothing and with different bytes before the end mark. A decoder would read those
  for what is missing. Where all pixels are the same each time, nothing that shows was. Of a progressive JPEG only the
  component of the last scan is decoded, and what that scan refines. A small coefficient may not show where it is
  quantized finely, so a coarser quantization is taken; and its own as well where the coarser one drowns the last blocks
  in black or white.
"""

from __future__ import annotations

import io
import math
import re
import zlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from server.errors import UnreadablePicture
from server.preprocessing.jpeg_row import goes_on, resized
from server.preprocessing.jpeg_segments import DQT, EOI, SOS, Body, Frame, Head, Scan, behind_restart

_END = bytes((0xFF, EOI))
# Within entropy-coded data whatever is not a byte of it: a restart, or bytes FF that fill.
_ODD = re.compile(rb"\xff[^\x00]")

# What a decoder reads in place of missing data: nothing, and bytes in pairs without a bit in common, so that whichever
# bit is the first that is missing, it is both 0 and 1. None is FF, which begins a marker. They are more than the
# longest MCU takes (10 blocks of 64 coefficients of 26 bits), part of which may lie beside the picture.
_RANDOM = np.random.default_rng(0).integers(1, 255, (2, 4096), np.uint8)
_IN_PLACE = tuple(bytes(one) for drawn in _RANDOM for one in (drawn, ~drawn))

# A step of 1 in another coefficient is one of 4/8 x cos x cos, or more, in a sample.
_AC_STEP = 4
_STRIP_ROWS = 256

# What is decoded anew for each decoding of a proof, so that all five take no more than two seconds or so: pixels of
# each scan, and bytes, one of which takes as long as eight pixels. The scans of one component are about four: 30
# megapixels of a progressive JPEG.
_MOST_DECODED_ANEW = 150_000_000
_PIXELS_A_BYTE = 8

_CANNOT_TELL = "The JPEG has no end mark, and is too large to tell whether it was cut short; please save it anew."


def without_end(data: bytes, scan: Scan) -> int:
    """Where the scan's entropy-coded data ends: a byte FF at the very end is half of a marker."""
    end = scan.end
    while end > scan.entropy and data[end - 1] == 0xFF:
        end -= 1
    return end


def all_is_there(data: bytes, head: Head, body: Body, *, max_pixels: int) -> bool:
    """Whether no coefficient is missing, of a JPEG whose `body` has no end mark.

    A picture of more than `max_pixels` is decoded at 1/8 only, and so is one that would take long. Raises
    UnreadablePicture where that proves nothing.
    """
    frame, last = head.frame, body.scans[-1]
    if not _are_covered(frame, body.scans):
        return False
    across, down = _units(frame, last)
    restarts = (across * down - 1) // last.restarts if last.restarts else 0
    # In place of a restart marker that is missing a decoder takes no other data.
    if (start := behind_restart(data, last, restarts)) is None:
        return False
    end = without_end(data, last)
    coded = across * down - restarts * last.restarts
    tables = [data[a:b] for a, b in (*head.kept, *body.kept) if a < last.at and data[a + 1] != SOS]
    try:
        told: bool | None = None
        if last.first == 0 and last.high == 0:
            told = goes_on(data, frame, tables, last, (start, end), (across, coded))
        elif last.first == 0:
            told = _has_bits(data[start:end], coded * _blocks(frame, last))
        if told is not None:
            return told
        needed = [scan for scan in body.scans if _builds_on(frame, last, scan)]
        pixels = frame.width * frame.height
        anew = sum(
            64 * math.prod(_units(frame, s)) * _blocks(frame, s) + _PIXELS_A_BYTE * (s.end - s.at) for s in needed
        )
        if pixels > max_pixels or anew > _MOST_DECODED_ANEW:
            raise UnreadablePicture(_CANNOT_TELL)
        twice = 2 * anew <= _MOST_DECODED_ANEW
        return _is_the_same_whatever_follows(data, head, body, end, {scan.at for scan in needed}, twice=twice)
    except (MemoryError, UnreadablePicture):
        raise
    except Exception:  # Pillow raises OSError, SyntaxError, ValueError... for damage
        return False


def _are_covered(frame: Frame, scans: Sequence[Scan]) -> bool:
    """Whether there is a scan for each component; for each coefficient down to its lowest bit, if progressive."""
    missing = {one.id: np.full(64, 1 if frame.progressive else 0) for one in frame.components}
    seen = set()
    for scan in scans:
        for component in scan.components:
            seen.add(component)
            if frame.progressive and component in missing:
                missing[component][scan.first : scan.last + 1] = scan.low
    return missing.keys() <= seen and not any(each.any() for each in missing.values())


def _units(frame: Frame, scan: Scan) -> tuple[int, int]:
    """How many MCUs a scan has, across and down."""
    most_across = max(one.across for one in frame.components)
    most_down = max(one.down for one in frame.components)
    if len(scan.components) > 1:
        return -(-frame.width // (8 * most_across)), -(-frame.height // (8 * most_down))
    only = next(one for one in frame.components if one.id == scan.components[0])
    width, height = -(-frame.width * only.across // most_across), -(-frame.height * only.down // most_down)
    return -(-width // 8), -(-height // 8)


def _blocks(frame: Frame, scan: Scan) -> int:
    """How many blocks an MCU of the scan has."""
    if len(scan.components) == 1:
        return 1
    return sum(one.across * one.down for one in frame.components if one.id in scan.components)


def _has_bits(coded: bytes, count: int) -> bool | None:
    """Whether entropy-coded data has so many bits; None where it has more in it than that."""
    if _ODD.search(coded):
        return None
    return 8 * (len(coded) - coded.count(b"\xff\0")) >= count


def _is_the_same_whatever_follows(
    data: bytes, head: Head, body: Body, end: int, needed: set[int], *, twice: bool
) -> bool:
    """Whether the pixels depend on nothing behind `end`.

    `needed`: where the scans are that the last one builds on. `twice`: whether there is time to try both ways of
    quantization; raises UnreadablePicture where there is not, and the first does not tell.
    """
    frame, last = head.frame, body.scans[-1]
    scans = b"".join(
        data[at : end if at == last.at else behind]
        for at, behind in body.kept
        if (data[at + 1] != SOS or at in needed) and at <= last.at
    )
    tables = [data[start:behind] for start, behind in head.kept]
    if last.first > 0:  # no other component is decoded: see `_builds_on`
        parts = [one for one in frame.components if one.id in last.components]
        across, down = _units(frame, last)
        tables = resized(frame, parts, tables, 8 * across, 8 * down)
    plain, coarse = b"".join(tables), b"".join(map(_coarser, tables))
    image = _same(coarse + scans)
    if image is None:
        return False
    if plain == coarse or (last.first > 0 and not _drowned(image)):
        return True
    del image
    if not twice:
        raise UnreadablePicture(_CANNOT_TELL)
    return _same(plain + scans) is not None


def _drowned(image: Image.Image) -> bool:
    """Whether, of the last row of blocks, one has more samples as dark or as bright as can be than others.

    Else any difference of the blocks shows: of the 32 others in each, some are on the brink of another value.
    """
    row = np.asarray(image.crop((0, image.height - 8, *image.size)))
    extreme = ((row == 0) | (row == 255)).reshape(8, -1, 8)
    return bool((extreme.sum(axis=(0, 2)) > 32).any())


def _same(cut: bytes) -> Image.Image | None:
    """The picture, if it is the same whatever follows; else None."""
    image = _decoded(cut + _END)
    digest = _digest(image)
    return image if all(_digest(_decoded(cut + other + _END)) == digest for other in _IN_PLACE) else None


def _coarser(segment: bytes) -> bytes:
    """A table of quantization in which no AC coefficient is quantized so finely that a step of 1 may not show."""
    if segment[1] != DQT:
        return segment
    tables, at = bytearray(segment), 4
    while at + 65 <= len(tables) and tables[at] >> 4 == 0:
        tables[at + 2 : at + 65] = bytes(max(step, _AC_STEP) for step in tables[at + 2 : at + 65])
        at += 65
    return bytes(tables)


def _builds_on(frame: Frame, last: Scan, scan: Scan) -> bool:
    """Whether how `last` is decoded depends on `scan`, or they are one. Of the others nothing need be decoded."""
    if scan == last or not frame.progressive:
        return scan == last
    if last.first == 0:
        return True
    return last.high > 0 and 0 < scan.first <= last.last and scan.components == last.components


def _decoded(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data), formats=("JPEG",))
    image.load()
    return image


def _digest(image: Image.Image) -> int:
    """Of all samples, by strips: a copy of all of them would be as large as the picture."""
    digest = 0
    for top in range(0, image.height, _STRIP_ROWS):
        strip = image.crop((0, top, image.width, min(top + _STRIP_ROWS, image.height)))
        digest = zlib.crc32(strip.tobytes(), digest)
    return digest
