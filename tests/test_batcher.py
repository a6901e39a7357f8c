"""The batcher with a stand-in for the model: what waits becomes batches, and each entry gets one answer."""

import asyncio
import threading

import numpy as np
import pytest

from server.batcher import Batcher
from server.errors import EncoderFailed, NotReady

pytestmark = pytest.mark.anyio


def pixels(value):
    return np.full((2, 2, 3), value, np.uint8)


class Model:
    """Gives each picture its first sample as the vector; may be held up, and fails on a poisoned picture."""

    def __init__(self):
        self.batches = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def __call__(self, batch):
        self.entered.set()
        assert self.gate.wait(10)
        self.batches.append([int(one[0, 0, 0]) for one in batch])
        if 66 in self.batches[-1]:
            raise EncoderFailed()
        return batch[:, 0, 0, :1].astype(np.float32)


async def hold(batcher, model):
    """Occupy the model with one picture, so that what comes now has to wait."""
    model.gate.clear()
    held = asyncio.create_task(batcher.encode(pixels(1)))
    await asyncio.to_thread(model.entered.wait, 10)
    return held


async def test_a_lone_picture_runs_at_once():
    model = Model()
    async with Batcher(model) as batcher:
        answer = await batcher.encode(pixels(9))
    assert answer.embedding.tolist() == [9.0]
    assert answer.batch == 1


async def test_what_waits_runs_as_one_batch_and_each_gets_its_own_vector():
    model = Model()
    async with Batcher(model, max_batch=8) as batcher:
        held = await hold(batcher, model)
        waiting = [asyncio.create_task(batcher.encode(pixels(value))) for value in range(10, 15)]
        while batcher.waiting < 5:
            await asyncio.sleep(0)
        model.gate.set()
        answers = await asyncio.gather(*waiting)
        await held
    assert model.batches == [[1], [10, 11, 12, 13, 14]]
    assert [answer.embedding.tolist() for answer in answers] == [[10.0], [11.0], [12.0], [13.0], [14.0]]


async def test_a_batch_never_exceeds_its_bound():
    model = Model()
    async with Batcher(model, max_batch=4) as batcher:
        held = await hold(batcher, model)
        waiting = [asyncio.create_task(batcher.encode(pixels(value))) for value in range(10, 20)]
        while batcher.waiting < 10:
            await asyncio.sleep(0)
        model.gate.set()
        await asyncio.gather(held, *waiting)
    assert [len(batch) for batch in model.batches] == [1, 4, 4, 2]


async def test_a_poison_picture_fails_alone():
    model = Model()
    async with Batcher(model) as batcher:
        held = await hold(batcher, model)
        waiting = [asyncio.create_task(batcher.encode(pixels(value))) for value in (10, 66, 12)]
        while batcher.waiting < 3:
            await asyncio.sleep(0)
        model.gate.set()
        first, poison, last = await asyncio.gather(*waiting, return_exceptions=True)
        await held
    assert first.embedding.tolist() == [10.0]
    assert last.embedding.tolist() == [12.0]
    assert isinstance(poison, EncoderFailed)


async def test_a_picture_whose_caller_has_left_is_never_encoded():
    model = Model()
    async with Batcher(model) as batcher:
        held = await hold(batcher, model)
        leaver = asyncio.create_task(batcher.encode(pixels(50)))
        stayer = asyncio.create_task(batcher.encode(pixels(51)))
        while batcher.waiting < 2:
            await asyncio.sleep(0)
        leaver.cancel()
        model.gate.set()
        await asyncio.gather(held, stayer)
    assert model.batches == [[1], [51]]


async def test_closing_answers_what_still_waits_and_takes_nothing_more():
    model = Model()
    batcher = Batcher(model)
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
