"""Which parts of a picture show something: proposals of what a search could be for, without any model.

The ground is what the picture's border shows: a colour that changes slowly over the picture, a polynomial of the second
degree in both directions, with the noise that the border has around it. What stands out from that ground by more than
this noise is something; what hangs together is one thing. Things that touch are told apart where they hang together
by little: where the mask, made thinner, falls into pieces, these are proposed as well.

So it finds things on a plain, shaded or finely textured ground, and it finds nothing of use where the border shows
many things itself, as in a photograph of a street. `python -m bench regions` measures both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from server.preprocessing.region import Region, region_of

MOST_PROPOSALS = 5
"""Of one picture."""

EDGE = 128
"""The longest side of what is looked at, in pixels."""

# How many deviations of the ground's noise something stands out by. Of 4, 5, 6 and 7, tried on scenes that are not
# those that are measured, 6 and 7 found the most things.
_STANDS_OUT = 6.0

# Grey levels by which even a ground without noise may differ from its polynomial: rounding, and what JPEG adds.
_LEAST_DEVIATION = 3.0

# Of the picture's area: less than that is no thing.
_LEAST_PART = 0.004

# By how many pixels the mask is made thinner, to see where it falls apart: filters' widths, so twice that and 1.
_THINNER = (3, 5, 7, 9)

# Boxes that share more of what they cover are one and the same.
_SAME = 0.75

_LEAST_EDGE = 16  # pixels a side: of less there is no border and something within

Mask = NDArray[np.bool_]
_Box = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Proposal:
    """A part of a picture that shows something."""

    region: Region
    score: float
    """0 to 1: how much of all that stands out from the ground is here, by area and by how much it differs."""


def proposed(image: Image.Image) -> list[Proposal]:
    """At most MOST_PROPOSALS parts of an upright picture in RGB, the highest score first.

    Empty where nothing stands out, and for a picture of less than 16 pixels a side. A thing that fills the picture is
    no proposal either.
    """
    scale = min(1.0, EDGE / max(image.size))
    width, height = (max(1, round(edge * scale)) for edge in image.size)
    if min(width, height) < _LEAST_EDGE:
        return []
    small = image.resize((width, height), Image.Resampling.BOX)
    distances = _distances(np.asarray(small, np.float64))
    mask = _tidied(distances > _STANDS_OUT)
    weights = np.where(mask, np.minimum(distances, 3 * _STANDS_OUT), 0.0)
    whole = float(weights.sum())
    proposals = []
    for box, weight in _boxes(mask, weights):
        left, top, right, bottom = box
        region = region_of([left / width, top / height, right / width, bottom / height])
        if region is not None:
            proposals.append(Proposal(region, min(1.0, weight / whole)))
    return sorted(proposals, key=lambda one: -one.score)[:MOST_PROPOSALS]


# --- what stands out from the ground ---------------------------------------------------------------------------------


def _distances(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64[height, width]: how far each pixel of float64[height, width, 3] is from the ground, in its deviations."""
    height, width, _ = samples.shape
    terms = _polynomial(width, height)
    ring = max(2, round(0.04 * min(width, height)))
    border = np.ones((height, width), bool)
    border[ring:-ring, ring:-ring] = False
    ground, at = samples[border], terms[border]
    # Things that reach the border are left out, step by step: at most half of it can be.
    kept = np.ones(len(ground), bool)
    for _ in range(8):
        coefficients = np.linalg.lstsq(at[kept], ground[kept], rcond=None)[0]
        off = np.linalg.norm(ground - at @ coefficients, axis=1)
        now = off <= max(10.0, 2.5 * float(np.median(off)))
        if np.array_equal(now, kept):
            break
        kept = now
    rest = samples - terms @ coefficients
    noise = rest[border][kept]
    # By its covariance: a ground of light and dark grain says nothing about a thing of another colour.
    covariance = noise.T @ noise / len(noise) + np.eye(3) * _LEAST_DEVIATION**2
    whitened: NDArray[np.float64] = np.linalg.norm(rest @ np.linalg.cholesky(np.linalg.inv(covariance)), axis=-1)
    return whitened


