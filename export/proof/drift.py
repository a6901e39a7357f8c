"""How far vectors are from reference vectors of the same things: plain arrays in, the gate's figures out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.artifact.artifact import Drift

NEIGHBOURS = 10

# References this near to each other cannot be told from one picture twice: the gate lets fp32 itself move as far.
_THE_SAME = 0.999999


@dataclass(frozen=True, slots=True)
class Compared:
    """Figures of each picture (or text), in the order given; float64[N] and int64[N]."""

    cosine: NDArray[np.float64]
    centred: NDArray[np.float64]
    """The cosine after the references' mean was subtracted from both."""
    overlap: NDArray[np.float64]
    """The part of its ten nearest other references that are still among its ten nearest."""
    rank: NDArray[np.int64]
    """How many references are nearer to it than its own: 0 where it finds itself first. References equal to its own
    (the same picture twice) do not count."""
    moved: NDArray[np.int64]
    """How many other references are now nearer than the one that was nearest to its own reference."""

    def drift(self, *, batch_identical: bool) -> Drift:
        return Drift(
            count=len(self.cosine),
            min_cosine=_shown(self.cosine.min()),
            mean_cosine=_shown(self.cosine.mean()),
            min_centred_cosine=_shown(self.centred.min()),
            mean_centred_cosine=_shown(self.centred.mean()),
            self_first=int((self.rank == 0).sum()),
            recall_at_10=_shown(self.overlap.mean()),
            largest_rank_change=int(self.moved.max()),
            batch_identical=batch_identical,
        )


def compare(references: NDArray[Any], found: NDArray[Any]) -> Compared:
    """Compare float[N, D] with the references of the same things, float[N, D]; any lengths, in float64."""
    a, b = unit(references), unit(found)
    mean = a.mean(axis=0)
    among_references, from_found = a @ a.T, b @ a.T
    own = np.diagonal(from_found)
    # Written so that a cosine that is not a number never counts as first.
    nearer = (~(from_found <= own[:, None]) & ~(among_references >= _THE_SAME)).sum(axis=1)
    count = min(NEIGHBOURS, len(a) - 1)
    kept, moved = np.ones(len(a)), np.zeros(len(a), np.int64)
    for at in range(len(a) if count else 0):
        before, after = nearest(among_references[at], at), nearest(from_found[at], at)
        kept[at] = len(set(before[:count]) & set(after[:count])) / count
        moved[at] = after.index(before[0])
    cosines = np.einsum("nd,nd->n", a, b)
    return Compared(cosines, np.einsum("nd,nd->n", unit(a - mean), unit(b - mean)), kept, nearer, moved)


def nearest(cosines: NDArray[np.float64], itself: int) -> list[int]:
    """The places of all others, the nearest first."""
    order = np.argsort(-cosines, kind="stable")
    return [int(at) for at in order if at != itself]


def unit(vectors: NDArray[Any]) -> NDArray[np.float64]:
    """Each vector divided by its length, in float64; a vector of zeros stays as it is."""
    wide = vectors.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    divided: NDArray[np.float64] = wide / np.where(lengths == 0, 1, lengths)
    return divided


def _shown(value: Any) -> float:
    """Ten decimals: the others depend on the processor, and the manifest holds nothing of one machine."""
    return round(float(value), 10)
