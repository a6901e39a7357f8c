"""The thresholds of the grades: from pairs of one picture, altered, against pairs of two.

Only the bundled pictures are taken, so that the same weights have the same grades whichever pictures the gate was given
beside them; a user's own also hold several pictures of one thing, and no pair of those says what two things look like.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.proof.alterations import ALTERATIONS
from export.proof.drift import unit
from export.proof.gate import BATCH, SHARED, Watch, unwatched
from export.proof.parity import GatePicture
from server.artifact.artifact import PreprocessingSpec, Vectors
from server.artifact.grades import Grades, Grading, Share
from server.preprocessing.media import decode, read_pixels, to_pixels

ALTERED_KEPT = 0.9
"""The part of the altered pictures that must be near-duplicates of their originals."""

OTHERS_NEAR = 0.001
"""The part of the pairs of different pictures that may be near-duplicates, at most."""

OTHERS_SIMILAR = 0.01
"""The part of them that may be similar, at most."""

_ALTERATIONS_EACH = 5
# Altered is what a shop or a chat shows of a picture, which is no longer as large as it came from the camera.
_SHOWN = 640
_MAX_PIXELS = 64_000_000
_DECIMALS = 1000

Cosines = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pixels to compare, uint8[S, S, 3] each: of each picture as served, saved again without loss, and altered."""

    served: Sequence[NDArray[np.uint8]]
    again: Sequence[NDArray[np.uint8]]
    """In the order of `served`: the pixels of the picture once it is decoded in full."""
    altered: Sequence[tuple[int, NDArray[np.uint8]]]
    """Each with the place of its original."""


def pairs_of(pictures: Sequence[GatePicture], spec: PreprocessingSpec) -> Pairs:
    """The bundled ones among the gate's pictures, each altered in five of the nine ways, in turn."""
    bundled = [picture for picture in pictures if picture.below is None]
    ways = list(ALTERATIONS.values())
    altered = []
    for at, picture in enumerate(bundled):
        image = decode(picture.data, max_pixels=_MAX_PIXELS, jpeg_at_least=_SHOWN).image
        image.thumbnail((_SHOWN, _SHOWN))
        for number in range(_ALTERATIONS_EACH):
            way = ways[(at * _ALTERATIONS_EACH + number) % len(ways)]
            altered.append((at, to_pixels(way(image), spec)))
    served = [read_pixels(picture.data, spec, max_pixels=_MAX_PIXELS) for picture in bundled]
    return Pairs(served, [picture.pixels for picture in bundled], altered)


def grade(
    encode: Callable[[NDArray[np.uint8]], Vectors], pairs: Pairs, watch: Watch = unwatched
) -> tuple[Grades, Grading] | None:
    """The thresholds for what `encode` (uint8[N, S, S, 3] to float32[N, D]) makes of the pictures, and what they let
    pass; None for fewer than two pictures."""
    if len(pairs.served) < 2:
        return None
    everything = [*pairs.served, *pairs.again, *(pixels for _, pixels in pairs.altered)]
    starts = range(0, len(everything), BATCH)
    vectors = unit(
        np.concatenate([encode(np.stack(everything[at : at + BATCH])) for at in watch(starts, "pictures to grade by")])
    )
    count = len(pairs.served)
    served, again, altered = vectors[:count], vectors[count : 2 * count], vectors[2 * count :]
    originals = served[[at for at, _ in pairs.altered]]
    return chosen(
        np.einsum("nd,nd->n", served, again), np.einsum("nd,nd->n", originals, altered), between_others(served)
    )


def between_others(vectors: NDArray[np.float64]) -> Cosines:
    """The cosine of every two of the vectors float64[N, D]: float64[N (N - 1) / 2]."""
    cosines: Cosines = (vectors @ vectors.T)[np.triu_indices(len(vectors), 1)]
    return cosines


def chosen(same: Cosines, altered: Cosines, others: Cosines) -> tuple[Grades, Grading]:
    """The thresholds for these cosines, to the third decimal, and what reaches them.

    - identical: what the same picture has at least when it was saved again without loss, though never more than a
      precision may drift within the space (`gate.SHARED`), and never less than a near-duplicate.
    - near-duplicate: as strict as keeps 9 of 10 altered pictures, and stricter where more than 1 in 1,000 pairs of
      different pictures would pass.
    - similar: what 1 in 100 pairs of different pictures reaches.
    """
    near = max(
        _down(np.quantile(altered, 1 - ALTERED_KEPT, method="lower")),
        _up(np.quantile(others, 1 - OTHERS_NEAR, method="higher")),
    )
    near = min(near, SHARED)
    identical = max(min(_down(same.min()), SHARED), near)
    similar = min(_up(np.quantile(others, 1 - OTHERS_SIMILAR, method="higher")), near)
    grades = Grades(identical=identical, near_duplicate=near, similar=similar)
    return grades, Grading(same=share(same, grades), altered=share(altered, grades), others=share(others, grades))


def share(cosines: Cosines, grades: Grades) -> Share:
    """What part of the pairs reaches each grade."""

    def above(least: float) -> float:
        return round(float((cosines >= least).mean()), 6)

    return Share(
        pairs=len(cosines),
        identical=above(grades.identical),
        near_duplicate=above(grades.near_duplicate),
        similar=above(grades.similar),
    )


def _down(cosine: float) -> float:
    return max(-1.0, math.floor(float(cosine) * _DECIMALS) / _DECIMALS)


def _up(cosine: float) -> float:
    return min(1.0, math.ceil(float(cosine) * _DECIMALS) / _DECIMALS)


def told(grades: Grades | None, grading: Grading | None) -> str:
    """The thresholds and what they let pass, in a line."""
    if grades is None:
        return "no grades: there are too few pictures to calibrate them"
    line = f"identical from {grades.identical}, near-duplicate from {grades.near_duplicate}"
    line = f"{line}, similar from {grades.similar}"
    if grading is None:
        return line
    altered, others = grading.altered, grading.others
    return (
        f"{line}; {altered.near_duplicate:.1%} of {altered.pairs} altered pictures are near-duplicates, and of "
        f"{others.pairs} pairs of different ones {others.near_duplicate:.2%}"
    )
