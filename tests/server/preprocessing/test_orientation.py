"""EXIF's eight ways of storing a picture, and where a part of it lies in each."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from server.preprocessing.orientation import stored_box, upright, upright_box, upright_size
from tests.support.pictures import in_format

SIZE = (7, 5)
BOX = (1, 2, 4, 3)


def numbered() -> Image.Image:
    """A picture of which each pixel is another."""
    return Image.fromarray(np.arange(35, dtype=np.uint8).reshape(5, 7))


def by_pillow(orientation: int) -> Image.Image:
    exif = Image.Exif()
    exif[0x0112] = orientation
    with Image.open(io.BytesIO(in_format(numbered(), "PNG", exif=exif))) as image:
        turned = ImageOps.exif_transpose(image)
    assert turned is not None
    return turned


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_and_a_part_of_it_are_turned_as_pillow_turns_them(orientation: int) -> None:
    expected = by_pillow(orientation)
    turned = upright(numbered(), orientation)
    np.testing.assert_array_equal(np.asarray(turned), np.asarray(expected))
    assert upright_size(SIZE, orientation) == expected.size
    part = upright(numbered().crop(BOX), orientation)
    box = upright_box(BOX, SIZE, orientation)
    np.testing.assert_array_equal(np.asarray(part), np.asarray(expected.crop(box)))
    assert stored_box(box, expected.size, orientation) == BOX


@pytest.mark.parametrize("orientation", [0, 9, 300])
def test_what_exif_does_not_know_turns_nothing(orientation: int) -> None:
    assert upright_size(SIZE, orientation) == SIZE
    assert upright_box(BOX, SIZE, orientation) == stored_box(BOX, SIZE, orientation) == BOX
    np.testing.assert_array_equal(np.asarray(upright(numbered(), orientation)), np.asarray(numbered()))
