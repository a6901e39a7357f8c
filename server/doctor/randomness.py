"""Whether vectors can be a model's at all, or point in random directions: by their cosines to each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from server.doctor.comparison import StoredVector

FEWEST_TO_JUDGE = 20
"""Of fewer vectors nothing can be said."""

# A vector's cosines to the rest of a sample have a root mean square of 1/sqrt(D) when it points anywhere: by chance up
# to 1.2 times that in a sample of 100. A model's vectors lie well above: the starter's, of 512 dimensions, 3.3 times.
_AS_IF_RANDOM = 1.3
# In a sound catalogue a picture in a hundred may be like no other; a part of this size is no accident.
_TOO_MANY_RANDOM = 0.05


@dataclass(frozen=True)
class Randomness:
    """The ids of those of `of` vectors that look random, and the cosines that say so, in words."""

    random: list[str]
    of: int
    measured: str

    @property
    def too_many(self) -> bool:
        """Whether more vectors look random than in a sound catalogue."""
        return len(self.random) >= _TOO_MANY_RANDOM * self.of


def directions(sample: list[StoredVector]) -> tuple[list[str], NDArray[np.float64]]:
    """Ids and unit vectors, float64[N, D], of those that have a length and the most common D."""
    long = [one for one in sample if one.vector.any()]
    if not long:
        return [], np.empty((0, 1))
    sizes = [one.vector.size for one in long]
    common = max(set(sizes), key=sizes.count)
    alike = [one for one in long if one.vector.size == common]
    matrix = np.stack([one.vector.astype(np.float64) for one in alike])
    return [one.media_id for one in alike], matrix / np.linalg.norm(matrix, axis=1, keepdims=True)


def measure_randomness(ids: list[str], vectors: NDArray[np.float64]) -> Randomness:
    """Which of these unit vectors, float64[N, D] with N > 1, look random."""
    cosines = vectors @ vectors.T
    pairs = cosines[np.triu_indices(len(ids), 1)]
    np.fill_diagonal(cosines, 0)
    spread = np.sqrt((cosines**2).sum(axis=1) / (len(ids) - 1))
    by_chance = 1 / np.sqrt(vectors.shape[1])
    return Randomness(
        [one for one, rms in zip(ids, spread, strict=True) if rms < _AS_IF_RANDOM * by_chance],
        len(ids),
        f"the cosines of {len(pairs):,} pairs, {len(ids)} vectors drawn at random, have mean {pairs.mean():.3f} and "
        f"deviation {pairs.std():.3f}; random directions have 0.000 and {by_chance:.3f}",
    )
