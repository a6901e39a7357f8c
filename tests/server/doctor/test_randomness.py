"""What is judged from the vectors alone."""

from __future__ import annotations

import numpy as np

from server.doctor.comparison import StoredVector
from server.doctor.randomness import directions, measure_randomness
from tests.support.legacy import NAMES, random_vectors, real_vectors


def test_directions_are_of_the_most_common_dimensions() -> None:
    vectors = {"a": [3, 4], "b": [0, 0], "c": [1, 0], "d": [1, 0, 0]}
    ids, unit = directions([StoredVector.of_row(one, "", vectors[one]) for one in vectors])
    assert ids == ["a", "c"]
    np.testing.assert_allclose(unit, np.array([[0.6, 0.8], [1, 0]]))


def test_random_directions_look_random_and_a_models_do_not() -> None:
    assert measure_randomness(NAMES, random_vectors().astype(np.float64)).too_many
    assert not measure_randomness(NAMES, real_vectors().astype(np.float64)).too_many
