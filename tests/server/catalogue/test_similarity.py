from __future__ import annotations

import pytest

from server.catalogue.similarity import score, similarity


@pytest.mark.parametrize(("cosine", "percent"), [(1.0, 100.0), (0.0, 50.0), (-1.0, 0.0)])
def test_percentage_of_the_three_cosines_that_everyone_knows(cosine: float, percent: float) -> None:
    assert similarity(cosine) == percent


def test_score_is_the_negative_cosine_as_pgvector_gives_it() -> None:
    assert [score(cosine) for cosine in (1.0, 0.25, 0.0, -1.0)] == [-1.0, -0.25, 0.0, 1.0]
    assert str(score(0.0)) == "0.0"  # never "-0.0" in JSON


def test_rounding_past_one_is_clamped() -> None:
    assert similarity(1.0000004) == 100.0
    assert score(1.0000004) == -1.0
    assert similarity(-1.0000004) == 0.0


def test_one_decimal_is_kept() -> None:
    assert similarity(0.8765) == 93.8
