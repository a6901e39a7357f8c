"""The scenes of the benchmark of regions, and how proposals are counted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from bench.regions.finding import Chosen, Summary, quarters
from bench.regions.scenes import GROUNDS, SCENES, Scene, Thing, overlap, scene, scenes
from tests import DEMO_PICTURES

NAMES = ("violin", "teapot", "camera", "keyboard", "scissors", "bicycle")


def pictures() -> list[tuple[str, Image.Image]]:
    found = []
    for name in NAMES:
        with Image.open(DEMO_PICTURES / f"{name}.webp") as image:
            found.append((name, image.convert("RGBA")))
    return found


def test_a_scene_is_the_same_every_time_and_no_other_is_like_it() -> None:
    first, again = scene(5, pictures()), scene(5, pictures())
    assert np.array_equal(np.asarray(first.image), np.asarray(again.image))
    assert first.things == again.things
    assert scene(8, pictures()).things != first.things


def test_scenes_have_two_to_four_things_within_them_on_every_ground() -> None:
    made = scenes(pictures())
    assert len(made) == SCENES
    assert {one.ground for one in made} == {*GROUNDS}
    assert len({one.image.size for one in made if one.ground == "plain"}) > 1
    for one in made:
        assert 1 < len(one.things) < 5
        for thing in one.things:
            left, top, right, bottom = thing.box
            assert 0 <= left < right <= one.image.width
            assert 0 <= top < bottom <= one.image.height


def test_things_lie_apart_unless_the_scene_lets_them_overlap() -> None:
    shared = {True: 0.0, False: 0.0}
    for one in scenes(pictures()):
        for number, thing in enumerate(one.things):
            for other in one.things[:number]:
                shared[one.overlaps] = max(shared[one.overlaps], overlap(thing.box, other.box))
    assert shared[False] == 0
    assert 0 < shared[True] < 0.3


def test_the_box_of_a_thing_is_where_the_picture_differs_from_its_ground() -> None:
    one = scene(0, pictures())
    assert one.ground == "plain"
    samples = np.asarray(one.image, np.int16)
    differs = np.abs(samples - np.median(samples, axis=(0, 1))).max(axis=-1) > 40
    for thing in one.things:
        left, top, right, bottom = thing.box
        assert differs[top:bottom, left:right].any()
        differs[top:bottom, left:right] = False
    assert differs.mean() < 0.001


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        ((0, 0, 10, 10), (0, 0, 10, 10), 1.0),
        ((0, 0, 10, 10), (5, 0, 15, 10), 1 / 3),
        ((0, 0, 10, 10), (10, 0, 20, 10), 0.0),
        ((0, 0, 10, 10), (20, 20, 30, 30), 0.0),
    ],
)
def test_overlap_is_intersection_over_union(one: Sequence[int], other: Sequence[int], shared: float) -> None:
    assert overlap(one, other) == pytest.approx(shared)


def test_the_shares_of_a_summary() -> None:
    where, thing = Scene(0, "plain", False, Image.new("RGB", (9, 9)), []), Thing("violin", (0, 0, 1, 1))
    chosen = [Chosen(where, thing, *one) for one in ((0.9, True), (0.5, False), (0.4, True), (0.1, False))]
    assert Summary.of(chosen) == Summary(4, 0.5, 0.5, 0.25)
    assert Summary.of(chosen[2:]) == Summary(2, 0.0, 0.0, 0.0)


def test_quarters_cover_the_picture() -> None:
    boxes = quarters(Image.new("RGB", (100, 60)))
    assert boxes[0] == (0, 0, 50, 30)
    assert boxes[4] == (25, 15, 75, 45)
    assert len(boxes) == 5