def _polynomial(width: int, height: int) -> NDArray[np.float64]:
    """float64[height, width, 6]: 1, y, y², x, xy, x², with x and y from -1 to 1."""
    x, y = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
    return np.stack([x**i * y**j for i in range(3) for j in range(3 - i)], axis=-1)


def _tidied(mask: Mask) -> Mask:
    """Without gaps of a pixel, and without specks."""
    return _filtered(mask, ImageFilter.MaxFilter(3), ImageFilter.MinFilter(3), ImageFilter.MedianFilter(3))


def _filtered(mask: Mask, *filters: ImageFilter.RankFilter | ImageFilter.MinFilter) -> Mask:
    image = Image.fromarray(mask.astype(np.uint8) * 255)
    for one in filters:
        image = image.filter(one)
    return np.asarray(image) > 127


# --- what hangs together ---------------------------------------------------------------------------------------------


def _boxes(mask: Mask, weights: NDArray[np.float64]) -> Iterator[tuple[_Box, float]]:
    """Each thing with its weight, and the pieces that things fall into."""
    labels = labelled(mask)
    least = _LEAST_PART * mask.size
    things = [(number, _extent(labels == number)) for number in _large(labels, least)]
    taken = [box for _, box in things]
    for number, box in things:
        yield box, float(weights[labels == number].sum())
    pieces: list[tuple[_Box, float]] = []
    for width in _THINNER:
        thin = labelled(_filtered(mask, ImageFilter.MinFilter(width)))
        for number, _ in things:
            within = np.where(labels == number, thin, 0)
            parts = np.unique(within[within > 0])
            if len(parts) > 1:
                own = np.where(labels == number, weights, 0.0)
                pieces += [_grown(within == part, width // 2, own) for part in _large(within, least / 2)]
    for box, weight in sorted(pieces, key=lambda piece: -piece[1]):
        if all(_overlap(box, other) < _SAME for other in taken):
            taken.append(box)
            yield box, weight


def labelled(mask: Mask) -> NDArray[np.int64]:
    """int64[height, width]: 0 where nothing is, and for what hangs together, corners too, one number from 1 on.

    By runs of each row, which are joined to those of the row above: as much work for a labyrinth as for a square.
    """
    labels = np.zeros(mask.shape, np.int64)
    parents = [0]

    def root(number: int) -> int:
        while parents[number] != number:
            parents[number] = parents[parents[number]]
            number = parents[number]
        return number

    above: list[tuple[int, int, int]] = []
    for y, row in enumerate(mask):
        edges = np.flatnonzero(np.diff(np.concatenate(([0], row.view(np.int8), [0]))))
        runs: list[tuple[int, int, int]] = []
        for start, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            number = len(parents)
            parents.append(number)
            for first, last, other in above:
                if first <= end and start <= last:
                    one, two = sorted((root(number), root(other)))
                    parents[two] = one
            labels[y, start:end] = number
            runs.append((start, end, number))
        above = runs
    return np.array([root(number) for number in range(len(parents))])[labels]


def _large(labels: NDArray[np.int64], least: float) -> Sequence[int]:
    """The numbers of at least so many pixels."""
    counts = np.bincount(labels.ravel())
    counts[0] = 0
    return [int(number) for number in np.flatnonzero(counts >= max(1.0, least))]


def _extent(mask: Mask) -> _Box:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _grown(piece: Mask, by: int, weights: NDArray[np.float64]) -> tuple[_Box, float]:
    """A piece as wide again as it was before it was made thinner by so many pixels, and the weight in its box."""
    left, top, right, bottom = _extent(piece)
    height, width = piece.shape
    box = max(0, left - by), max(0, top - by), min(width, right + by), min(height, bottom + by)
    return box, float(weights[box[1] : box[3], box[0] : box[2]].sum())


def _overlap(one: _Box, other: _Box) -> float:
    """Intersection over union."""
    across = max(0, min(one[2], other[2]) - max(one[0], other[0]))
    down = max(0, min(one[3], other[3]) - max(one[1], other[1]))
    both = across * down
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return both / (sum(areas) - both)
