"""ICC profiles for tests, beside those that the export makes: one of a press, with a table for its four inks."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.proof.profiles import D50, SPACES, profile, to_xyz

# What light the paper under each full ink leaves of each of sRGB's linear red, green and blue.
_LEFT = np.array([[0.03, 0.35, 0.75], [0.75, 0.05, 0.20], [0.90, 0.80, 0.04], [0.03, 0.03, 0.03]])
_STEPS = 9
_CORNERS = np.array([[c, m, y, k] for c in (0, 1) for m in (0, 1) for y in (0, 1) for k in (0, 1)])


def printed(inks: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What a press of ours prints from inks, uint8[..., 4], as sRGB, uint8[..., 3]: dots of inks beside and on each
    other (Neugebauer), mixed in CIE Lab, as a profile's table does."""
    return _srgb(_mixed(inks))


def press_profile() -> bytes:
    """The profile of that press: a table in 16 bits."""
    steps = np.linspace(0, 255, _STEPS)
    lab = _mixed(np.stack(np.meshgrid(steps, steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 4))
    stored = np.stack([lab[:, 0] / 100 * 0xFF00, (lab[:, 1] + 128) * 256, (lab[:, 2] + 128) * 256], axis=1)
    table = b"mft2\0\0\0\0" + bytes((4, 3, _STEPS, 0))
    table += struct.pack(">9i", *(65536 if at % 4 == 0 else 0 for at in range(9)))
    table += struct.pack(">HH", 2, 2) + struct.pack(">HH", 0, 65535) * 4
    table += np.rint(stored).astype(">u2").tobytes() + struct.pack(">HH", 0, 65535) * 3
    white = b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(value * 65536)) for value in D50)
    return profile(b"prtr", b"CMYK", b"Lab ", {b"wtpt": white, b"A2B0": table})


def _mixed(inks: NDArray[Any]) -> NDArray[np.float64]:
    share = inks[..., None, :] / 255.0
    weights: NDArray[np.float64] = np.where(_CORNERS == 1, share, 1 - share).prod(axis=-1)
    return weights @ _lab(_corners())


def _corners() -> NDArray[np.float64]:
    """float64[16, 3]: linear sRGB of every mixture of full inks."""
    light: NDArray[np.float64] = np.where(_CORNERS[..., None] == 1, _LEFT, 1.0).prod(axis=1)
    return light


def _lab(light: NDArray[np.float64]) -> NDArray[np.float64]:
    ratio = light @ to_xyz(SPACES["sRGB"]).T / D50
    root = np.where(ratio > 216 / 24389, np.cbrt(ratio), (24389 / 27 * ratio + 16) / 116)
    x, y, z = root[..., 0], root[..., 1], root[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def _srgb(lab: NDArray[np.float64]) -> NDArray[np.uint8]:
    y = (lab[..., 0] + 16) / 116
    root = np.stack([y + lab[..., 1] / 500, y, y - lab[..., 2] / 200], axis=-1)
    ratio = np.where(root**3 > 216 / 24389, root**3, (116 * root - 16) / (24389 / 27))
    light = np.clip((ratio * D50) @ np.linalg.inv(to_xyz(SPACES["sRGB"])).T, 0, 1)
    encoded = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    samples: NDArray[np.uint8] = np.rint(encoded * 255).astype(np.uint8)
    return samples
