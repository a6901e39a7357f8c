"""The figures of drift, from vectors whose figures are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from export.proof.drift import compare
from tests.support.vectors import directions, turned


def test_vectors_that_did_not_move_have_perfect_figures() -> None:
    drift = compare(directions(), directions()).drift(batch_identical=True)
    assert (drift.count, drift.self_first, drift.recall_at_10, drift.largest_rank_change) == (30, 30, 1.0, 0)
    assert drift.min_cosine == drift.min_centred_cosine == 1.0


def test_lengths_do_not_matter() -> None:
    assert compare(directions() * 7, directions().astype(np.float32) * 0.1).cosine.min() > 1 - 1e-12


def test_the_vector_that_moved_is_found_with_its_cosine() -> None:
    compared = compare(directions(), turned(directions(), 4, 9, 0.95))
    assert compared.cosine.argmin() == 4
    assert compared.cosine[4] == pytest.approx(0.95)
    assert np.delete(compared.cosine, 4).min() > 1 - 1e-12
    assert compared.drift(batch_identical=False).min_cosine == pytest.approx(0.95)


def test_a_part_that_all_vectors_share_raises_the_plain_cosine_and_not_the_centred_one() -> None:
    shared = np.zeros(16)
    shared[0] = 10
    references = directions() + shared
    compared = compare(references, turned(directions(), 4, 9, 0.9) + shared)
    assert compared.cosine[4] > 0.998
    assert compared.centred[4] < 0.95


def test_one_that_came_nearer_to_another_does_not_find_itself_first() -> None:
    compared = compare(directions(), turned(directions(), 4, 9, 0.2))
    assert compared.rank[4] >= 1
    assert compared.drift(batch_identical=True).self_first == 29


def test_a_picture_that_is_there_twice_finds_itself_whichever_comes_first() -> None:
    references = directions()
    references[11] = references[4]
    # As arithmetic goes: the same picture, and not the same last bits.
    references[12] = turned(references, 4, 9, 1 - 1e-8)[4]
    found = turned(references, 4, 20, 0.9995)
    assert not compare(references, found).rank.any()


def test_neighbours_that_changed_count_by_the_tenth() -> None:
    # On a circle the ten nearest of 0 are 1 to 5 on either side; turned by 0.6 of a step, one of them is another.
    angles = np.arange(40) * math.tau / 40
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    found = circle.copy()
    by = 0.6 * math.tau / 40
    found[0] = [math.cos(by), math.sin(by)]
    compared = compare(circle, found)
    assert compared.overlap[0] == pytest.approx(0.9)
    assert compared.overlap[1:].min() == 1
    assert compared.rank[0] == 1


def test_the_rank_that_the_nearest_other_moved_to_is_counted_among_others() -> None:
    references = np.eye(8)
    references[0, 1], references[0, 2] = 0.5, 0.4
    found = references.copy()
    found[0, 1], found[0, 2] = 0.3, 0.45
    compared = compare(references, found)
    assert compared.moved[0] == 1
    assert not compared.moved[3:].any()
    assert compared.drift(batch_identical=True).largest_rank_change == 1


def test_a_cosine_that_is_not_a_number_never_counts_as_first() -> None:
    found = directions()
    found[3] = np.nan
    compared = compare(directions(), found)
    assert compared.rank[3] > 0
    assert np.isnan(compared.cosine[3])


@pytest.mark.parametrize("count", [1, 2, 5])
def test_fewer_than_eleven_have_figures_too(count: int) -> None:
    drift = compare(directions(count), directions(count)).drift(batch_identical=True)
    assert (drift.count, drift.self_first, drift.recall_at_10) == (count, count, 1.0)
