"""ICC profiles made here: spaces wider than sRGB and greys of another curve, to prove what a profile does to pictures.

Version 2 profiles of a matrix and a gamma, as cameras and phones write them. Nobody's file is copied.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from server.errors import MediaRejected

# The white of the connection space (ICC.1:2022, 7.2.16), and Bradford's cones.
D50 = np.array([0.9642, 1.0, 0.8249])
_CONES = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_SRGB_CURVE_STEPS = 1024

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class RgbSpace:
    """Chromaticities (CIE x, y) of red, green, blue and white, and the gamma; None is sRGB's own curve."""

    red: Point
    green: Point
    blue: Point
    white: Point
    gamma: float | None


_D65 = (0.3127, 0.3290)
SPACES: Mapping[str, RgbSpace] = {
    "sRGB": RgbSpace((0.64, 0.33), (0.30, 0.60), (0.15, 0.06), _D65, None),
    "Display P3": RgbSpace((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _D65, None),
    "Adobe RGB (1998)": RgbSpace((0.64, 0.33), (0.21, 0.71), (0.15, 0.06), _D65, 563 / 256),
    "ProPhoto RGB": RgbSpace((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001), (0.3457, 0.3585), 1.8),
}


def to_xyz(space: RgbSpace) -> NDArray[np.float64]:
    """[3, 3]: linear red, green, blue to XYZ as seen under D50, as a profile holds it; white is D50 itself."""
    primaries = np.array([[x / y, 1.0, (1 - x - y) / y] for x, y in (space.red, space.green, space.blue)]).T
    x, y = space.white
    white = np.array([x / y, 1.0, (1 - x - y) / y])
    matrix = primaries * np.linalg.solve(primaries, white)
    cones = np.diag(_CONES @ D50 / (_CONES @ white))
    adapted: NDArray[np.float64] = np.linalg.inv(_CONES) @ cones @ _CONES @ matrix
    return adapted


def linear(values: NDArray[np.float64], gamma: float | None) -> NDArray[np.float64]:
    """Stored samples, 0 to 1, to light: by a gamma, or by sRGB's curve (IEC 61966-2-1)."""
    if gamma is not None:
        return values**gamma
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def rgb_profile(name: str, space: RgbSpace) -> bytes:
    """A display profile."""
    columns = to_xyz(space).T
    curve = _curve(space.gamma)
    tags = {b"desc": _description(name), b"cprt": _text("No copyright, use freely"), b"wtpt": _xyz(D50)}
    tags |= {b"rXYZ": _xyz(columns[0]), b"gXYZ": _xyz(columns[1]), b"bXYZ": _xyz(columns[2])}
    tags |= {b"rTRC": curve, b"gTRC": curve, b"bTRC": curve}
    return profile(b"mntr", b"RGB ", b"XYZ ", tags)


def grey_profile(name: str, gamma: float | None) -> bytes:
    tags = {b"desc": _description(name), b"cprt": _text("No copyright, use freely"), b"wtpt": _xyz(D50)}
    return profile(b"mntr", b"GRAY", b"XYZ ", tags | {b"kTRC": _curve(gamma)})


def profile(kind: bytes, colours: bytes, connected_by: bytes, tags: Mapping[bytes, bytes]) -> bytes:
    """An ICC profile of version 2.4, of these tags."""
    table = struct.pack(">I", len(tags))
    body = b""
    start = 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data.ljust(-(-len(data) // 4) * 4, b"\0")
    head = struct.pack(">I4s4s4s4s4s", start + len(body), b"\0" * 4, b"\x02\x40\0\0", kind, colours, connected_by)
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + b"\0" * 28
    head += _fixed(D50)
    return head.ljust(128, b"\0") + table + body


def in_space(image: Image.Image, icc: bytes) -> Image.Image:
    """A picture in RGB, its colours in sRGB, with the same colours as the numbers of the profile's space."""
    target = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    converted = ImageCms.profileToProfile(
        image, srgb, target, ImageCms.Intent.RELATIVE_COLORIMETRIC, outputMode=image.mode
    )
    if converted is None:
        raise MediaRejected("littleCMS did not convert the picture.")
    return converted


def _curve(gamma: float | None) -> bytes:
    if gamma is not None:
        return b"curv" + struct.pack(">IIH", 0, 1, round(gamma * 256))
    steps = np.rint(linear(np.linspace(0, 1, _SRGB_CURVE_STEPS), None) * 65535).astype(">u2")
    return b"curv" + struct.pack(">II", 0, len(steps)) + steps.tobytes()


def _fixed(values: NDArray[np.float64]) -> bytes:
    """s15Fixed16 numbers."""
    return b"".join(struct.pack(">i", round(float(value) * 65536)) for value in values)


def _xyz(values: NDArray[np.float64]) -> bytes:
    return b"XYZ \0\0\0\0" + _fixed(values)


def _text(words: str) -> bytes:
    return b"text\0\0\0\0" + words.encode("ascii") + b"\0"


def _description(words: str) -> bytes:
    ascii_words = words.encode("ascii") + b"\0"
    return b"desc" + struct.pack(">II", 0, len(ascii_words)) + ascii_words + b"\0" * (4 + 4 + 2 + 1 + 67)
