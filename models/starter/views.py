"""What happens to a picture before it is looked at: the alterations learned from, and those measured."""

from __future__ import annotations

import io
import random
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

Colour = tuple[int, int, int]
WHITE, BLACK, GREY = (255, 255, 255), (0, 0, 0), (128, 128, 128)


def on(picture: Image.Image, background: Image.Image | Colour = WHITE) -> Image.Image:
    """A picture laid on a background, which is stretched to its size."""
    if isinstance(background, Image.Image):
        below = background.resize(picture.size, Image.Resampling.BICUBIC).convert("RGB")
    else:
        below = Image.new("RGB", picture.size, background)
    below.paste(picture, mask=picture.getchannel("A"))
    return below


def _any_colour(rng: random.Random) -> Colour:
    return rng.randrange(256), rng.randrange(256), rng.randrange(256)


def _background(rng: random.Random) -> Image.Image | Colour:
    """Mostly white, as products are; else a colour, a shade of two, or blurred blotches like a room out of focus."""
    kind = rng.random()
    if kind < 0.4:
        return WHITE
    if kind < 0.45:
        return BLACK
    if kind < 0.6:
        return _any_colour(rng)
    if kind < 0.75:
        level = rng.randrange(150, 256)
        return (level, level, level)
    side = 2 if kind < 0.87 else rng.choice((4, 6, 9))
    noise = np.random.RandomState(rng.randrange(2**31)).randint(0, 256, (side, side, 3)).astype(np.uint8)
    return Image.fromarray(noise)


def _compressed(image: Image.Image, form: str, quality: int) -> Image.Image:
    out = io.BytesIO()
    image.save(out, form, quality=quality, **({"method": 2} if form == "WEBP" else {}))
    return Image.open(out).convert("RGB")


def _cropped(image: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    width, height = image.size
    box = (round(width * left), round(height * top), round(width * (1 - right)), round(height * (1 - bottom)))
    return image.crop(box) if box[2] - box[0] > 8 and box[3] - box[1] > 8 else image


def _scaled(image: Image.Image, factor: float) -> Image.Image:
    width, height = max(12, round(image.width * factor)), max(12, round(image.height * factor))
    return image.resize((width, height), Image.Resampling.BILINEAR)


def _framed(image: Image.Image, widths: tuple[int, int, int, int], colour: Colour) -> Image.Image:
    return ImageOps.expand(image, widths, colour)


def _hue(image: Image.Image, turn: int) -> Image.Image:
    hue, saturation, value = image.convert("HSV").split()
    turned = hue.point([(level + turn) % 256 for level in range(256)])
    return Image.merge("HSV", (turned, saturation, value)).convert("RGB")


def _tinted(image: Image.Image, gains: tuple[float, float, float]) -> Image.Image:
    table = [min(255, round(level * gain)) for gain in gains for level in range(256)]
    return image.point(table)


def near_duplicate(image: Image.Image, rng: random.Random) -> Image.Image:
    """One to three small alterations, such as a picture meets on its way through shops, chats and screenshots."""
    for kind in rng.sample(range(7), rng.choice((1, 1, 2, 3))):
        if kind == 0:
            image = _cropped(image, *(rng.uniform(0, 0.15) for _ in range(4)))
        elif kind == 1:
            angle, ground = rng.uniform(-8, 8), rng.choice((WHITE, BLACK, GREY))
            image = image.rotate(angle, Image.Resampling.BICUBIC, fillcolor=ground)
        elif kind == 2:
            image = _scaled(image, rng.uniform(0.25, 0.8))
        elif kind == 3:
            image = _compressed(image, rng.choice(("JPEG", "WEBP")), rng.randrange(25, 80))
        elif kind == 4:
            image = _tinted(image, (rng.uniform(0.75, 1.3), rng.uniform(0.75, 1.3), rng.uniform(0.75, 1.3)))
        elif kind == 5:
            image = _hue(image, rng.randrange(-12, 13))
        else:
            longest = max(image.size)
            widths = tuple(round(longest * rng.uniform(0, 0.14)) for _ in range(4))
            colour = rng.choice((WHITE, BLACK, GREY, _any_colour(rng)))
            image = _framed(image, (widths[0], widths[1], widths[2], widths[3]), colour)
    return image


def strong(picture: Image.Image, rng: random.Random) -> Image.Image:
    """Another scene with the same thing in it: other ground, place, size, light; what its words still fit."""
    if rng.random() < 0.5:
        picture = picture.rotate(rng.uniform(-20, 20), Image.Resampling.BICUBIC, expand=True)
    if rng.random() < 0.6:
        # Smaller, somewhere on a larger ground.
        room = rng.uniform(1.0, 1.9)
        width, height = round(picture.width * room), round(picture.height * room)
        if rng.random() < 0.5:
            width = height = max(width, height)
        whole = Image.new("RGBA", (width, height))
        whole.paste(picture, (rng.randrange(width - picture.width + 1), rng.randrange(height - picture.height + 1)))
        picture = whole
    image = on(picture, _background(rng))
    if rng.random() < 0.5:
        image = _cropped(image, *(rng.uniform(0, 0.2) for _ in range(4)))
    if rng.random() < 0.3:
        image = ImageOps.mirror(image)
    if rng.random() < 0.5:
        image = ImageEnhance.Brightness(image).enhance(rng.uniform(0.6, 1.3))
        image = ImageEnhance.Contrast(image).enhance(rng.uniform(0.6, 1.3))
    if rng.random() < 0.4:
        image = ImageEnhance.Color(image).enhance(rng.uniform(0, 1.6))
    if rng.random() < 0.2:
        image = _hue(image, rng.randrange(-20, 21))
    if rng.random() < 0.3:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 2.5)))
    if rng.random() < 0.4:
        image = _scaled(image, rng.uniform(0.2, 0.8))
    if rng.random() < 0.5:
        image = _compressed(image, "JPEG", rng.randrange(20, 80))
    return image


def _screenshot(image: Image.Image) -> Image.Image:
    """As a phone shows it: bars above and below, a thin margin beside."""
    longest = max(image.size)
    framed = _framed(image, (longest // 40, longest // 9, longest // 40, longest // 12), (245, 245, 247))
    bar = Image.new("RGB", (framed.width, longest // 16), (32, 33, 36))
    framed.paste(bar, (0, 0))
    return framed


# What is measured. Those of export/proof/alterations.py are here by the same numbers.
MEASURED: dict[str, Callable[[Image.Image], Image.Image]] = {
    "10 % cropped off each side": lambda image: _cropped(image, 0.1, 0.1, 0.1, 0.1),
    "rotated by 5 degrees, on white": lambda image: image.rotate(5, Image.Resampling.BICUBIC, fillcolor=WHITE),
    "rotated by 5 degrees, on black": lambda image: image.rotate(5, Image.Resampling.BICUBIC, fillcolor=BLACK),
    "half size": lambda image: image.resize(
        (max(1, image.width // 2), max(1, image.height // 2)), Image.Resampling.LANCZOS
    ),
    "JPEG, quality 40": lambda image: _compressed(image, "JPEG", 40),
    "WebP, quality 60": lambda image: _compressed(image, "WEBP", 60),
    "brighter by a quarter": lambda image: _tinted(image, (1.25, 1.25, 1.25)),
    "colours warmer": lambda image: _tinted(image, (1.15, 1.0, 0.85)),
    "hue turned by 10 degrees": lambda image: _hue(image, 7),
    "a border of 8 %, black": lambda image: _framed(image, (round(max(image.size) * 0.08),) * 4, BLACK),
    "a screenshot's bars": _screenshot,
}
