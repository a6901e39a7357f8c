"""How far vectors are from reference vectors of the same things: plain arrays in, the gate's figures out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.artifact import Drift

_NEIGHBOURS = 10


@dataclass(frozen=True, slots=True)
class Compared:
    """Each picture's (or text's) own figures, in the order that they came in; float64[N] and int64[N]."""

    cosine: NDArray[np.float64]
    centred: NDArray[np.float64]
    """The cosine after the references' mean was subtracted from both."""
    overlap: NDArray[np.float64]
    """The part of its ten nearest other references that it kept."""
    rank: NDArray[np.int64]
    """How many references are nearer to it than its own: 0 where it finds itself first."""

    def drift(self, *, batch_identical: bool) -> Drift:
        return Drift(
            count=len(self.cosine),
            min_cosine=_shown(self.cosine.min()),
            mean_cosine=_shown(self.cosine.mean()),
            min_centred_cosine=_shown(self.centred.min()),
            mean_centred_cosine=_shown(self.centred.mean()),
            self_first=int((self.rank == 0).sum()),
            recall_at_10=_shown(self.overlap.mean()),
            largest_rank_change=int(self.rank.max()),
            batch_identical=batch_identical,
        )


def compare(references: NDArray[Any], found: NDArray[Any]) -> Compared:
    """Compare float[N, D] with the references of the same things, float[N, D]; any lengths, in float64."""
    a, b = _unit(references), _unit(found)
    mean = a.mean(axis=0)
    among_references, from_found = a @ a.T, b @ a.T
    own = np.einsum("nd,nd->n", a, b)
    # Written so that a cosine that is not a number never counts as first.
    nearer = (~(from_found <= own[:, None]) & ~np.eye(len(a), dtype=bool)).sum(axis=1)
    count = min(_NEIGHBOURS, len(a) - 1)
    kept = [
        len(set(_nearest(before, at, count)) & set(_nearest(after, at, count))) / count if count else 1.0
        for at, (before, after) in enumerate(zip(among_references, from_found, strict=True))
    ]
    return Compared(own, np.einsum("nd,nd->n", _unit(a - mean), _unit(b - mean)), np.array(kept), nearer)


def _nearest(cosines: NDArray[np.float64], itself: int, count: int) -> list[int]:
    order = np.argsort(-cosines, kind="stable")
    return [int(at) for at in order if at != itself][:count]


def _unit(vectors: NDArray[Any]) -> NDArray[np.float64]:
    wide = vectors.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    # A vector of no length has no direction; alone, it is its own mean.
    unit: NDArray[np.float64] = wide / np.where(lengths == 0, 1, lengths)
    return unit


def _shown(value: Any) -> float:
    """Ten decimals: what is beyond them is this processor's, and the manifest holds nothing of one machine."""
    return round(float(value), 10)
