"""Vectors with known directions."""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class UnitVectors(Protocol):
    """The type of the function `unit_vectors`."""

    def __call__(self, count: int, dimensions: int, seed: int = 0) -> NDArray[np.float32]: ...


def unit_vectors(count: int, dimensions: int, seed: int = 0) -> NDArray[np.float32]:
    """float32[count, dimensions]: random directions of length 1."""
    made = np.random.default_rng(seed).standard_normal((count, dimensions))
    unit: NDArray[np.float32] = (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)
    return unit


def directions(count: int = 30, dimensions: int = 16, seed: int = 0) -> NDArray[np.float64]:
    """As `unit_vectors`, in double precision."""
    made = np.random.default_rng(seed).standard_normal((count, dimensions))
    unit: NDArray[np.float64] = made / np.linalg.norm(made, axis=1, keepdims=True)
    return unit


def turned(vectors: NDArray[Any], at: int, towards: int, cosine: float) -> NDArray[Any]:
    """The vector at a place, turned in the plane of another until its cosine to itself is this."""
    one, other = vectors[at], vectors[towards]
    across = other - (other @ one) * one
    across /= np.linalg.norm(across)
    moved = vectors.copy()
    moved[at] = cosine * one + math.sqrt(1 - cosine**2) * across
    return moved
