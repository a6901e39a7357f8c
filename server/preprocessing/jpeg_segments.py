"""The segments of a JPEG, read without Pillow: what its decoder needs, and what is told about the picture.

Pillow reads every segment of metadata, and refuses a sound picture for one that is short or odd. Here all that no
decoder needs is left out before Pillow sees the file, and metadata that cannot be read counts as absent. A JPEG is a
row of segments: FF, a marker, in most of them a length of two bytes that counts itself, and a payload. Behind the
header of a scan (SOS) stands its entropy-coded data, up to the next marker.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from server.errors import UnreadablePicture, UnsupportedPicture
from server.preprocessing.metadata import EXIF_PREFIX, exif_orientation, xmp_orientation
from server.preprocessing.stored import MOST_PROFILE_BYTES

SOI, EOI, SOS = 0xD8, 0xD9, 0xDA
DHT, DAC, DQT, DNL, DRI = 0xC4, 0xCC, 0xDB, 0xDC, 0xDD
DHP, EXP, JPG, LOSSLESS_LS, COM = 0xDE, 0xDF, 0xC8, 0xF7, 0xFE
APP0, _APP1, _APP2, _APP14, _APP15 = 0xE0, 0xE1, 0xE2, 0xEE, 0xEF
_METADATA = frozenset((*range(APP0, _APP15 + 1), COM))
FRAMES = frozenset(range(0xC0, 0xD0)) - {DHT, JPG, DAC}
"""The markers of a frame header (SOF): it says how the picture is coded, and its size."""
_TABLES = frozenset((DHT, DAC, DQT, DRI))

# libjpeg itself takes these two into account from so many bytes of payload on, and ignores them when they are shorter.
_SHORTEST_JFIF, _SHORTEST_ADOBE = 14, 12

_XMP_PREFIX = b"http://ns.adobe.com/xap/1.0/\0"
_ICC_PREFIX = b"ICC_PROFILE\0"

# Extended XMP and a large profile take some hundred; each costs some time here.
_MOST_SEGMENTS = 50_000

# Within entropy-coded data FF 00 is a byte FF, D0 to D7 are restarts, and FF FF fills.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
# Where a segment may begin: what has no length (FF 00, TEM, restarts, and bytes that fill) is skipped, as libjpeg does.
_SEGMENT = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")


@dataclass(frozen=True, slots=True)
class Component:
    """A component of the frame: its id, and its sampling factors across and down."""

    id: int
    across: int
    down: int


@dataclass(frozen=True, slots=True)
class Frame:
    marker: int
    precision: int
    width: int
    height: int
    components: tuple[Component, ...]
    at: int
    """Where its payload begins."""

    @property
    def progressive(self) -> bool:
        return self.marker == 0xC2


@dataclass(frozen=True, slots=True)
class Scan:
    """The header of a scan, and where it and its entropy-coded data lie."""

    at: int
    """Of its marker."""
    entropy: int
    """The first byte of the entropy-coded data."""
    end: int
    """The first byte behind it."""
    components: tuple[int, ...]
    """Ids."""
    first: int
    """The first and the last coefficient of a block that it codes, in zigzag order."""
    last: int
    high: int
    """The lowest bit that was coded before, 0 where none was; and the lowest that is coded now."""
    low: int
    restarts: int
    """MCUs from one restart marker to the next; 0: there are none."""


@dataclass(frozen=True, slots=True)
class Head:
    """All that stands before the first scan."""

    frame: Frame
    kept: tuple[tuple[int, int], ...]
    """Where the segments lie that a decoder needs, SOI among them."""
    sos: int
    """Where the first scan's marker lies."""
    scanned: int
    """How many components the first scan has."""
    restarts: int
    """MCUs from one restart marker to the next; 0: there are none."""
    orientation: int
    profile: bytes | None

    @property
    def one_pass(self) -> bool:
        """Whether it is decoded row by row as its bytes come; else a decoder holds all coefficients in memory."""
        return not self.frame.progressive and self.scanned == len(self.frame.components)


@dataclass(frozen=True, slots=True)
class Body:
    """The scans of the first picture."""

    scans: tuple[Scan, ...]
    kept: tuple[tuple[int, int], ...]
    """Where the scans lie, and the tables between them, with the end mark."""
    ended: bool
    """Whether an end mark was found."""


def joined(data: bytes, kept: Sequence[tuple[int, int]]) -> bytes:
    """The bytes of all these places, in their order."""
    merged: list[tuple[int, int]] = []
    for start, end in kept:
        if merged and merged[-1][1] == start:
            merged[-1] = (merged[-1][0], end)
        else:
            merged.append((start, end))
    if merged == [(0, len(data))]:
        return data
    view = memoryview(data)
    return b"".join(view[start:end] for start, end in merged)


