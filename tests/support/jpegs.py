"""JPEGs taken apart and put together: what no encoder writes, or only one that is not here."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from tests.support.pictures import in_format

EOI = b"\xff\xd9"


def segment(marker: int, payload: bytes) -> bytes:
    return bytes((0xFF, marker)) + (len(payload) + 2).to_bytes(2) + payload


def with_segments(data: bytes, *segments: bytes, before: bytes = b"") -> bytes:
    """Behind the start of the file, or before the first segment with that marker."""
    at = data.index(before) if before else 2
    return data[:at] + b"".join(segments) + data[at:]


def pillow(data: bytes) -> Image.Image:
    """As Pillow reads it by itself, and RGB."""
    with Image.open(io.BytesIO(data)) as image:
        return image.convert("RGB")


def patched(data: bytes, marker: int | None = None, **fields: int) -> bytes:
    """With another frame marker, `precision`, `height`, `width`, `count` of components or `factors` of the first."""
    at = next(place for kind in (b"\xff\xc0", b"\xff\xc2") if (place := data.find(kind)) >= 0)
    changed = bytearray(data)
    if marker is not None:
        changed[at + 1] = marker
    for name, value in fields.items():
        place, size = {"precision": (4, 1), "height": (5, 2), "width": (7, 2), "count": (9, 1), "factors": (11, 1)}[
            name
        ]
        changed[at + place : at + place + size] = value.to_bytes(size)
    return bytes(changed)


def in_scans(image: Image.Image, quality: int = 75) -> bytes:
    """A baseline JPEG with a scan of its own for each of the three components, which encoders rarely write."""
    planes = [in_format(plane, "JPEG", quality=quality) for plane in image.convert("YCbCr").split()]
    start, frame, tables = (planes[0].index(marker) for marker in (b"\xff\xc0", b"\xff\xc0", b"\xff\xc4"))
    scans = [plane.index(b"\xff\xda") for plane in planes]
    size = planes[0][frame + 5 : frame + 9]
    header = segment(0xC0, b"\x08" + size + b"\x03" + b"\x01\x11\x00\x02\x11\x00\x03\x11\x00")
    parts = [planes[0][:start], header, planes[0][tables : scans[0]]]
    for number, (plane, at) in enumerate(zip(planes, scans, strict=True), 1):
        parts += [segment(0xDA, bytes((1, number, 0, 0, 63, 0))), plane[at + 10 : -2]]
    return b"".join(parts) + EOI


def tall(strip: Image.Image, rows: int, height: int) -> bytes:
    """A JPEG of `strip`, 16 pixels high, again and again down to `height`: large without ever being in memory."""
    data = in_format(strip, "JPEG", restart_marker_rows=1)
    sos = data.index(b"\xff\xda")
    at = sos + 2 + int.from_bytes(data[sos + 2 : sos + 4])
    row = data[at:-2]
    body = b"".join(row + bytes((0xFF, 0xD0 + number % 8)) for number in range(rows))[:-2]
    return patched(data[:at], height=height) + body + EOI


def noise(width: int, height: int, seed: int = 1) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))
