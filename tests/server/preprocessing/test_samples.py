"""Samples brought to 8 bits, against fractions in full precision."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from server.preprocessing import samples


def rounded(number: Fraction) -> int:
    """Halves up."""
    return math.floor(number + Fraction(1, 2))


@pytest.mark.parametrize("bits", [1, 2, 3, 5, 8, 10, 12, 16])
def test_whole_numbers_are_scaled_to_the_nearest(bits: int) -> None:
    most = (1 << bits) - 1
    found = samples.scaled(np.arange(most + 1, dtype=np.uint32), most)
    assert found.tolist() == [rounded(Fraction(value * 255, most)) for value in range(most + 1)]


def test_numbers_of_32_bits_are_scaled_without_loss() -> None:
    most = (1 << 32) - 1
    some = [0, 1, most // 510, most // 510 + 1, most // 2, most - 1, most]
    expected = [rounded(Fraction(value * 255, most)) for value in some]
    assert samples.scaled(np.array(some, np.uint64), most).tolist() == expected


def test_16_bits_by_table_are_the_same() -> None:
    assert np.array_equal(samples.FROM_16_BIT, samples.scaled(np.arange(65536, dtype=np.uint32), 65535))


def test_colours_are_divided_by_each_alpha_they_may_have() -> None:
    alpha, colour = np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8))
    found = samples.straight(np.repeat(colour[..., None], 3, axis=2), alpha)
    expected = [[rounded(Fraction(min(value, by) * 255, by)) if by else 0 for by in range(256)] for value in range(256)]
    for channel in range(3):
        assert found[..., channel].tolist() == expected
