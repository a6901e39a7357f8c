"""The batcher with a stand-in for the model: what waits becomes batches, and each entry gets one answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from server.batching import batcher as batcher_module
from server.batching.batcher import Batcher, Encoded, Lanes
from server.batching.fair_queue import Caller
from server.errors import EncoderFailed, NotReady
from tests.support.stand_ins import Model, Reader

pytestmark = pytest.mark.anyio

ANYBODY = Caller()


def pixels(value: int) -> NDArray[np.uint8]:
    return np.full((2, 2, 3), value, np.uint8)


async def hold(batcher: Batcher, model: Model, caller: Caller = ANYBODY) -> Any:
    """Occupy the model with one picture, so that what comes now has to wait."""
    model.gate.clear()
    held = asyncio.create_task(batcher.encode(pixels(1), caller))
    await asyncio.to_thread(model.entered.wait, 10)
    return held


async def test_a_lone_picture_runs_at_once() -> None:
    model = Model()
    async with Batcher([model]) as batcher:
        answer = await batcher.encode(pixels(9))
    assert answer.embedding.tolist() == [9.0]
    assert answer.batch == 1


async def test_what_waits_runs_as_one_batch_and_each_gets_its_own_vector() -> None:
    model = Model(most=8)
    async with Batcher([model]) as batcher:
        held = await hold(batcher, model)
        waiting = [asyncio.create_task(batcher.encode(pixels(value))) for value in range(10, 15)]
        while batcher.waiting < 5:
            await asyncio.sleep(0)
        model.gate.set()
        answers = await asyncio.gather(*waiting)
        await held
    assert model.batches == [[1], [10, 11, 12, 13, 14]]
    assert [answer.embedding.tolist() for answer in answers] == [[10.0], [11.0], [12.0], [13.0], [14.0]]


async def test_a_batch_never_exceeds_its_bound() -> None:
    model = Model(most=4)
    async with Batcher([model]) as batcher:
        held = await hold(batcher, model)
        waiting = [asyncio.create_task(batcher.encode(pixels(value))) for value in range(10, 20)]
        while batcher.waiting < 10:
            await asyncio.sleep(0)
        model.gate.set()
        await asyncio.gather(held, *waiting)
    assert [len(batch) for batch in model.batches] == [1, 4, 4, 2]


def text(value: int, length: int) -> NDArray[np.int64]:
    return np.full(length, value, np.int64)


async def test_only_texts_of_one_length_share_a_batch_and_the_oldest_goes_first() -> None:
    model = Reader(most=3)
    async with Batcher([model]) as batcher:
        model.gate.clear()
        held = asyncio.create_task(batcher.encode(text(1, 5)))
        await asyncio.to_thread(model.entered.wait, 10)
        # value: length, in the order they come
        lengths = {10: 4, 11: 7, 12: 7, 13: 4, 14: 9, 15: 7, 16: 4, 17: 7, 18: 4}
        waiting = [asyncio.create_task(batcher.encode(text(value, length))) for value, length in lengths.items()]
        while batcher.waiting < len(lengths):
            await asyncio.sleep(0)
        model.gate.set()
        answers = await asyncio.gather(*waiting)
        await held
    assert model.batches == [[1], [10, 13, 16], [11, 12, 15], [14], [17], [18]]
    assert [answer.embedding.tolist() for answer in answers] == [[float(value)] for value in lengths]
    assert [answer.batch for answer in answers] == [3, 3, 3, 3, 1, 3, 3, 1, 1]


async def test_a_rare_length_is_not_overtaken_for_ever_by_a_common_one() -> None:
    model = Reader(most=2)
    async with Batcher([model]) as batcher:
        model.gate.clear()
        held = asyncio.create_task(batcher.encode(text(1, 5)))
        await asyncio.to_thread(model.entered.wait, 10)
        first = asyncio.create_task(batcher.encode(text(10, 5)))
        rare = asyncio.create_task(batcher.encode(text(11, 6)))
        crowd = [asyncio.create_task(batcher.encode(text(20 + number, 5))) for number in range(20)]
        while batcher.waiting < 22:
            await asyncio.sleep(0)
        model.gate.set()
        await asyncio.gather(held, first, rare, *crowd)
    assert model.batches[:3] == [[1], [10, 20], [11]]


async def test_texts_whose_callers_have_left_neither_choose_a_batch_nor_fill_it() -> None:
    model = Reader()
    async with Batcher([model]) as batcher:
        model.gate.clear()
        held = asyncio.create_task(batcher.encode(text(1, 5)))
        await asyncio.to_thread(model.entered.wait, 10)
        waiting = [asyncio.create_task(batcher.encode(text(*one))) for one in ((10, 4), (11, 6), (12, 4), (13, 6))]
        while batcher.waiting < 4:
            await asyncio.sleep(0)
        waiting[0].cancel()
        waiting[3].cancel()
        model.gate.set()
        await asyncio.gather(held, waiting[1], waiting[2])
    assert model.batches == [[1], [11], [12]]


async def test_a_poison_picture_fails_alone() -> None:
    model = Model()
    async with Batcher([model]) as batcher:
        held = await hold(batcher, model)
        waiting = [asyncio.create_task(batcher.encode(pixels(value))) for value in (10, 66, 12)]
        while batcher.waiting < 3:
            await asyncio.sleep(0)
        model.gate.set()
        first, poison, last = await asyncio.gather(*waiting, return_exceptions=True)
        await held
    assert isinstance(first, Encoded)
    assert isinstance(last, Encoded)
    assert first.embedding.tolist() == [10.0]
    assert last.embedding.tolist() == [12.0]
    assert isinstance(poison, EncoderFailed)


async def test_a_picture_whose_caller_has_left_is_never_encoded() -> None:
    model = Model()
    async with Batcher([model]) as batcher:
        held = await hold(batcher, model)
        leaver = asyncio.create_task(batcher.encode(pixels(50)))
        stayer = asyncio.create_task(batcher.encode(pixels(51)))
        while batcher.waiting < 2:
            await asyncio.sleep(0)
        leaver.cancel()
        model.gate.set()
        await asyncio.gather(held, stayer)
    assert model.batches == [[1], [51]]


async def test_closing_answers_what_still_waits_and_takes_nothing_more() -> None:
    model = Model()
    batcher = Batcher([model])
    async with batcher:
        held = await hold(batcher, model)
        waiting = asyncio.create_task(batcher.encode(pixels(20)))
        while not batcher.waiting:
            await asyncio.sleep(0)
        model.gate.set()
    assert (await waiting).embedding.tolist() == [20.0]
    await held
    with pytest.raises(NotReady):
        await batcher.encode(pixels(1))


# --- several runners -------------------------------------------------------------------------------------------------


async def waiting(
    batcher: Batcher,
    values: Sequence[int],
    caller: Caller = Caller(),  # noqa: B008 - a frozen value
) -> list[asyncio.Task[Encoded]]:
    before = batcher.waiting
    tasks = [asyncio.create_task(batcher.encode(pixels(value), caller)) for value in values]
    while batcher.waiting < before + len(values):
        await asyncio.sleep(0)
    return tasks


async def test_one_that_comes_alone_has_the_whole_machine() -> None:
    narrow, other, wide = Model(), Model(), Model(most=1)
    async with Batcher([narrow, other], wide) as batcher:
        for value in (10, 11, 12):
            await batcher.encode(pixels(value))
    assert wide.batches == [[10], [11], [12]]
    assert narrow.batches == other.batches == []


async def test_what_comes_while_the_wide_runner_runs_waits_and_is_shared_out() -> None:
    narrow, other, wide = Model(), Model(), Model(most=1)
    async with Batcher([narrow, other], wide) as batcher:
        wide.gate.clear()
        held = asyncio.create_task(batcher.encode(pixels(1)))
        await asyncio.to_thread(wide.entered.wait, 10)
        tasks = await waiting(batcher, range(10, 18))
        assert not narrow.batches
        assert not other.batches
        # Both begin before either goes on, so that each takes its part of all eight.
        narrow.gate.clear()
        other.gate.clear()
        wide.gate.set()
        await asyncio.to_thread(narrow.entered.wait, 10)
        await asyncio.to_thread(other.entered.wait, 10)
        narrow.gate.set()
        other.gate.set()
        await asyncio.gather(held, *tasks)
    assert sorted(map(len, narrow.batches + other.batches)) == [4, 4]
    assert wide.batches == [[1]]


async def test_side_by_side_one_runner_that_is_stuck_does_not_stop_the_other() -> None:
    stuck, free = Model(), Model()
    async with Batcher([stuck, free]) as batcher:
        stuck.gate.clear()
        free.gate.clear()
        tasks = [asyncio.create_task(batcher.encode(pixels(value))) for value in (1, 2)]
        for model in (stuck, free):
            await asyncio.to_thread(model.entered.wait, 10)
        free.gate.set()
        for value in range(10, 15):
            await batcher.encode(pixels(value))
        assert [value for batch in free.batches for value in batch][1:] == [10, 11, 12, 13, 14]
        stuck.gate.set()
        await asyncio.gather(*tasks)


async def test_a_bulk_load_of_one_client_does_not_stand_before_a_search_of_another() -> None:
    model = Model(most=4)
    async with Batcher([model]) as batcher:
        held = await hold(batcher, model)
        bulk = await waiting(batcher, range(20, 40), Caller("crowd", "bulk"))
        search = await waiting(batcher, [10], Caller("shop"))
        model.gate.set()
        await asyncio.gather(held, *bulk, *search)
    assert model.batches[1] == [10]  # nor does any of it make the search's own run longer


@pytest.mark.parametrize(
    ("brief", "batches"),
    [(0.0, [[1], [10], [20], [21], [22], [23]]), (60.0, [[1], [10], [20, 21, 22, 23]])],
    ids=["an entry takes longer than a brief run", "several entries fit in a brief run"],
)
async def test_while_searches_come_a_run_of_bulk_work_is_brief(
    monkeypatch: pytest.MonkeyPatch, brief: float, batches: list[list[int]]
) -> None:
    monkeypatch.setattr(batcher_module, "_BRIEF_SECONDS", brief)
    model = Model(most=4)
    async with Batcher([model]) as batcher:
        held = await hold(batcher, model)
        bulk = await waiting(batcher, range(20, 24), Caller("crowd", "bulk"))
        search = await waiting(batcher, [10], Caller("shop"))
        model.gate.set()
        await asyncio.gather(held, *bulk, *search)
    assert model.batches == batches


async def test_where_no_search_came_lately_bulk_work_fills_its_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batcher_module, "_BRIEF_SECONDS", 0.0)
    model = Model(most=4)
    async with Batcher([model]) as batcher:
        held = await hold(batcher, model, Caller("crowd", "bulk"))
        bulk = await waiting(batcher, range(20, 28), Caller("crowd", "bulk"))
        model.gate.set()
        await asyncio.gather(held, *bulk)
    assert model.batches == [[1], [20, 21, 22, 23], [24, 25, 26, 27]]


async def test_where_each_lane_has_runners_of_its_own_a_search_waits_for_no_bulk_work() -> None:
    model, for_bulk = Model(), Model()
    async with Batcher([model]) as interactive, Batcher([for_bulk], gives_way=True) as bulk:
        lanes = Lanes(interactive, bulk)
        for_bulk.gate.clear()
        held = asyncio.create_task(lanes.encode(pixels(1), Caller("crowd", "bulk")))
        await asyncio.to_thread(for_bulk.entered.wait, 10)
        assert (await lanes.encode(pixels(10), Caller("shop"))).embedding.tolist() == [10.0]
        assert not held.done()
        for_bulk.gate.set()
        assert (await held).embedding.tolist() == [1.0]
    assert (model.batches, for_bulk.batches) == ([[10]], [[1]])
