"""The thresholds of the grades: pairs of a picture and its altered form, against pairs of different pictures.

For these only the bundled pictures are used, so that the same weights have the same grades whatever --calibration is
given. A user's folder may also hold several pictures of one thing, which are no pair of different things. The threshold
of words is chosen by captioned pictures of the user's own (captions.py), where there are any.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.proof.alterations import ALTERATIONS
from export.proof.captions import Captioned
from export.proof.drift import unit
from export.proof.gate import BATCH, Watch, unwatched
from export.proof.parity import GatePicture
from server.artifact.artifact import MIN_COSINE_IN_SPACE, PreprocessingSpec, Tokens, Vectors
from server.artifact.grades import Grades, Grading, Share, TextGrades, TextGrading, TextShare
from server.preprocessing.media import decode, read_pixels, to_pixels
from server.settings import MAX_PIXELS

ALTERED_KEPT = 0.9
"""The part of the altered pictures that must be near-duplicates of their originals."""

OTHERS_NEAR = 0.001
"""The part of the pairs of different pictures that may be near-duplicates, at most."""

OTHERS_SIMILAR = 0.01
"""The part of them that may be similar, at most."""

OTHERS_SIMILAR_TO_WORDS = 0.005
"""The part of the pairs of a caption and a picture of something else that may be similar, at most: half of that of
pictures, since words have no better grade, so that a word without meaning is to find next to nothing."""

_ALTERATIONS_EACH = 5
# The longer side of a picture before it is altered: shops and chats do not show pictures as large as cameras make them.
_SHOWN = 640
_DECIMALS = 1000

Cosines = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pixels to compare, uint8[S, S, 3] each: of each picture as served, saved again without loss, and altered."""

    served: Sequence[NDArray[np.uint8]]
    again: Sequence[NDArray[np.uint8]]
    """In the order of `served`: the picture's pixels when it is decoded in full."""
    altered: Sequence[tuple[int, NDArray[np.uint8]]]
    """The place of the original, and the pixels."""


def pairs_of(pictures: Sequence[GatePicture], spec: PreprocessingSpec) -> Pairs:
    """Pairs of the bundled pictures in the gate, each altered in five of the nine ways, in turn."""
    bundled = [picture for picture in pictures if picture.below is None]
    ways = list(ALTERATIONS.values())
    altered = []
    for at, picture in enumerate(bundled):
        image = decode(picture.data, max_pixels=MAX_PIXELS, jpeg_at_least=_SHOWN, alpha=spec.alpha).in_srgb()
        image.thumbnail((_SHOWN, _SHOWN))
        for number in range(_ALTERATIONS_EACH):
            way = ways[(at * _ALTERATIONS_EACH + number) % len(ways)]
            altered.append((at, to_pixels(way(image), spec)))
    served = [read_pixels(picture.data, spec, max_pixels=MAX_PIXELS) for picture in bundled]
    again = [to_pixels(decode(picture.data, max_pixels=MAX_PIXELS, alpha=spec.alpha), spec) for picture in bundled]
    return Pairs(served, again, altered)


def grade(
    encode: Callable[[NDArray[np.uint8]], Vectors], pairs: Pairs, watch: Watch = unwatched
) -> tuple[Grades, Grading] | None:
    """The thresholds for the vectors of `encode` (uint8[N, S, S, 3] to float32[N, D]), and which pairs reach them.

    None for fewer than two pictures.
    """
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


def grade_words(
    encode: Callable[[NDArray[np.uint8]], Vectors],
    encode_text: Callable[[Tokens], Vectors],
    captions: Captioned,
    watch: Watch = unwatched,
) -> tuple[TextGrades, TextGrading]:
    """The threshold of words for the vectors of both towers, and which pairs reach it.

    Texts run one by one, as most come to a server.
    """
    starts = range(0, len(captions.pixels), BATCH)
    pictures = unit(
        np.concatenate(
            [encode(np.stack(captions.pixels[at : at + BATCH])) for at in watch(starts, "captioned pictures")]
        )
    )
    texts = unit(np.concatenate([encode_text(row[None]) for row in watch(captions.tokens, "captions")]))
    cosines = texts @ pictures.T
    return chosen_of_words(cosines[captions.own], cosines[~captions.own])


def chosen_of_words(own: Cosines, others: Cosines) -> tuple[TextGrades, TextGrading]:
    """The threshold for these cosines, to the third decimal: what 1 in 200 pairs of a caption and a picture that it is
    not of reaches. And how many pairs reach it."""
    similar = _up(np.quantile(others, 1 - OTHERS_SIMILAR_TO_WORDS, method="higher"))
    kept, wrong = (
        TextShare(pairs=len(cosines), similar=round(float((cosines >= similar).mean()), 6)) for cosines in (own, others)
    )
    return TextGrades(similar=similar), TextGrading(own=kept, others=wrong)


def between_others(vectors: NDArray[np.float64]) -> Cosines:
    """The cosine of every two of the vectors float64[N, D]: float64[N (N - 1) / 2]."""
    cosines: Cosines = (vectors @ vectors.T)[np.triu_indices(len(vectors), 1)]
    return cosines


def chosen(same: Cosines, altered: Cosines, others: Cosines) -> tuple[Grades, Grading]:
    """The thresholds for these cosines, to the third decimal, and how many pairs reach them.

    - identical: the lowest cosine of a picture to itself, saved again without loss; but at most MIN_COSINE_IN_SPACE, as
      far as a precision may drift within the space, and at least the threshold of near-duplicate.
    - near-duplicate: the highest that 9 of 10 altered pictures still reach; higher where more than 1 in 1,000 pairs of
      different pictures would reach it.
    - similar: what 1 in 100 pairs of different pictures reaches.
    """
    near = max(
        _down(np.quantile(altered, 1 - ALTERED_KEPT, method="lower")),
        _up(np.quantile(others, 1 - OTHERS_NEAR, method="higher")),
    )
    near = min(near, MIN_COSINE_IN_SPACE)
    identical = max(min(_down(same.min()), MIN_COSINE_IN_SPACE), near)
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


def summary_of_words(grades: TextGrades, grading: TextGrading) -> str:
    """The threshold of words and how many pairs reach it, in a line."""
    own, others = grading.own, grading.others
    return (
        f"words are similar from {grades.similar}: {own.similar:.1%} of {own.pairs} captions to their pictures, and "
        f"{others.similar:.2%} of {others.pairs} pairs of a caption and another picture"
    )


def summary(grades: Grades | None, grading: Grading | None) -> str:
    """The thresholds and how many pairs reach them, in a line."""
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
