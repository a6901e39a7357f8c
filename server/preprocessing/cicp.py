"""ICC profiles for colours that a file names by the numbers of ITU-T H.273 (nclx in HEIF and AVIF, cICP in PNG)."""

from __future__ import annotations

import struct
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

# x and y of red, green, blue and white. Those of BT.709 (1) are sRGB's, and need no profile.
_D65, _D50 = (0.3127, 0.3290), (0.3457, 0.3585)
_PRIMARIES = {
    4: ((0.67, 0.33), (0.21, 0.71), (0.14, 0.08), (0.310, 0.316)),
    5: ((0.64, 0.33), (0.29, 0.60), (0.15, 0.06), _D65),
    6: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), _D65),
    7: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), _D65),
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), _D65),
    11: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.314, 0.351)),
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _D65),
}
_SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
# Screens show film's curve (BT.709 and its like) as they show sRGB's; 2 leaves it open.
_CURVES: dict[int, tuple[float, ...]] = {
    **dict.fromkeys((1, 2, 6, 13, 14, 15), _SRGB_CURVE),
    4: (2.2,),
    5: (2.8,),
    8: (1.0,),
}
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_SRGB_PRIMARIES = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06), _D65)


def profile(primaries: int, transfer: int) -> bytes | None:
    """An ICC profile; None where the colours are sRGB, or where no profile can say what they are (PQ and HLG)."""
    curve = _CURVES.get(transfer)
    points = _PRIMARIES.get(primaries, _SRGB_PRIMARIES)
    if curve is None or (points is _SRGB_PRIMARIES and curve is _SRGB_CURVE):
        return None
    return _made(points, curve)


# By what it says and not by the numbers: a file may hold any of them, and few say something.
@lru_cache(maxsize=(len(_PRIMARIES) + 1) * len(_CURVES))
def _made(points: tuple[tuple[float, float], ...], curve: tuple[float, ...]) -> bytes:
    return _written(_columns(points), curve)


def _xyz(point: tuple[float, float]) -> NDArray[np.float64]:
    x, y = point
    return np.array([x / y, 1.0, (1 - x - y) / y])


def _columns(points: tuple[tuple[float, float], ...]) -> NDArray[np.float64]:
    """RGB to XYZ under the white of ICC profiles, D50."""
    red, green, blue, white = map(_xyz, points)
    colours = np.column_stack((red, green, blue))
    colours = colours * np.linalg.solve(colours, white)
    adapted = np.diag((_BRADFORD @ _xyz(_D50)) / (_BRADFORD @ white))
    return np.asarray(np.linalg.inv(_BRADFORD) @ adapted @ _BRADFORD @ colours)


def _fixed(*numbers: float) -> bytes:
    """s15Fixed16Number."""
    return b"".join(struct.pack(">i", round(number * 65536)) for number in numbers)


def _written(columns: NDArray[np.float64], curve: tuple[float, ...]) -> bytes:
    """An ICC.1:2010 (version 4.3) profile of a display: three columns and one curve."""
    text = "RGB".encode("utf-16-be")
    named = b"mluc" + bytes(4) + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(text), 28) + text + bytes(2)
    form = 3 if len(curve) > 1 else 0
    tone = b"para" + bytes(4) + struct.pack(">HH", form, 0) + _fixed(*curve)
    white = b"XYZ " + bytes(4) + _fixed(*_xyz(_D50))
    contents = [(b"desc", named), (b"cprt", named), (b"wtpt", white)]
    contents += [(name, b"XYZ " + bytes(4) + _fixed(*column)) for name, column in zip(
        (b"rXYZ", b"gXYZ", b"bXYZ"), columns.T, strict=True)]  # fmt: skip
    contents += [(name, tone) for name in (b"rTRC", b"gTRC", b"bTRC")]
    at = 128 + 4 + 12 * len(contents)
    table, body, places = b"", b"", dict[bytes, int]()
    for name, content in contents:
        if content not in places:
            places[content] = at + len(body)
            body += content + bytes(-len(content) % 4)
        table += name + struct.pack(">II", places[content], len(content))
    size = at + len(body)
    head = struct.pack(">I4sI4s4s4s", size, bytes(4), 0x04300000, b"mntr", b"RGB ", b"XYZ ")
    head += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp") + bytes(24) + _fixed(*_xyz(_D50))
    return head.ljust(128, b"\0") + struct.pack(">I", len(contents)) + table + body
