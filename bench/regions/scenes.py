"""Scenes of two to four things of the demo catalogue, whose boxes are known since they were put there.

Everything comes from the scene's number: another run makes the same pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Box = tuple[int, int, int, int]
"""Left, top, right, bottom, in pixels."""

Ground = Literal["plain", "gradient", "textured", "photograph"]
GROUNDS: tuple[Ground, ...] = ("plain", "gradient", "textured")
"""Those that are counted together. On photographs of something else is counted apart."""

Pictures = Sequence[tuple[str, Image.Image]]

SCENES = 40

_SIZES = ((640, 480), (480, 640), (600, 600))
# The larger side of a thing, beside the shorter side of its scene.
_LEAST, _MOST = 0.25, 0.55
# Every third scene has things that cover each other a little: at most this part of the smaller one.
_COVERED = 0.25
_APART = 12  # pixels between things that do not
_TRIES = 400
# Alpha from which on a pixel of a thing is to be seen, in its box.
_SEEN = 24


@dataclass(frozen=True, slots=True)
class Thing:
    """A picture of the catalogue within a scene."""

    name: str
    box: Box
    """What is to be seen of it, however much of that others cover."""


@dataclass(frozen=True, slots=True)
class Scene:
    number: int
    ground: Ground
    overlaps: bool
    image: Image.Image
    """RGB."""
    things: Sequence[Thing]


def scene(number: int, pictures: Pictures, photographs: Sequence[Image.Image] = ()) -> Scene:
    """Of some pictures in RGBA, by their names; on one of the photographs, where there are some."""
    draws = np.random.default_rng((62, number))
    ground, overlaps = GROUNDS[number % len(GROUNDS)], number % 9 in (2, 3, 7)
    size = _SIZES[number // len(GROUNDS) % len(_SIZES)]
    if photographs:
        ground = "photograph"
        image = photographs[number % len(photographs)].convert("RGB").resize(size, Image.Resampling.BICUBIC)
    else:
        image = Image.fromarray(_ground(ground, size, draws))
    things: list[Thing] = []
    for at in draws.choice(len(pictures), size=int(draws.integers(2, 5)), replace=False):
        name, picture = pictures[at]
        thing = picture.crop(_seen(picture))
        for _ in range(_TRIES):
            side = draws.uniform(_LEAST, _MOST) * min(size)
            scale = side / max(thing.size)
            small = tuple(max(8, round(edge * scale)) for edge in thing.size)
            left, top = (int(draws.integers(0, whole - part)) for whole, part in zip(size, small, strict=True))
            box = (left, top, left + small[0], top + small[1])
            if all(_may_lie(box, other.box, overlaps) for other in things):
                fitted = thing.resize((small[0], small[1]), Image.Resampling.LANCZOS)
                image.paste(fitted, (left, top), fitted)
                things.append(Thing(name, box))
                break
    return Scene(number, ground, overlaps, image, things)


def scenes(pictures: Pictures, photographs: Sequence[Image.Image] = ()) -> list[Scene]:
    """All of them, on grounds that are drawn, or on photographs."""
    return [scene(number, pictures, photographs) for number in range(SCENES)]


def overlap(one: Sequence[float], other: Sequence[float]) -> float:
    """Intersection over union of two boxes, 0 to 1."""
    both = _area(_both(one, other))
    return both / (_area(one) + _area(other) - both)


def _may_lie(box: Box, other: Box, overlaps: bool) -> bool:
    if overlaps:
        return _area(_both(box, other)) <= _COVERED * min(_area(box), _area(other))
    left, top, right, bottom = other
    return _area(_both(box, (left - _APART, top - _APART, right + _APART, bottom + _APART))) == 0


def _both(one: Sequence[float], other: Sequence[float]) -> tuple[float, float, float, float]:
    return max(one[0], other[0]), max(one[1], other[1]), min(one[2], other[2]), min(one[3], other[3])


def _area(box: Sequence[float]) -> float:
    return max(0, box[2] - box[0]) * max(0, box[3] - box[1])


def _seen(picture: Image.Image) -> Box:
    box = picture.getchannel("A").point([255 if alpha >= _SEEN else 0 for alpha in range(256)]).getbbox()
    return box or (0, 0, *picture.size)


def _ground(kind: Ground, size: tuple[int, int], draws: np.random.Generator) -> NDArray[np.uint8]:
    """uint8[height, width, 3]."""
    width, height = size
    first, second = draws.integers(20, 256, (2, 3)).astype(np.float64)
    if kind == "plain":
        samples = np.broadcast_to(first, (height, width, 3))
    elif kind == "gradient":
        angle = draws.uniform(0, 2 * np.pi)
        across, down = np.meshgrid(np.linspace(-0.5, 0.5, width), np.linspace(-0.5, 0.5, height))
        share = np.clip(0.5 + 0.7 * (across * np.cos(angle) + down * np.sin(angle)), 0, 1)
        samples = first + share[..., None] * (second - first)
    else:
        share = _noise(size, draws)
        # Two tones of one colour, as of wood, stone or cloth.
        samples = first + share[..., None] * draws.uniform(40, 110) * np.sign(127 - first.mean())
        samples = samples + (share[..., None] - 0.5) * draws.uniform(-15, 15, 3)
    return np.clip(samples + draws.normal(0, 2, (height, width, 1)), 0, 255).astype(np.uint8)


def _noise(size: tuple[int, int], draws: np.random.Generator) -> NDArray[np.float64]:
    """Noise of several sizes, the coarse the strongest, longer in one direction: float64[height, width], 0 to 1."""
    whole = np.zeros((size[1], size[0]))
    stretch = 2 ** draws.uniform(-2, 2)
    for cells, strength in zip((4, 8, 16, 32, 64), (1.0, 0.7, 0.5, 0.35, 0.25), strict=True):
        across, down = max(2, round(cells * stretch)), max(2, round(cells / stretch))
        coarse = Image.fromarray(draws.random((down, across)).astype(np.float32))
        whole += strength * np.asarray(coarse.resize(size, Image.Resampling.BICUBIC))
    low, high = np.quantile(whole, (0.01, 0.99))
    noise: NDArray[np.float64] = np.clip((whole - low) / (high - low), 0, 1)
    return noise
