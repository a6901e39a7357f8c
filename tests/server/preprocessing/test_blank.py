"""What counts as blank."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from server.artifact.artifact import PreprocessingSpec
from server.preprocessing.blank import is_blank
from server.preprocessing.media import read_pixels
from tests.support.pictures import in_format

SPEC = PreprocessingSpec(
    size=224, resize="shortest-edge", edge=224, resample="bicubic", rescale=1 / 255, mean=(0, 0, 0), std=(1, 1, 1)
)


def white() -> NDArray[np.uint8]:
    return np.full((224, 224, 3), 255, np.uint8)


@pytest.mark.parametrize("colour", [(255, 255, 255), (0, 0, 0), (13, 200, 90), (128, 64, 250)])
@pytest.mark.parametrize(("form", "quality"), [("PNG", 0), ("JPEG", 30), ("JPEG", 90), ("WEBP", 80), ("AVIF", 60)])
def test_one_colour_is_blank_in_every_format(colour: tuple[int, int, int], form: str, quality: int) -> None:
    options = {"quality": quality} if quality else {}
    data = in_format(Image.new("RGB", (500, 333), colour), form, **options)
    assert is_blank(read_pixels(data, SPEC, max_pixels=1_000_000))


@pytest.mark.parametrize("quality", [60, 75])
def test_a_small_picture_of_one_colour_is_blank_however_webp_left_it(quality: int) -> None:
    colours = np.random.default_rng(3).integers(0, 256, (30, 3)).tolist()
    found = [in_format(Image.new("RGB", (64, 64), tuple(colour)), "WEBP", quality=quality) for colour in colours]
    assert sum(is_blank(read_pixels(data, SPEC, max_pixels=10_000)) for data in found) >= 27


def test_the_trace_of_a_lossy_format_is_blank_and_faint_lettering_is_not() -> None:
    traces = white()
    traces[::40, ::40] -= 9
    assert is_blank(traces)
    faint = white()
    faint[100:115, 60:172] -= 10
    assert not is_blank(faint)


@pytest.mark.parametrize("place", [(0, 0), (5, 7), (223, 223)])
def test_one_pixel_that_can_be_seen_is_enough_not_to_be_blank(place: tuple[int, int]) -> None:
    dotted = white()
    dotted[place] = 0
    assert not is_blank(dotted)


def test_two_colours_of_the_same_brightness_are_not_blank() -> None:
    halves = np.zeros((224, 224, 3), np.uint8)
    halves[:112] = (200, 0, 0)
    halves[112:] = (0, 102, 0)
    assert not is_blank(halves)
