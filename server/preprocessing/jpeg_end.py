"""Whether a JPEG without an end mark is whole: whether every coefficient of it is in the file.

Some programs leave the end mark out, and phones put other data in its place. A file that was cut short lacks it as
well, and libjpeg, asked to decode one all the same, fills what is missing with grey and says so to nobody who calls it
by way of Pillow. So the file is decoded in ways that show the difference:

- A JPEG of one scan (of its last restart interval alone, where it has any) gets one more row of blocks than it has, and
  its end mark. When libjpeg runs out of data it leaves all further blocks at zero, which is grey. So a further row that
  is not grey proves that all others were decoded from what is there. This takes one decoding at 1/8.
- Else, and where that row is grey, which a whole picture can have as well, the file is decoded with nothing and with
  different bytes before the end mark. A decoder would read those for what is missing. Where all pixels are the same
  each time, nothing that shows was. Both with its own quantization and, where that is fine, with a coarser one: a small
  coefficient may show in one of them only.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from server.errors import UnreadablePicture
from server.preprocessing.jpeg_segments import APP0, DQT, DRI, EOI, SOS, Body, Frame, Head, Scan, behind_restart, joined

_END = bytes((0xFF, EOI))
_LONGEST_SIDE = 65_500  # libjpeg's

# What a decoder reads in place of missing data: nothing, and bytes in pairs without a bit in common, so that whichever
# bit is the first that is missing, it is both 0 and 1. None is FF, which begins a marker. They are more than the
# longest MCU takes (10 blocks of 64 coefficients of 26 bits), part of which may lie beside the picture.
_RANDOM = np.random.default_rng(0).integers(1, 255, (2, 4096), np.uint8)
_IN_PLACE = tuple(bytes(one) for drawn in _RANDOM for one in (drawn, ~drawn))

# So that the smallest difference in the DC coefficient shows in the one sample of a block at 1/8, and the largest does
# not overflow.
_DC_STEP = 7
# A step of 1 in another coefficient is one of 4/8 x cos x cos, or more, in a sample.
_AC_STEP = 4
_STRIP_ROWS = 256

# Scans x pixels that are decoded anew for each decoding of a proof, so that it takes no more than a second or so. The
# scans of one component are about four: 16 megapixels of a progressive JPEG.
_MOST_DECODED_ANEW = 64_000_000

_CANNOT_TELL = "The JPEG has no end mark, and is too large to tell whether it was cut short; please save it anew."


def without_end(data: bytes, scan: Scan) -> int:
    """Where the scan's entropy-coded data ends: a byte FF at the very end is half of a marker."""
    end = scan.end
    while end > scan.entropy and data[end - 1] == 0xFF:
        end -= 1
    return end


def all_is_there(data: bytes, head: Head, body: Body, *, max_pixels: int) -> bool:
    """Whether no coefficient is missing, of a JPEG whose `body` has no end mark.

    A picture of more than `max_pixels` is decoded at 1/8 only, and so is one of many pixels and scans. Raises
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
    try:
        if head.one_pass and len(body.scans) == 1 and _goes_on(data, head, (start, end), coded):
            return True
        needed = {scan.at for scan in body.scans if _builds_on(frame, last, scan)}
        pixels = frame.width * frame.height
        if pixels > max_pixels or len(needed) * pixels > _MOST_DECODED_ANEW:
            raise UnreadablePicture(_CANNOT_TELL)
        return _is_the_same_whatever_follows(data, head, body, end, needed)
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


def _goes_on(data: bytes, head: Head, coded: tuple[int, int], count: int) -> bool:
    """Whether, of a scan of all components, a row below these `count` MCUs is decoded from what is left of the data.

    `coded`: where the MCUs begin and end in `data`.
    """
    frame = head.frame
    single = len(frame.components) == 1
    unit_across = 8 if single else 8 * max(one.across for one in frame.components)
    unit_down = 8 if single else 8 * max(one.down for one in frame.components)
    # Any shape serves that has so many: that of the picture, or else one row.
    across = -(-frame.width // unit_across)
    across = count if count % across else across
    above = count // across * unit_down
    if max(across * unit_across, above + unit_down) > _LONGEST_SIDE:
        return False
    scan = data[head.sos : head.sos + 2 + int.from_bytes(data[head.sos + 2 : head.sos + 4])]
    longer = _head(data, head, across * unit_across, above + unit_down) + scan
    image = _decoded(b"".join((longer, memoryview(data)[slice(*coded)], _END)), scaled=True)
    # Of two MCUs without data the first is decoded from zeros in its place, the second not at all.
    empty = _head(data, head, unit_across, 2 * unit_down) + scan + _END
    grey = _decoded(empty, scaled=True).crop((0, unit_down // 8, unit_across // 8, unit_down // 4))
    return image.crop((0, above // 8, *image.size)).getextrema() != grey.getextrema()


def _is_the_same_whatever_follows(data: bytes, head: Head, body: Body, end: int, needed: set[int]) -> bool:
    """Whether the pixels depend on nothing behind `end`; `needed`: where the scans are that the last one builds on."""
    frame, last = head.frame, body.scans[-1]
    scans = b"".join(
        data[at : end if at == last.at else behind]
        for at, behind in body.kept
        if (data[at + 1] != SOS or at in needed) and at <= last.at
    )
    # Of a scan of the first component a grey decoding shows all, if that is the brightness: JFIF says so.
    grey = last.components == (frame.components[0].id,) and any(data[start + 1] == APP0 for start, _ in head.kept)
    plain = joined(data, head.kept)
    coarse = b"".join(_coarser(data[start:behind]) for start, behind in head.kept)
    for tables in {plain, coarse}:
        digest = _digest(_decoded(tables + scans + _END, grey=grey))
        if any(_digest(_decoded(tables + scans + other + _END, grey=grey)) != digest for other in _IN_PLACE):
            return False
    return True


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
    if not frame.progressive:
        return scan == last
    return last.first == 0 or (scan.first > 0 and scan.components == last.components)


def _head(data: bytes, head: Head, width: int, height: int) -> bytes:
    """All before the first scan, for a picture of another size without restarts that shows each difference at 1/8."""
    tables = b"".join(bytes((table, *(_DC_STEP,) * 64)) for table in range(4))
    parts = []
    for start, end in head.kept:
        if start == head.frame.at - 4:
            size = height.to_bytes(2) + width.to_bytes(2)
            parts.append(data[start : start + 5] + size + data[start + 9 : end])
        elif data[start + 1] not in (DQT, DRI):
            parts.append(data[start:end])
    return b"".join((*parts, bytes((0xFF, DQT)), (2 + len(tables)).to_bytes(2), tables))


def _decoded(data: bytes, *, scaled: bool = False, grey: bool = False) -> Image.Image:
    image = Image.open(io.BytesIO(data), formats=("JPEG",))
    if grey:
        image.draft("L", None)
    if scaled:
        image.draft(None, (1, 1))  # at 1/8: both sides are multiples of 8
    image.load()
    return image


def _digest(image: Image.Image) -> int:
    """Of all samples, by strips: a copy of all of them would be as large as the picture."""
    digest = 0
    for top in range(0, image.height, _STRIP_ROWS):
        strip = image.crop((0, top, image.width, min(top + _STRIP_ROWS, image.height)))
        digest = zlib.crc32(strip.tobytes(), digest)
    return digest
