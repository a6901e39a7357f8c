"""The alterations that are measured: what shops, chats and screenshots do to a picture."""

from __future__ import annotations

import io
from collections.abc import Callable

from PIL import Image

from server.preprocessing.media import decode
from server.settings import MAX_PIXELS

Alteration = Callable[[Image.Image], Image.Image]
"""RGB in, RGB out."""

WHITE, BLACK = (255, 255, 255), (0, 0, 0)


def _encoded(image: Image.Image, form: str, quality: int) -> Image.Image:
    out = io.BytesIO()
    image.save(out, form, quality=quality)
    return decode(out.getvalue(), max_pixels=MAX_PIXELS).in_srgb()


def _half(image: Image.Image) -> Image.Image:
    return image.resize((max(1, image.width // 2), max(1, image.height // 2)), Image.Resampling.LANCZOS)


def _cropped(image: Image.Image) -> Image.Image:
    across, down = image.width // 10, image.height // 10
    return image.crop((across, down, image.width - across, image.height - down))


def _rotated(image: Image.Image, fill: tuple[int, int, int]) -> Image.Image:
    return image.rotate(5, Image.Resampling.BICUBIC, fillcolor=fill)


def _brighter(image: Image.Image) -> Image.Image:
    return image.point([min(255, round(value * 1.25)) for value in range(256)] * 3)


def _framed(image: Image.Image, colour: tuple[int, int, int]) -> Image.Image:
    width = round(max(image.size) * 0.08)
    framed = Image.new("RGB", (image.width + 2 * width, image.height + 2 * width), colour)
    framed.paste(image, (width, width))
    return framed


ALTERATIONS: dict[str, Alteration] = {
    "JPEG, quality 40": lambda image: _encoded(image, "JPEG", 40),
    "WebP, quality 60": lambda image: _encoded(image, "WEBP", 60),
    "half size": _half,
    "10 % cropped off each side": _cropped,
    "rotated by 5 degrees, on white": lambda image: _rotated(image, WHITE),
    "rotated by 5 degrees, on black": lambda image: _rotated(image, BLACK),
    "brighter by a quarter": _brighter,
    "a border of 8 %, white": lambda image: _framed(image, WHITE),
    "a border of 8 %, black": lambda image: _framed(image, BLACK),
}
