"""How much waits, and for how long: of each lane, without those whose callers have left."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from server.batching.batcher import Batcher, Lanes
from server.batching.fair_queue import Caller, FairQueue
from server.batching.threads import Pool
from server.batching.waiting import Waiting, waits
from tests.support.stand_ins import Model

pytestmark = pytest.mark.anyio

BULK = Caller("acme", "bulk")
NONE = Waiting()


@dataclass(frozen=True)
class Entry:
    queued_at: float
    answer: asyncio.Future[Any]


async def test_the_oldest_of_all_clients_says_how_long_a_lane_has_waited() -> None:
    future = asyncio.get_running_loop().create_future
    queue: FairQueue[Entry] = FairQueue()
    assert waits(queue, 100.0) == {"interactive": NONE, "bulk": NONE}
    for client, at in (("a", 95.0), ("b", 90.0), ("a", 97.0)):
        queue.add(Entry(at, future()), Caller(client))
    queue.add(Entry(10.0, future()), BULK)
    assert waits(queue, 100.0) == {"interactive": Waiting(3, 10.0), "bulk": Waiting(1, 90.0)}


async def test_who_has_left_does_not_wait() -> None:
    future = asyncio.get_running_loop().create_future
    queue: FairQueue[Entry] = FairQueue()
    left, here = Entry(1.0, future()), Entry(9.0, future())
    for one in (left, here):
        queue.add(one, Caller())
    left.answer.cancel()
    assert waits(queue, 10.0)["interactive"] == Waiting(1, 1.0)


async def test_a_batcher_says_what_waits_and_for_how_long_it_has_run() -> None:
    model, for_bulk = Model(), Model()
    async with Batcher([model]) as interactive, Batcher([for_bulk]) as bulk:
        lanes = Lanes(interactive, bulk)
        assert (lanes.waits(), lanes.longest_run()) == ({"interactive": NONE, "bulk": NONE}, 0.0)
        model.gate.clear()
        given = np.zeros((2, 2, 3), np.uint8)
        first = asyncio.create_task(lanes.encode(given))
        await asyncio.to_thread(model.entered.wait, 10)
        second = asyncio.create_task(lanes.encode(given))
        while not interactive.waiting:
            await asyncio.sleep(0)
        waiting = lanes.waits()
        assert (waiting["interactive"].count, waiting["bulk"]) == (1, NONE)
        assert lanes.longest_run() >= waiting["interactive"].age > 0
        model.gate.set()
        await asyncio.gather(first, second)
        while lanes.longest_run():  # the answer comes just before the end of the run
            await asyncio.sleep(0.001)
        assert lanes.waits()["interactive"] == NONE


async def test_threads_say_what_waits_for_them() -> None:
    pool, gate, entered = Pool(1, name="test"), threading.Event(), threading.Event()

    def hold() -> None:
        entered.set()
        gate.wait(10)

    holding = asyncio.create_task(pool.run(hold, Caller()))
    await asyncio.to_thread(entered.wait, 10)
    assert pool.waits()["bulk"] == NONE
    waiting = asyncio.create_task(pool.run(lambda: None, BULK))
    while not pool.waiting:
        await asyncio.sleep(0)
    found = pool.waits()
    assert (found["interactive"], found["bulk"].count) == (NONE, 1)
    assert found["bulk"].age > 0
    gate.set()
    await asyncio.gather(holding, waiting)
    await asyncio.to_thread(pool.close)
