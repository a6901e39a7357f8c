"""Whether a picture is blank: one colour throughout, so that it shows nothing by which it could be told from others."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

# A lossy format seldom keeps a single colour exactly. WebP at qualities of 60 and more leaves a spread of up to 11 of
# 255 in a channel, with a standard deviation of up to 1.2 in nine of ten pictures of 64 x 64, and less in larger ones.
# AVIF leaves a spread of 2 and a deviation of up to 0.9 from a quality of 30 on, JPEG none. What is visible at all is
# more than that: lettering of 10 of 255 that covers a thirtieth of the picture has 1.8.
_MOST_SPREAD: Final = 12
_MOST_DEVIATION: Final = 1.25

# Every so many rows and columns: enough to tell most pictures from blank ones without looking at all pixels.
_STEP: Final = 16


def is_blank(pixels: NDArray[np.uint8]) -> bool:
    """Whether uint8[S, S, 3], what the model gets of a picture, shows no more than one colour.

    In each channel the samples differ by at most 12 of 255, with a standard deviation of at most 1.25: what a lossy
    format makes of a single colour.
    """
    return _spread(pixels[::_STEP, ::_STEP]) <= _MOST_SPREAD and (
        _spread(pixels) <= _MOST_SPREAD and float(pixels.reshape(-1, 3).std(axis=0).max()) <= _MOST_DEVIATION
    )


def _spread(pixels: NDArray[np.uint8]) -> int:
    """The largest difference of two samples of one channel."""
    return int((pixels.max(axis=(0, 1)) - pixels.min(axis=(0, 1))).max())
