"""One vector for a query of several parts: their weighted sum, brought back to unit length.

    q = (w1 v1 + w2 v2 + ...) / |w1 v1 + w2 v2 + ...|

The vi are of unit length. The cosine of q with a vector x is then the weighted sum of the parts' own cosines with x,
times a factor that is the same for every x: matches are ranked by that sum. A negative weight counts likeness against.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from server.errors import BadParameter

MOST_PARTS = 16
"""Of one query."""

LARGEST_WEIGHT = 10.0

LEAST_LENGTH = 0.01
"""Of the sum, where the absolute weights add up to 1. Stored vectors are rounded to halves, which moves them by up to
0.0005: a shorter sum would hold too much of that. Less and more of two pictures are as short at a cosine of 0.9998."""


def composed(vectors: Sequence[NDArray[np.float32]], weights: Sequence[float]) -> NDArray[np.float32]:
    """The vector of a query: float32[D] of unit length, of some float32[D], each of unit length and with its weight.

    A single one with a weight above 0 is given back as it is, bit for bit. Raises BadParameter where the parts cancel
    each other out.
    """
    if len(vectors) == 1 and weights[0] > 0:
        return vectors[0]
    whole = np.asarray(weights, dtype=np.float64)
    total = float(np.abs(whole).sum())
    summed = whole @ np.stack(vectors).astype(np.float64)
    length = float(np.linalg.norm(summed))
    if length < LEAST_LENGTH * total or not total:
        raise BadParameter(
            "query: its parts cancel each other out, so that nothing is left to search for. Give them other weights."
        )
    unit: NDArray[np.float32] = (summed / length).astype(np.float32)
    return unit
