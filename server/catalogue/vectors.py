"""Vectors as the database holds them: halves of unit length."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pgvector import HalfVector

from server.errors import VectorRefused

NORM_TOLERANCE = 1e-3  # what the database's CHECK allows


def halves(vector: ArrayLike, dimensions: int) -> HalfVector:
    """float[D] rounded to the halves that are stored. Raises VectorRefused unless finite, of unit length and D long.

    A vector is rounded in the same way when it is stored and when it is searched with, so that a picture's cosine to
    itself is 1.
    """
    return HalfVector(_narrow(checked(vector, dimensions)))


def checked(vector: ArrayLike, dimensions: int) -> NDArray[np.float32]:
    """A vector that comes from outside, as float32[D]. Raises VectorRefused, as `halves` does."""
    try:
        with np.errstate(over="ignore"):  # a number too large for a float32 becomes infinite, and is refused as such
            wide = np.asarray(vector, dtype=np.float32)
    except (TypeError, ValueError) as exc:
        raise VectorRefused("The vector must be a list of numbers.") from exc
    if wide.shape != (dimensions,):
        shape = " x ".join(map(str, wide.shape)) or "no"
        raise VectorRefused(f"The vector has {shape} dimensions; this space has {dimensions:,}.")
    if not np.isfinite(wide).all():
        raise VectorRefused("The vector must be finite: it holds NaN or infinity.")
    norm = float(np.linalg.norm(_narrow(wide).astype(np.float64)))
    if not abs(norm - 1.0) <= NORM_TOLERANCE:
        raise VectorRefused(f"The vector must be of unit length; its length is {norm:.6g}.")
    return wide


def _narrow(wide: NDArray[np.float32]) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):
        return wide.astype(np.float16)
