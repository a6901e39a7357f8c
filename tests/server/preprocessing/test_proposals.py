"""Which parts of a picture show something, on grounds of which it is known."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from server.preprocessing import proposals
from server.preprocessing.proposals import MOST_PROPOSALS, labelled, proposed
from server.preprocessing.region import region_of

Box = tuple[int, int, int, int]
SIZE = (600, 400)
THINGS: list[Box] = [(60, 50, 220, 190), (330, 80, 420, 330), (470, 250, 560, 340)]


def plain() -> Image.Image:
    return Image.new("RGB", SIZE, (230, 225, 220))


def shaded() -> Image.Image:
    across, down = np.meshgrid(np.linspace(0, 90, SIZE[0]), np.linspace(0, 60, SIZE[1]))
    return Image.fromarray(np.stack([90 + across, 120 + down, 160 - across], axis=-1).astype(np.uint8))


def grained() -> Image.Image:
    grain = np.random.default_rng(3).normal(0, 9, (SIZE[1], SIZE[0], 1))
    return Image.fromarray(np.clip(150 + grain + [20, 0, -30], 0, 255).astype(np.uint8))


def with_things(ground: Image.Image, boxes: list[Box]) -> Image.Image:
    draw = ImageDraw.Draw(ground)
    for box, colour in zip(boxes, ("darkred", "navy", "gold", "black", "white", "purple", "teal"), strict=False):
        left, top, right, bottom = box
        draw.ellipse((left, top, right - 1, bottom - 1), fill=colour)
    return ground


def boxes(image: Image.Image) -> list[Box]:
    return [one.region.pixels(*image.size) for one in proposed(image)]


def nearest(box: Box, found: list[Box]) -> float:
    """The largest intersection over union."""

    def shared(other: Box) -> float:
        across = max(0, min(box[2], other[2]) - max(box[0], other[0]))
        down = max(0, min(box[3], other[3]) - max(box[1], other[1]))
        areas = sum((one[2] - one[0]) * (one[3] - one[1]) for one in (box, other))
        return across * down / (areas - across * down)

    return max(map(shared, found), default=0.0)


@pytest.mark.parametrize("ground", [plain, shaded, grained])
def test_each_thing_on_a_quiet_ground_is_proposed_and_nothing_else(ground: Callable[[], Image.Image]) -> None:
    found = boxes(with_things(ground(), THINGS))
    assert len(found) == len(THINGS)
    for thing in THINGS:
        assert nearest(thing, found) > 0.85


def test_a_thing_that_reaches_the_border_is_proposed_too() -> None:
    things: list[Box] = [(0, 100, 150, 300), (400, 300, 520, 400)]
    found = boxes(with_things(shaded(), things))
    assert all(nearest(thing, found) > 0.8 for thing in things)


def test_things_that_touch_are_proposed_together_and_apart() -> None:
    one, other = (100, 100, 190, 190), (189, 140, 290, 220)
    found = boxes(with_things(plain(), [one, other]))
    assert nearest((100, 100, 290, 220), found[:1]) > 0.9
    assert nearest(one, found) > 0.7
    assert nearest(other, found) > 0.7


@pytest.mark.parametrize("ground", [plain, shaded, grained])
def test_nothing_is_proposed_of_a_ground_alone(ground: Callable[[], Image.Image]) -> None:
    assert proposed(ground()) == []


@pytest.mark.parametrize("size", [(1, 1), (15, 300), (5000, 1), (300, 12)])
def test_of_what_is_too_small_or_too_thin_nothing_is_proposed(size: tuple[int, int]) -> None:
    assert proposed(Image.new("RGB", size, "red")) == []


def test_scores_are_shares_in_their_order_and_there_are_five_at_most() -> None:
    things: list[Box] = [
        (20 + 80 * number, 30 + 40 * (number % 3), 70 + 80 * number + 2 * number, 90 + 40 * (number % 3))
        for number in range(7)
    ]
    found = proposed(with_things(plain(), things))
    assert len(found) == MOST_PROPOSALS
    assert all(one.score >= other.score for one, other in pairwise(found))
    assert all(0 < one.score <= 1 for one in found)
    assert sum(one.score for one in found) <= 1.0001
    large, small = proposed(with_things(plain(), [(50, 50, 250, 250), (400, 100, 450, 150)]))
    assert large.score > 10 * small.score


def test_proposals_are_crops_that_a_search_takes_and_the_same_every_time() -> None:
    image = with_things(grained(), THINGS)
    found = proposed(image)
    assert found == proposed(image)
    for one in found:
        assert region_of([one.region.left, one.region.top, one.region.right, one.region.bottom]) == one.region


def test_a_picture_of_many_things_takes_no_longer_than_its_pixels() -> None:
    """A labyrinth and noise have thousands of runs; both come to an end, and propose nothing of use."""
    stripes = np.zeros((512, 512, 3), np.uint8)
    stripes[::8] = stripes[1::8] = stripes[:, ::16] = 255
    noise = np.random.default_rng(0).integers(0, 256, (512, 512, 3), np.uint8)
    for samples in (stripes, noise):
        assert len(proposed(Image.fromarray(samples))) <= MOST_PROPOSALS


def by_flooding(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The same numbering by a search from each pixel."""
    labels = np.zeros(mask.shape, np.int64)
    height, width = mask.shape
    for start in zip(*np.nonzero(mask), strict=True):
        if labels[start]:
            continue
        labels[start] = labels.max() + 1
        todo = [start]
        while todo:
            y, x = todo.pop()
            for near in ((y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)):
                if 0 <= near[0] < height and 0 <= near[1] < width and mask[near] and not labels[near]:
                    labels[near] = labels[start]
                    todo.append(near)
    return labels


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.4, 0.6, 1.0])
def test_what_hangs_together_has_one_number_and_what_does_not_has_two(share: float) -> None:
    mask = np.random.default_rng(int(10 * share)).random((23, 41)) < share
    labels, expected = labelled(mask), by_flooding(mask)
    pairs = {*zip(labels.ravel().tolist(), expected.ravel().tolist(), strict=True)}
    assert len(pairs) == len({one for one, _ in pairs}) == len({other for _, other in pairs})
    assert {one for one, other in pairs if other == 0} <= {0}


def test_only_as_much_is_looked_at_as_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture is made small first: the same things at ten times the size are proposed alike."""
    seen = []
    look = proposals._distances

    def looking(samples: NDArray[np.float64]) -> NDArray[np.float64]:
        seen.append(samples.shape)
        return look(samples)

    monkeypatch.setattr(proposals, "_distances", looking)
    small = with_things(plain(), THINGS)
    large = small.resize((3000, 2000), Image.Resampling.NEAREST)
    for one, other in zip(proposed(small), proposed(large), strict=True):
        assert np.allclose(list(one.region.pixels(1000, 1000)), list(other.region.pixels(1000, 1000)), atol=20)
    assert {shape[1] for shape in seen} == {proposals.EDGE}
