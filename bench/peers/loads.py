"""What is asked of everybody: the same pictures, by so many callers at once."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from bench import pictures
from bench.pictures import PHOTOGRAPHS, Picture

Size = Literal["small", "large"]

_LARGE = (4000, 3000)
_GRAIN = 5.0
_QUALITY = 90
_SOURCES = ("astronaut.jpg", "brick-wall.jpg", "cat.png", "fig-in-bowl.jpg", "mountain-panorama.jpg", "two-dogs.jpg")


@dataclass(frozen=True, slots=True)
class Load:
    """Closed loop: each caller asks again as soon as it is answered."""

    name: str
    title: str
    size: Size
    callers: int
    pictures: int | None = None
    """So many of the pictures only; None for all."""


LOADS = (
    Load("small-1", "640 x 480, 1 caller", "small", 1),
    Load("small-8", "640 x 480, 8 callers", "small", 8),
    Load("small-32", "640 x 480, 32 callers", "small", 32),
    Load("large-8", "12 megapixels, 8 callers", "large", 8),
)
REPEATED = Load("repeated", "one picture of 640 x 480 again and again, 8 callers", "small", 8, pictures=1)


def small(count: int) -> list[Picture]:
    """So many distinct JPEGs of 640 x 480."""
    return pictures.photographs(count)


def large(count: int, cache: Path) -> list[Picture]:
    """So many distinct JPEGs of 4000 x 3000, made once in the cache folder.

    There are no photographs of that size in the repository. These are cut from smaller ones, enlarged, and given a
    grain, so that a decoder has as many coefficients to read as in a camera's picture (about 4 MB each).
    """
    folder = cache / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for number in range(count):
        path = folder / f"{_LARGE[0]}x{_LARGE[1]}-{number}.jpg"
        if not path.exists():
            half = path.with_suffix(".half")
            half.write_bytes(_enlarged(number))
            half.rename(path)
        made.append(Picture(path.name, path.read_bytes()))
    return made


def _enlarged(number: int) -> bytes:
    chance = np.random.default_rng((12_000_000, number))
    with Image.open(PHOTOGRAPHS / _SOURCES[number % len(_SOURCES)]) as image:
        source = image.convert("RGB")
    scale = min(source.width / _LARGE[0], source.height / _LARGE[1]) * chance.uniform(0.6, 1.0)
    width, height = scale * _LARGE[0], scale * _LARGE[1]
    left, top = chance.uniform(0, source.width - width), chance.uniform(0, source.height - height)
    cut = source.resize(_LARGE, Image.Resampling.BICUBIC, box=(left, top, left + width, top + height))
    grain = chance.normal(0, _GRAIN, (_LARGE[1], _LARGE[0], 1)).astype(np.float32)
    pixels = np.clip(np.asarray(cut, dtype=np.float32) + grain, 0, 255).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=_QUALITY)
    return out.getvalue()


def describe(sent: Mapping[Size, Sequence[Picture]]) -> dict[str, dict[str, int]]:
    """Of each size that is sent: how many, how large."""
    return {
        size: {"count": len(some), "meanBytes": round(sum(len(one.data) for one in some) / len(some))}
        for size, some in sent.items()
        if some
    }
