"""The ground that transparency is laid on: white, or black where white would swallow what is to be seen."""

from __future__ import annotations

from typing import Literal

from PIL import Image, ImageChops, ImageStat

Alpha = Literal["white", "contrast"]
"""As the preprocessing spec has it: always white, or by `level`."""

WHITE, BLACK = 255, 0

LEAST_CONTRAST = 20.0
"""How much darker than white what is visible must be on average, of 255, to stay on white. With the starter, twelve
shapes of a plain grey were told apart on white at 235 and below, after a lossy copy of half the size too, and at 250
no more; white ones had a cosine of 1.0 to each other. See docs/decisions/0032."""

# Alpha, of 255, below which a pixel counts as not to be seen: lossy formats leave such noise where nothing was, and on
# a picture with a lot of nothing it would weigh more than fine lettering.
_FAINT = 16
_VISIBLE = [alpha if alpha >= _FAINT else 0 for alpha in range(256)]

# Pixels that are weighed at once: what is made of them on the way stays within a few megabytes.
_AT_ONCE = 1_000_000


def level(image: Image.Image, alpha: Alpha) -> int:
    """The grey level of the ground, 0 or 255, for a picture in RGBA with straight alpha.

    With "contrast" it is black where what is visible is on average less than LEAST_CONTRAST darker than white, each
    pixel weighed by its alpha; white for all else, and for a picture in which nothing is visible. A mean hardly moves
    when a picture is saved anew with loss or in another size, so copies get the ground of their original.
    """
    if alpha == "white":
        return WHITE
    seen = contrast = 0.0
    rows = max(1, _AT_ONCE // image.width)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        opacity = strip.getchannel("A").point(_VISIBLE)
        seen += ImageStat.Stat(opacity).sum[0]
        contrast += ImageStat.Stat(ImageChops.multiply(opacity, ImageChops.invert(strip.convert("L")))).sum[0]
    return BLACK if seen and contrast < LEAST_CONTRAST / 255 * seen else WHITE


def lay(image: Image.Image, level: int) -> Image.Image:
    """A picture in RGBA, with straight alpha, on a ground of that grey level: RGB."""
    ground = Image.new("RGB", image.size, (level,) * 3)
    ground.paste(image, mask=image.getchannel("A"))
    return ground
