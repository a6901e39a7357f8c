"""EXIF, XMP and ICC profiles, from bytes."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

EXIF_PREFIX = b"Exif\0\0"
BROKEN_PROFILE = b"\0\0\2\0this is no profile" + bytes(range(200))


def exif(orientation: int, order: str = "<", kind: int = 3) -> bytes:
    """An EXIF block, from its TIFF header on; `kind`: 3 SHORT as it should be, 4 LONG, 8 SSHORT, 9 SLONG."""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    code = {3: "H2x", 4: "I", 8: "h2x", 9: "i"}[kind]
    entry = struct.pack(order + "HHI" + code, 0x0112, kind, 1, orientation)
    return head + struct.pack(order + "H", 1) + entry + bytes(4)


def xmp(orientation: int) -> bytes:
    """An XMP packet with tiff:Orientation as an attribute."""
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
        f'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="{orientation}"/></rdf:RDF></x:xmpmeta>'
        '<?xpacket end="w"?>'
    ).encode()


# The colours of the primaries as XYZ of D50, and the exponent of the curve (0 for sRGB's own, as a table).
_SPACES = {
    "sRGB": ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410)),
    "Display P3": ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407)),
    "Adobe RGB": ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)),
}


def to_srgb(space: str, colours: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8[..., 3] of such a space in sRGB, by its profile's arithmetic: what lies outside sRGB is clipped."""
    encoded = colours.astype(np.float64) / 255
    if space == "Adobe RGB":
        linear = encoded ** (round(2.19921875 * 256) / 256)
    else:
        linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    to_xyz, from_xyz = (np.array(_SPACES[name]) for name in (space, "sRGB"))
    linear = np.clip(linear @ to_xyz @ np.linalg.inv(from_xyz), 0, 1)
    encoded = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    converted: NDArray[np.uint8] = np.floor(encoded * 255 + 0.5).astype(np.uint8)
    return converted


def profile(space: str) -> bytes:
    """A small ICC profile (version 2): `sRGB`, `Display P3`, `Adobe RGB`, or `grey`."""
    curve = _curve(2.19921875) if space in ("Adobe RGB", "grey") else _srgb_curve()
    tags = [(b"desc", _description(space)), (b"cprt", _text("none")), (b"wtpt", _xyz((0.96420, 1.0, 0.82491)))]
    if space == "grey":
        return _icc(b"GRAY", [*tags, (b"kTRC", curve)])
    primaries = zip((b"rXYZ", b"gXYZ", b"bXYZ"), _SPACES[space], strict=True)
    curves = [(name, curve) for name in (b"rTRC", b"gTRC", b"bTRC")]
    return _icc(b"RGB ", [*tags, *((name, _xyz(place)) for name, place in primaries), *curves])


def _icc(colours: bytes, tags: Sequence[tuple[bytes, bytes]]) -> bytes:
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, data in tags:
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    size = start + len(body)
    head = struct.pack(">I4sI4s4s4s", size, b"none", 0x02100000, b"mntr", colours, b"XYZ ")
    head += struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    head += struct.pack(">iii", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + table + body


def _description(words: str) -> bytes:
    text = words.encode() + b"\0"
    return b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + bytes(8 + 3 + 67)


def _text(words: str) -> bytes:
    return b"text\0\0\0\0" + words.encode() + b"\0"


def _xyz(place: tuple[float, float, float]) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">iii", *(round(value * 65536) for value in place))


def _curve(exponent: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(exponent * 256))


def _srgb_curve() -> bytes:
    steps = 1024
    points = []
    for step in range(steps):
        value = step / (steps - 1)
        linear = value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
        points.append(round(linear * 65535))
    return b"curv\0\0\0\0" + struct.pack(f">I{steps}H", steps, *points)
