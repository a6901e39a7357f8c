"""What is found with a part of a picture, and how good proposals of parts are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from bench.near_duplicates import embed
from bench.regions.scenes import Scene, Thing, overlap
from server.artifact.artifact import PreprocessingSpec, Vectors
from server.inference.encoder import Encoder
from server.preprocessing.proposals import MOST_PROPOSALS, proposed

Box = tuple[float, float, float, float]
Proposing = Callable[[Image.Image], Sequence[Box]]

FOUND = 0.5
"""Intersection over union from which on a box is that of a thing."""

PLACES: Mapping[str, tuple[float, float]] = {
    "the middle": (0.5, 0.5),
    "upper left": (0.0, 0.0),
    "upper right": (1.0, 0.0),
    "lower left": (0.0, 1.0),
    "lower right": (1.0, 1.0),
}
"""Where a crop lies: shares of what is cut off that are to its left and above it."""


class Finder:
    """Finds pictures of a catalogue by pictures, as an exact search does."""

    def __init__(self, encoder: Encoder, spec: PreprocessingSpec, catalogue: Mapping[str, Image.Image]) -> None:
        self._encoder, self._spec = encoder, spec
        self._names = list(catalogue)
        self._vectors = self.embed(list(catalogue.values()))

    def embed(self, images: Sequence[Image.Image]) -> Vectors:
        return embed(self._encoder, self._spec, images)

    def first(self, images: Sequence[Image.Image]) -> list[str]:
        """The name of the nearest picture to each."""
        if not images:
            return []
        return [self._names[at] for at in (self.embed(images) @ self._vectors.T).argmax(axis=1)]


@dataclass(frozen=True, slots=True)
class Part:
    """How often a part of a picture finds its picture first."""

    kept: float
    """Of the width and of the height."""
    place: str
    first: float


def own_parts(finder: Finder, catalogue: Mapping[str, Image.Image]) -> list[Part]:
    """Every picture searched with parts of itself."""
    found = []
    for kept in (0.8, 0.5):
        for place, (across, down) in PLACES.items():
            parts = [_part(image, kept, across, down) for image in catalogue.values()]
            right = [name == one for name, one in zip(catalogue, finder.first(parts), strict=True)]
            found.append(Part(kept, place, float(np.mean(right))))
    return found


def _part(image: Image.Image, kept: float, across: float, down: float) -> Image.Image:
    width, height = image.size
    left, top = across * (1 - kept) * width, down * (1 - kept) * height
    return image.crop((round(left), round(top), round(left + kept * width), round(top + kept * height)))


@dataclass(frozen=True, slots=True)
class Chosen:
    """A thing of a scene, the proposal that is nearest to it, and what was found with that."""

    scene: Scene
    thing: Thing
    overlap: float
    right: bool
    """Whether the thing's own picture came first."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Of some things, as shares of them."""

    things: int
    recall: float
    """Those with a proposal of an overlap of at least FOUND."""
    right_of_found: float
    """Of those with such a proposal, those whose own picture is first when it is searched with."""
    right: float
    """Both: the proposal is there, and finds the thing."""

    @classmethod
    def of(cls, chosen: Sequence[Chosen]) -> Summary:
        found = [one for one in chosen if one.overlap >= FOUND]
        right = sum(one.right for one in found)
        count = len(chosen)
        return cls(count, len(found) / count, right / len(found) if found else 0.0, right / count)


def choose(finder: Finder, scenes: Sequence[Scene], propose: Proposing) -> list[Chosen]:
    """For each thing of the scenes the proposal that is nearest to it, searched with."""
    nearest: list[tuple[Scene, Thing, float, Image.Image]] = []
    for scene in scenes:
        boxes = list(propose(scene.image))[:MOST_PROPOSALS] or of_all(scene.image)
        for thing in scene.things:
            shared, box = max((overlap(thing.box, box), box) for box in boxes)
            left, top, right, bottom = (round(edge) for edge in box)
            nearest.append((scene, thing, shared, scene.image.crop((left, top, right, bottom))))
    first = finder.first([image for *_, image in nearest])
    return [
        Chosen(scene, thing, shared, name == thing.name)
        for (scene, thing, shared, _), name in zip(nearest, first, strict=True)
    ]


# --- ways of proposing -----------------------------------------------------------------------------------------------


def by_ground(image: Image.Image) -> list[Box]:
    """As the server does: what stands out from the ground."""
    width, height = image.size
    regions = [one.region for one in proposed(image)]
    return [(one.left * width, one.top * height, one.right * width, one.bottom * height) for one in regions]


def quarters(image: Image.Image) -> list[Box]:
    """The four quarters and the middle, whatever the picture shows."""
    width, height = image.size
    corners = [(across * width / 2, down * height / 2) for across, down in ((0, 0), (1, 0), (0, 1), (1, 1), (0.5, 0.5))]
    return [(left, top, left + width / 2, top + height / 2) for left, top in corners]


def by_tower(finder: Finder) -> Proposing:
    """Windows of three sizes, those first whose vectors are least like the mean of those at the border."""

    def propose(image: Image.Image) -> list[Box]:
        width, height = image.size
        windows: list[Box] = []
        outer: list[bool] = []
        for share in (0.25, 0.35, 0.5):
            side = share * min(width, height)
            lefts, tops = (np.linspace(0, whole - side, round(2 * (whole - side) / side) + 1) for whole in image.size)
            for left in lefts:
                for top in tops:
                    windows.append((left, top, left + side, top + side))
                    edge = left in (lefts[0], lefts[-1]) or top in (tops[0], tops[-1])
                    outer.append(share == 0.25 and bool(edge))
        vectors = finder.embed([image.crop(tuple(round(edge) for edge in box)) for box in windows])  # type: ignore[arg-type]
        ground = vectors[np.array(outer)].mean(axis=0)
        kept: list[Box] = []
        for at in np.argsort(vectors @ ground):
            if all(overlap(windows[at], other) < 0.3 for other in kept):
                kept.append(windows[at])
        return kept[:MOST_PROPOSALS]

    return propose


def of_all(image: Image.Image) -> list[Box]:
    """The whole picture."""
    return [(0.0, 0.0, float(image.width), float(image.height))]
