"""The vector of a query of several parts."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from server.catalogue.composing import LEAST_LENGTH, composed
from server.errors import BadParameter
from tests.support.vectors import directions

RED, LEATHER, SHOE = directions(3, 64).astype(np.float32)


def test_a_single_part_is_given_back_bit_for_bit() -> None:
    for weight in (0.3, 1.0, 10.0):
        assert composed([SHOE], [weight]).tobytes() == SHOE.tobytes()


def test_the_vector_is_the_weighted_sum_at_unit_length() -> None:
    made = composed([SHOE, RED, LEATHER], [1.0, 0.5, -0.25])
    summed = SHOE.astype(np.float64) + 0.5 * RED - 0.25 * LEATHER
    assert made.dtype == np.float32
    assert np.linalg.norm(made.astype(np.float64)) == pytest.approx(1, abs=1e-6)
    assert np.allclose(made, summed / np.linalg.norm(summed), atol=1e-7)


def test_only_the_ratio_of_the_weights_matters() -> None:
    assert np.allclose(composed([SHOE, RED], [0.01, 0.02]), composed([SHOE, RED], [5.0, 10.0]), atol=1e-7)


def test_matches_are_ranked_by_the_weighted_sum_of_the_cosines_with_each_part() -> None:
    catalogue = directions(50, 64).astype(np.float32)
    weights = [1.0, 2.0, -0.5]
    by_parts = sum(weight * (catalogue @ part) for weight, part in zip(weights, (SHOE, RED, LEATHER), strict=True))
    by_query = catalogue @ composed([SHOE, RED, LEATHER], weights)
    assert np.argsort(by_parts).tolist() == np.argsort(by_query).tolist()
    assert np.ptp(by_parts / by_query) < 1e-4


def test_a_part_with_a_negative_weight_is_less_like_the_vector() -> None:
    made = composed([SHOE, RED], [1.0, -0.5])
    assert made @ RED < SHOE @ RED
    assert np.array_equal(composed([RED], [-1.0]), -RED)


def test_the_same_part_twice_is_the_part() -> None:
    assert composed([SHOE, SHOE], [1.0, 3.0]) @ SHOE == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("weights", [[1.0, -1.0], [0.001, -0.001], [0.0, 0.0], [10.0, -9.9]])
def test_parts_that_cancel_each_other_out_are_refused(weights: list[float]) -> None:
    with pytest.raises(BadParameter, match="cancel each other out"):
        composed([SHOE, SHOE], weights)


def test_what_is_left_of_nearly_equal_parts_is_searched_for_down_to_the_least_length() -> None:
    other = RED - (RED @ SHOE) * SHOE
    other /= np.linalg.norm(other)

    def near(length: float) -> NDArray[np.float32]:
        """A vector whose difference from SHOE is so long, where both have half of the weight."""
        angle = 2 * np.arcsin(length)
        made: NDArray[np.float32] = (np.cos(angle) * SHOE + np.sin(angle) * other).astype(np.float32)
        return made

    assert composed([near(1.2 * LEAST_LENGTH), SHOE], [1.0, -1.0]) @ other > 0.99
    with pytest.raises(BadParameter):
        composed([near(0.8 * LEAST_LENGTH), SHOE], [1.0, -1.0])
