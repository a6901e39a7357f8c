"""Profiles for colours that are named by numbers, against the arithmetic of their definitions."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from server.preprocessing import cicp

# RGB to XYZ (D65), as BT.709, SMPTE EG 432-1 (Display P3) and BT.2020 define their primaries.
SRGB = np.array(
    [[0.4123908, 0.3575843, 0.1804808], [0.2126390, 0.7151687, 0.0721923], [0.0193308, 0.1191948, 0.9505322]]
)
P3 = np.array([[0.4865709, 0.2656677, 0.1982173], [0.2289746, 0.6917385, 0.0792869], [0.0, 0.0451134, 1.0439444]])
BT2020 = np.array([[0.6369580, 0.1446169, 0.1688810], [0.2627002, 0.6779981, 0.0593017], [0.0, 0.0280727, 1.0609851]])
# Within all three: nothing is clipped.
COLOURS = np.array([[[200, 120, 90], [90, 160, 120], [80, 90, 170], [128, 128, 128], [250, 245, 240]]], np.uint8)
RELATIVE = ImageCms.Intent.RELATIVE_COLORIMETRIC


def linear(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(samples <= 0.04045, samples / 12.92, ((samples + 0.055) / 1.055) ** 2.4)


def encoded(light: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize(
    ("primaries", "transfer", "to_xyz", "curve"),
    [
        pytest.param(12, 13, P3, linear, id="Display P3"),
        pytest.param(9, 1, BT2020, linear, id="BT.2020"),
        pytest.param(1, 4, SRGB, lambda samples: samples**2.2, id="BT.709 with a gamma of 2.2"),
        pytest.param(1, 8, SRGB, lambda samples: samples, id="linear light"),
    ],
)
def test_a_profile_says_what_the_numbers_mean(
    primaries: int, transfer: int, to_xyz: NDArray[np.float64], curve: Callable[[Any], Any]
) -> None:
    found = cicp.profile(primaries, transfer)
    assert found is not None
    srgb = ImageCms.createProfile("sRGB")
    transform = ImageCms.buildTransform(ImageCms.getOpenProfile(io.BytesIO(found)), srgb, "RGB", "RGB", RELATIVE)
    converted = ImageCms.applyTransform(Image.fromarray(COLOURS), transform)
    assert converted is not None
    light = curve(COLOURS / 255) @ (np.linalg.inv(SRGB) @ to_xyz).T
    np.testing.assert_allclose(np.asarray(converted), encoded(light.clip(0, 1)) * 255, atol=1)


@pytest.mark.parametrize("numbers", [(1, 13), (1, 1), (2, 2), (1, 6), (9, 16), (9, 18), (0, 0), (255, 255)])
def test_srgb_and_what_no_profile_can_say_have_none(numbers: tuple[int, int]) -> None:
    assert cicp.profile(*numbers) is None


def test_numbers_that_say_nothing_are_not_remembered() -> None:
    made = {cicp.profile(primaries, transfer) for primaries in range(256) for transfer in range(256)} - {None}
    held = cicp._made.cache_info()
    assert held.currsize == len(made)
    for primaries in range(256, 65_536, 17):
        assert cicp.profile(primaries, 16) is cicp.profile(primaries, 13) is None
        assert cicp.profile(primaries, 4) == cicp.profile(1, 4)
        assert cicp.profile(12, primaries) is None
    assert cicp._made.cache_info().currsize == held.currsize
