"""How much work a TIFF may ask for: a file of a few kilobytes can hold 64 million pixels of any kind."""

from __future__ import annotations

from server.errors import UnsupportedPicture
from server.preprocessing.tiff_layout import Layout

# What a pixel may cost, in bytes that are gone through: RGB of 16 bits and RGBA of 8 cost 6, and `MAX_PIXELS` alone
# bounds these. Of what costs more there may be fewer pixels: up to 24 million of nearly every kind.
_ORDINARY_COST, _MOST_WORK = 6, 400_000_000
_NAMES = {
    "grey": "grey",
    "rgb": "RGB",
    "palette": "palette",
    "cmyk": "CMYK",
    "ycbcr": "YCbCr",
    "lab": "CIELab",
    "icclab": "ICCLab",
}


def check_work(layout: Layout) -> None:
    """Raises UnsupportedPicture for more pixels than are read of a kind that takes its time, however small its file."""
    cost = _cost(layout)
    pixels = layout.across * layout.block_width * layout.down * layout.block_height if layout.tiled else 0
    pixels = max(pixels, layout.width * layout.height)
    if cost > _ORDINARY_COST and pixels * cost > _MOST_WORK:
        most = int(_MOST_WORK / cost / 1e6)
        what = f"{layout.bits}-bit {_NAMES[layout.colours]}" + (
            f" of {layout.samples} samples" if layout.samples > 1 else ""
        )
        raise UnsupportedPicture(
            f"This TIFF is too large for its kind ({what}), of which at most {most} million pixels are read here; "
            "save it smaller, or with 8 bits a sample and without extra samples, or as PNG."
        )


def _cost(layout: Layout) -> float:
    """What a pixel takes, as measured: its bytes, and what is done to them beyond the ordinary."""
    used = len(layout.used)
    stored = (used if layout.planar else layout.samples) * layout.bits / 8
    cost = stored + (2 if layout.alpha else 0) + (2 if layout.alpha == "associated" else 0)
    if layout.bits not in (1, 2, 4, 8, 16, 32, 64):
        cost += used
    if layout.predictor == 3:
        cost += stored
    if layout.colours == "ycbcr":
        cost += 3
    if layout.colours in ("lab", "icclab"):
        cost += 10
    return cost
