"""The ground that transparency is laid on: white, or a dark grey where white would swallow what is to be seen."""

from __future__ import annotations

from typing import Literal

from PIL import Image, ImageChops, ImageStat

Alpha = Literal["white", "contrast"]
"""As the preprocessing spec has it: always white, or by `level`."""

WHITE = 255
DARK = 48
"""The other ground: on it white parts and black ones can both be seen. Of 0, 48, 64, 80, 96 and 112 it is the one on
which the starter told things with white, coloured and black parts apart best. See docs/decisions/0032."""

MOST_DROWNING = 0.2
"""The part of what is visible that may drown in white before it is laid on DARK."""

# From this luma on a pixel drowns in white in part, at 255 it drowns wholly.
_PALE = 232
_DROWNING = [max(0, round(255 * (luma - _PALE) / (255 - _PALE))) for luma in range(256)]

# Alpha, of 255, below which a pixel counts as not to be seen: lossy formats leave such noise where nothing was, and on
# a picture with a lot of nothing it would weigh more than fine lettering.
_FAINT = 16
_VISIBLE = [alpha if alpha >= _FAINT else 0 for alpha in range(256)]
# The weight of what is fainter, where there is nothing else: spread over 8 bits, so that products keep their digits.
_FAINTER = [min(alpha * 255 // (_FAINT - 1), 255) for alpha in range(256)]

# Pixels that are weighed at once: what is made of them on the way stays within a few megabytes.
_AT_ONCE = 1_000_000


def level(image: Image.Image, alpha: Alpha) -> int:
    """The grey level of the ground, WHITE or DARK, for a picture in RGBA with straight alpha.

    With "contrast" it is DARK where more than MOST_DROWNING of what is visible would drown in white. Each pixel is
    weighed by its alpha; white drowns wholly, luma 232 and all that is darker not at all, and what lies between in
    proportion. It is WHITE for all else, and for a picture that is transparent throughout. What is too faint to count
    as visible is weighed where there is nothing else.
    """
    if alpha == "white":
        return WHITE
    seen, drowning = _weighed(image, _VISIBLE)
    if not seen:
        seen, drowning = _weighed(image, _FAINTER)
    return DARK if drowning > MOST_DROWNING * seen else WHITE


def _weighed(image: Image.Image, weights: list[int]) -> tuple[float, float]:
    """How much is visible, and how much of it drowns in white, by each alpha's weight."""
    seen = drowning = 0.0
    rows = max(1, _AT_ONCE // image.width)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        opacity = strip.getchannel("A").point(weights)
        seen += ImageStat.Stat(opacity).sum[0]
        drowning += ImageStat.Stat(ImageChops.multiply(opacity, strip.convert("L").point(_DROWNING))).sum[0]
    return seen, drowning


def lay(image: Image.Image, level: int) -> Image.Image:
    """A picture in RGBA, with straight alpha, on a ground of that grey level: RGB."""
    ground = Image.new("RGB", image.size, (level,) * 3)
    ground.paste(image, mask=image.getchannel("A"))
    return ground
