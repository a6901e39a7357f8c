"""What the spec's two choices about colour do in a model: conversion by a picture's profile, and the ground.

Some bundled pictures are written anew in wider spaces than sRGB, with the profile, as phones and cameras write them:
converted, such a file should find its original, before paler variants of it too; with its profile ignored it is a
paler picture itself. And white shapes on transparency, which no one can tell apart on white, are told apart.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance

from export.errors import ExportRefused
from export.proof.parity import GatePicture
from export.proof.profiles import SPACES, in_space, rgb_profile
from server.artifact.artifact import MIN_COSINE_IN_SPACE, PreprocessingSpec
from server.preprocessing.media import decode, read_pixels, to_pixels
from server.settings import MAX_PIXELS

WIDE = ("Display P3", "Adobe RGB (1998)")
PALER = (0.95, 0.9, 0.8)
"""The saturation of the variants that stand beside each original."""

# Every so many of the bundled pictures: a large tower needs a second for each.
_EVERY = 3
_LONGEST = 512
_SHAPE = 240
_CLEAR = (255, 255, 255, 0)

Encode = Callable[[NDArray[np.uint8]], NDArray[Any]]
"""uint8[N, S, S, 3] to float[N, D], unit length."""


@dataclass(frozen=True, slots=True)
class Converted:
    """How files in one wide space compare with their originals in sRGB, by the cosine of their vectors."""

    space: str
    count: int
    converted: tuple[float, float]
    """The least and the mean cosine, colours converted."""
    ignored: tuple[float, float]
    """The same with the profile ignored."""
    converted_first: int
    """How many have their original first, among all originals and their paler variants."""
    ignored_first: int


@dataclass(frozen=True, slots=True)
class Shapes:
    """The highest cosine of two different white shapes on transparency."""

    contrast: float
    white: float


def compare_colours(pictures: Sequence[GatePicture], spec: PreprocessingSpec, encode: Encode) -> list[Converted]:
    """Each bundled picture that is looked at, in each of WIDE. Raises MediaRejected or one of its subclasses."""
    ignored = msgspec.structs.replace(spec, icc="ignored")
    converted = msgspec.structs.replace(spec, icc="srgb")
    originals = [_small(picture, spec) for picture in pictures if picture.below is None][::_EVERY]
    names = list(range(len(originals)))
    gallery = _encode(originals, spec, encode)
    beside = [ImageEnhance.Color(image).enhance(part) for image in originals for part in PALER]
    everything = np.concatenate([gallery, _encode(beside, spec, encode)])
    found = []
    for name in WIDE:
        profile = rgb_profile(name, SPACES[name])
        files = [_png(in_space(image, profile), profile) for image in originals]
        by: list[tuple[tuple[float, float], int]] = []
        for how in (converted, ignored):
            pixels = [read_pixels(data, how, max_pixels=MAX_PIXELS) for data in files]
            cosines = np.concatenate([encode(one[None]) for one in pixels]).astype(np.float64) @ everything.T
            own = cosines[names, names]
            by.append(((float(own.min()), float(own.mean())), int((own >= cosines.max(axis=1)).sum())))
        found.append(Converted(name, len(files), by[0][0], by[1][0], by[0][1], by[1][1]))
    return found


def prove_colours(compared: Sequence[Converted]) -> None:
    """Refuse a spec that converts colours for a model that this does not help. Raises ExportRefused."""
    worse = [one for one in compared if one.converted[1] < one.ignored[1] or one.converted_first < one.ignored_first]
    if worse:
        table = "\n".join(
            f"  {one.space}: mean cosine to the original {one.converted[1]:.6f} converted, {one.ignored[1]:.6f} with "
            f"the profile ignored; {one.converted_first} and {one.ignored_first} of {one.count} first"
            for one in worse
        )
        raise ExportRefused(
            f"Converting colours by a picture's profile does not help this model.\n{table}\n"
            "Export it with --icc ignored."
        )


def compare_shapes(spec: PreprocessingSpec, encode: Encode) -> Shapes:
    """White shapes on transparency, by what they are laid on."""
    files = [_png(shape, None) for shape in white_shapes()]
    highest = []
    for alpha in ("contrast", "white"):
        how = msgspec.structs.replace(spec, alpha=alpha)
        vectors = np.concatenate([encode(read_pixels(one, how, max_pixels=MAX_PIXELS)[None]) for one in files])
        cosines = vectors.astype(np.float64) @ vectors.T
        highest.append(float(cosines[~np.eye(len(files), dtype=bool)].max()))
    return Shapes(*highest)


def prove_shapes(shapes: Shapes) -> None:
    """Refuse a model that takes different white shapes for one also where they can be seen. Raises ExportRefused."""
    if not shapes.contrast < MIN_COSINE_IN_SPACE:
        raise ExportRefused(
            f"This model takes different white shapes for one on dark grey, too (cosine {shapes.contrast:.6f}). "
            "Export it with --alpha white."
        )


def white_shapes() -> list[Image.Image]:
    """A bar, a disc, a triangle and a ring: white on transparency."""
    low, high = _SHAPE // 8, _SHAPE * 7 // 8
    draw: list[Callable[[ImageDraw.ImageDraw], None]] = [
        lambda on: on.rectangle((low, _SHAPE // 3, high, _SHAPE * 2 // 3), fill="white"),
        lambda on: on.ellipse((low, low, high, high), fill="white"),
        lambda on: on.polygon([(_SHAPE // 2, low), (high, high), (low, high)], fill="white"),
        lambda on: on.ellipse((low, low, high, high), outline="white", width=_SHAPE // 12),
    ]
    shapes = []
    for one in draw:
        shape = Image.new("RGBA", (_SHAPE, _SHAPE), _CLEAR)
        one(ImageDraw.Draw(shape))
        shapes.append(shape)
    return shapes


def _small(picture: GatePicture, spec: PreprocessingSpec) -> Image.Image:
    image = decode(picture.data, max_pixels=MAX_PIXELS, jpeg_at_least=_LONGEST, alpha=spec.alpha).in_srgb()
    image.thumbnail((_LONGEST, _LONGEST))
    return image


def _encode(images: Sequence[Image.Image], spec: PreprocessingSpec, encode: Encode) -> NDArray[np.float64]:
    return np.concatenate([encode(to_pixels(image, spec)[None]) for image in images]).astype(np.float64)


def _png(image: Image.Image, profile: bytes | None) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=1, icc_profile=profile)
    return out.getvalue()
