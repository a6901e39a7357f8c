"""Rows are given out by numbers that mean no more than that, and no row is lost or told of twice."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from server.bulk.on_ray.supply import Handing, Supply, unpacked
from server.ingest.feed import FileOf, Row
from server.ingest.spool import Placed, Product

pytestmark = pytest.mark.anyio


def rows_of(*counts: int) -> list[Placed]:
    """Rows of so many products, each with so many pictures."""
    rows: list[Placed] = []
    for number, count in enumerate(counts):
        product = Product("acme", f"p{number}")
        for place in range(1, count + 1):
            at = len(rows) + 1
            rows.append(Placed(at, Row(at, "acme", product.id, picture=FileOf(Path("a"))), product, place))
    return rows


def ats(packed: bytes) -> list[int]:
    return [one.at for one in unpacked(packed)]


async def given(handing: Handing, numbers: Sequence[int]) -> list[list[int]]:
    return [ats(await handing.give(number)) for number in numbers]


async def test_every_row_is_given_once_in_whatever_order_numbers_are_asked_for() -> None:
    handing = Handing(iter(rows_of(*[1] * 10)), 4, asyncio.Event())
    assert await given(handing, [7, 0, 3, 5]) == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10], []]


async def test_a_product_is_not_divided_unless_it_is_large() -> None:
    handing = Handing(iter(rows_of(3, 3, 1, 20)), 4, asyncio.Event())
    assert await given(handing, range(3)) == [[1, 2, 3, 4, 5, 6], [*range(7, 15)], [*range(15, 23)]]


async def test_who_asks_again_gets_the_rows_that_are_still_to_be_done() -> None:
    handing = Handing(iter(rows_of(1, 1, 1)), 2, asyncio.Event())
    assert await given(handing, [0, 1]) == [[1, 2], [3]]
    assert handing.settle(0, 1) is not None
    assert handing.settle(0, 1) is None
    assert await given(handing, [0]) == [[2]]
    assert handing.settle(0, 2) is not None
    assert await given(handing, [0]) == [[]]
    assert (handing.is_out(1), handing.done.is_set()) == (True, False)
    assert handing.settle(1, 3) is not None
    assert await given(handing, [4]) == [[]]
    assert handing.done.is_set()


async def test_once_it_is_stopped_nothing_new_is_given_and_what_is_out_is_awaited() -> None:
    stop = asyncio.Event()
    handing = Handing(iter(rows_of(1, 1, 1)), 1, stop)
    await handing.give(0)
    stop.set()
    assert await given(handing, [1, 0]) == [[], [1]]
    assert not handing.done.is_set()
    handing.settle(0, 1)
    assert handing.done.is_set()


async def test_all_who_ask_for_a_number_get_its_answer() -> None:
    supply = Supply()
    asking = [asyncio.create_task(supply.ask(number)) for number in (3, 3, 4)]
    await asyncio.sleep(0)
    assert await supply.wanted() == [3, 4]
    await supply.give(3, b"rows")
    assert [await one for one in asking[:2]] == [b"rows", b"rows"]
    await supply.give(4, b"")
    assert await asking[2] == b""
    again = asyncio.create_task(supply.ask(3))
    assert await supply.wanted() == [3]
    again.cancel()


async def test_it_knows_what_was_begun_again() -> None:
    supply = Supply()
    for stage, number in (("decode", 1), ("encode", 1), ("decode", 2), ("decode", 1)):
        await supply.begin(stage, number)
    await supply.forget(1)
    await supply.begin("encode", 2)
    assert await supply.begun_again() == {"decode": 1}
