"""A picture file with what should come of it, and the picture that all of them show."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.uint8]
"""uint8[H, W, 3] or uint8[H, W, 4], with straight alpha."""

WIDTH, HEIGHT = 45, 30


class Should(Enum):
    """What should come of a case."""

    BE_READ = "read"
    BE_REFUSED = "refused"
    """Pixels are missing: showing part of them would put a wrong vector into a catalogue."""
    BE_NAMED = "read, or refused by name"
    """A rare kind: read rightly, or refused in a sentence that names it."""


@dataclass(frozen=True, slots=True)
class Case:
    """One file."""

    format: str
    """As in `server.preprocessing.formats`: JPEG, PNG, WEBP, GIF, BMP, TIFF, AVIF, HEIF, JXL."""
    group: str
    """What it tries: `depth and colour`, `orientation`, `profile`..."""
    name: str
    data: bytes
    expected: Samples | None = None
    """Upright, and with no profile applied unless `managed`; None where nothing but other readers can say."""
    near: int = 1
    """How far a sample, laid on white, may lie from `expected`: 1 of 255 for rounding, more where coding is lossy."""
    should: Should = Should.BE_READ
    managed: bool = False
    """Whether readers are asked to apply its profile, as browsers do; those that have no colours are left out."""

    @property
    def title(self) -> str:
        return f"{self.format} {self.group}: {self.name}"


def blocks() -> Samples:
    """RGB with gradients, edges and single pixels, no two corners alike: for what is kept without loss."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    picture = np.stack([x * 255 // (WIDTH - 1), y * 255 // (HEIGHT - 1), 255 - x * 3], axis=-1).astype(np.uint8)
    picture[3:12, 5:20] = (220, 30, 40)
    picture[15:26, 24:40] = (30, 60, 200)
    picture[20:28:2, 2:14:3] = (250, 240, 10)
    return picture


def soft() -> Samples:
    """RGB without edges, no two corners alike: coding with loss moves it little, and colour at half size hardly."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    red, green, blue = 40 + x * 170 / WIDTH, 60 + y * 150 / HEIGHT, 200 - x * 90 / WIDTH - y * 60 / HEIGHT
    picture: Samples = np.rint(np.stack([red, green, blue], axis=-1)).astype(np.uint8)
    return picture


def grey_of(picture: Samples) -> Samples:
    """uint8[H, W]: the mean of the colours, which is all that a grey picture must differ by."""
    mean: Samples = (picture[..., :3].astype(np.uint16).sum(axis=-1) // 3).astype(np.uint8)
    return mean


def alpha() -> Samples:
    """uint8[H, W]: from nothing to opaque across, and a hole."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    levels = np.clip(x * 320 // WIDTH, 0, 255).astype(np.uint8)
    levels[(y > 20) & (x > 30)] = 0
    opacity: Samples = levels
    return opacity


def rgb(grey: NDArray[np.uint8]) -> Samples:
    """uint8[H, W] as RGB."""
    return np.repeat(grey[..., None], 3, axis=-1)


def with_alpha(colours: Samples, levels: NDArray[np.uint8]) -> Samples:
    return np.dstack([colours, levels])


def to_bits(samples: NDArray[np.uint8], bits: int) -> NDArray[np.uint32]:
    """8-bit samples as whole numbers of `bits` bits, over their whole range; beyond 8 bits with digits of their own."""
    most = (1 << bits) - 1
    wide = np.rint(samples.astype(np.float64) * most / 255).astype(np.int64)
    if bits > 8:  # not only multiples: a reader that took the wrong byte would go unseen
        ripple = (np.arange(samples.size).reshape(samples.shape) * 7) % (1 << (bits - 8)) - (1 << (bits - 9))
        wide = np.clip(wide + ripple // 3, 0, most)
    return wide.astype(np.uint32)


def from_bits(samples: NDArray[np.unsignedinteger[Any]], bits: int) -> NDArray[np.uint8]:
    """To 8 bits: round(v x 255 / (2^n - 1))."""
    return np.floor(samples.astype(np.float64) * 255 / ((1 << bits) - 1) + 0.5).astype(np.uint8)


def turned(picture: Samples, orientation: int) -> Samples:
    """What is seen when EXIF says 1 to 8 of the stored picture."""
    match orientation:
        case 2:
            return picture[:, ::-1]
        case 3:
            return picture[::-1, ::-1]
        case 4:
            return picture[::-1]
        case 5:
            return picture.swapaxes(0, 1)
        case 6:
            return picture[::-1].swapaxes(0, 1)
        case 7:
            return picture[::-1, ::-1].swapaxes(0, 1)
        case 8:
            return picture[:, ::-1].swapaxes(0, 1)
    return picture


def on_white(picture: Samples) -> NDArray[np.uint8]:
    """uint8[H, W, 3]: what is seen on a white page."""
    if picture.shape[2] == 3:
        return picture
    levels = picture[..., 3:].astype(np.float64) / 255
    return np.floor(picture[..., :3] * levels + 255 * (1 - levels) + 0.5).astype(np.uint8)
