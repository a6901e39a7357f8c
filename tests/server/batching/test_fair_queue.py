"""Who is next, as plain values: lanes, clients, and what fits."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest

from server.batching.fair_queue import BULK_TURN, Caller, FairQueue, Lane


def filled(*entries: tuple[Any, str, Lane]) -> FairQueue[Any]:
    """A queue of (name, client, lane)."""
    queue: FairQueue[Any] = FairQueue()
    for name, client, lane in entries:
        queue.add(name, Caller(client, lane))
    return queue


def drained(queue: FairQueue[Any]) -> list[Any]:
    return [queue.take() for _ in range(len(queue))]


def test_one_client_is_served_in_the_order_it_came() -> None:
    assert drained(filled(*((number, "a", "interactive") for number in range(5)))) == [0, 1, 2, 3, 4]


def test_a_thousand_entries_of_one_client_delay_another_by_one() -> None:
    queue = filled(*((number, "crowd", "interactive") for number in range(1000)), ("lone", "b", "interactive"))
    assert queue.take() == 0
    assert queue.take() == "lone"


def test_clients_take_turns_and_one_that_comes_back_stands_at_the_end() -> None:
    queue = filled(*((f"{client}{number}", client, "interactive") for client in "abc" for number in range(3)))
    assert [queue.take() for _ in range(4)] == ["a0", "b0", "c0", "a1"]
    queue.add("d0", Caller("d"))
    assert drained(queue) == ["b1", "c1", "a2", "d0", "b2", "c2"]


def test_interactive_work_goes_first_and_bulk_gets_its_turn_while_both_wait() -> None:
    queue = filled(("bulk", "a", "bulk"))
    fresh = count()
    taken = []
    for _ in range(4 * BULK_TURN):  # interactive entries wait all the time
        queue.add(next(fresh), Caller("b"))
        queue.add("bulk", Caller("a", "bulk"))
        taken.append(queue.take())
    assert [at for at, one in enumerate(taken) if one == "bulk"] == [BULK_TURN * turn - 1 for turn in (1, 2, 3, 4)]


def test_bulk_alone_has_everything() -> None:
    assert drained(filled(*((number, "a", "bulk") for number in range(3)))) == [0, 1, 2]


def test_what_does_not_fit_stays_where_it_is() -> None:
    queue = filled((1, "a", "interactive"), (2, "a", "interactive"), (3, "b", "bulk"), (4, "a", "interactive"))
    assert queue.fill(1, lambda one: one % 2 == 0) == [2]
    assert queue.fill(5, lambda one: one > 10) == []
    assert queue.fill(5, lambda one: one == 3) == [3]  # from the other lane, when nothing in the first one fits
    assert drained(queue) == [1, 4]
    assert queue.take() is None


def test_clients_take_turns_within_what_fits_too() -> None:
    queue = filled(*((f"{client}{at}", client, "interactive") for client in "ab" for at in ("!", "?", "?", "?")))
    assert queue.fill(5, lambda one: one.endswith("?")) == ["a?", "b?", "a?", "b?", "a?"]
    assert drained(queue) == ["a!", "b!", "b?"]


@pytest.mark.parametrize("most", [1, 2, 8])
def test_what_is_rare_is_not_passed_over_for_ever(most: int) -> None:
    """Two clients with a steady flow of common things, one of them with a rare one before them."""
    queue = filled(("a common", "a", "interactive"), ("rare", "b", "interactive"), ("b common", "b", "interactive"))
    for _ in range(10):
        first = queue.take()
        if first == "rare":
            return
        queue.fill(most - 1, lambda one: one != "rare")
        for client in "ab":
            for _ in range(most):
                queue.add(f"{client} common", Caller(client))
    pytest.fail("the rare one has not had its turn in ten batches")