def read_head(data: bytes) -> Head:
    """Raises UnreadablePicture where there is no whole frame header, or no scan behind it; UnsupportedPicture for
    segments without number."""
    frame: Frame | None = None
    kept = [(0, 2)]
    exif: int | None = None
    xmp: int | None = None
    profile: list[bytes] = []
    restarts = 0
    at = 2
    for _ in range(_MOST_SEGMENTS):
        if (found := _SEGMENT.search(data, at)) is None:
            raise UnreadablePicture()
        start, at, marker = found.start(), found.end(), found[0][1]
        payload = at + 2
        at = payload + max(0, int.from_bytes(data[at : at + 2]) - 2)
        if marker in (SOI, EOI) or at > len(data):
            raise UnreadablePicture()
        if marker == SOS:
            break
        if marker in FRAMES or marker in (DHP, LOSSLESS_LS):
            if frame is None or frame.marker != DHP:  # in a hierarchical JPEG the frames follow a header of their own
                if frame is not None:
                    raise UnreadablePicture()
                frame = _frame(marker, data[payload:at], payload)
        elif marker == DRI:
            restarts = int.from_bytes(data[payload : payload + 2])
        elif marker == _APP1:
            if exif is None and data.startswith(EXIF_PREFIX, payload):
                exif = exif_orientation(data[payload:at])
            elif xmp is None and data.startswith(_XMP_PREFIX, payload):
                xmp = xmp_orientation(data[payload + len(_XMP_PREFIX) : at])
        elif marker == _APP2 and data.startswith(_ICC_PREFIX, payload):
            profile.append(data[payload + len(_ICC_PREFIX) : at])
        if marker not in _METADATA or _is_jfif(marker, data, payload, at) or _is_adobe(marker, data, payload, at):
            kept.append((start, at))
    else:
        raise _too_many()
    if frame is None:
        raise UnreadablePicture()
    scanned = data[payload] if at > payload else 0
    return Head(frame, tuple(kept), start, scanned, restarts, exif or xmp or 1, _profile(profile))


def read_body(data: bytes, head: Head, *, most_scans: int) -> Body:
    """All scans up to the end mark, or else up to what no scan can be followed by.

    Reading stops after more than `most_scans`. Raises UnreadablePicture where there is no scan, UnsupportedPicture for
    segments without number.
    """
    scans: list[Scan] = []
    kept: list[tuple[int, int]] = []
    restarts, at = head.restarts, head.sos
    for _ in range(_MOST_SEGMENTS):
        if len(scans) > most_scans or (found := _SEGMENT.search(data, at)) is None:
            break
        start, at, marker = found.start(), found.end(), found[0][1]
        if marker == EOI:
            return Body(tuple(scans), (*kept, (start, at)), True)
        payload = at + 2
        at = payload + max(0, int.from_bytes(data[at : at + 2]) - 2)
        if at > len(data) or not (marker in (SOS, DNL) or marker in _TABLES or marker in _METADATA):
            break  # what stands here belongs to no scan
        if marker == SOS:
            behind = _MARKER.search(data, at)
            end = len(data) if behind is None else behind.start()
            scans.append(_scan(data[payload:at], start, (at, end), restarts))
            at = end
        elif marker == DRI:
            restarts = int.from_bytes(data[payload : payload + 2])
        if marker not in _METADATA:
            kept.append((start, at))
    else:
        raise _too_many()
    if not scans:
        raise UnreadablePicture()
    return Body(tuple(scans), tuple(kept), False)


def behind_restart(data: bytes, scan: Scan, number: int) -> int | None:
    """Where the scan's entropy-coded data goes on behind so many restart markers; None where it has fewer."""
    if number == 0:
        return scan.entropy
    found = next(islice(_RESTART.finditer(data, scan.entropy, scan.end), number - 1, None), None)
    return None if found is None else found.end()


def _too_many() -> UnsupportedPicture:
    return UnsupportedPicture(f"This JPEG has more than {_MOST_SEGMENTS:,} segments; save it anew.")


def _frame(marker: int, payload: bytes, at: int) -> Frame:
    if len(payload) < 6 or len(payload) < 6 + 3 * payload[5]:
        raise UnreadablePicture()
    components = tuple(
        Component(payload[one], payload[one + 1] >> 4, payload[one + 1] & 15) for one in range(6, 6 + 3 * payload[5], 3)
    )
    height, width = int.from_bytes(payload[1:3]), int.from_bytes(payload[3:5])
    return Frame(marker, payload[0], width, height, components, at)


def _scan(payload: bytes, start: int, entropy: tuple[int, int], restarts: int) -> Scan:
    if not payload or len(payload) < 1 + 2 * payload[0] + 3:
        raise UnreadablePicture()
    behind = 1 + 2 * payload[0]
    first, last, bits = payload[behind : behind + 3]
    return Scan(start, *entropy, tuple(payload[1:behind:2]), first, last, bits >> 4, bits & 15, restarts)


def _is_jfif(marker: int, data: bytes, payload: int, end: int) -> bool:
    return marker == APP0 and end - payload >= _SHORTEST_JFIF and data.startswith(b"JFIF\0", payload)


def _is_adobe(marker: int, data: bytes, payload: int, end: int) -> bool:
    return marker == _APP14 and end - payload >= _SHORTEST_ADOBE and data.startswith(b"Adobe", payload)


def _profile(chunks: list[bytes]) -> bytes | None:
    """An ICC profile from its chunks, each behind its number, from 1 on, and the count of all; None if any is odd."""
    if not chunks or any(len(chunk) < 2 for chunk in chunks) or sum(map(len, chunks)) > MOST_PROFILE_BYTES:
        return None
    chunks = sorted(chunks, key=lambda chunk: chunk[0])
    if any((chunk[0], chunk[1]) != (number, len(chunks)) for number, chunk in enumerate(chunks, 1)):
        return None
    return b"".join(chunk[2:] for chunk in chunks) or None
