"""Threads for blocking work: fair, and never done for a caller who has left."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterator
from threading import Event
from typing import Any

import pytest

from server.batching.fair_queue import Caller
from server.batching.priority import BULK_NICENESS
from server.batching.threads import Pool
from server.errors import NotAPicture, NotReady

pytestmark = pytest.mark.anyio


@pytest.fixture
def pool() -> Iterator[Pool]:
    pool = Pool(1, name="test")
    yield pool
    pool.close()


@pytest.fixture
async def held(pool: Pool) -> AsyncIterator[Any]:
    """Its only thread is busy until the event is set."""
    gate, entered = threading.Event(), threading.Event()

    def hold() -> None:
        entered.set()
        gate.wait(10)

    holding = asyncio.create_task(pool.run(hold, Caller()))
    await asyncio.to_thread(entered.wait, 10)
    yield gate
    gate.set()
    await holding


async def begin(pool: Pool, ran: list[Any], name: int | str, caller: Caller) -> Any:
    before = pool.waiting
    task = asyncio.create_task(pool.run(lambda: ran.append(name), caller))
    while pool.waiting == before:
        await asyncio.sleep(0)
    return task


async def test_what_the_work_gives_or_raises_is_its_callers(pool: Pool) -> None:
    def refuse() -> None:
        raise NotAPicture

    assert await pool.run(lambda: 42, Caller()) == 42
    with pytest.raises(NotAPicture):
        await pool.run(refuse, Caller())
    assert await pool.run(threading.get_ident, Caller()) != threading.get_ident()


async def test_a_call_with_many_jobs_holds_up_nobody_else(pool: Pool, held: Event) -> None:
    ran: list[Any] = []
    tasks = [await begin(pool, ran, number, Caller("crowd", "bulk")) for number in range(20)]
    tasks.append(await begin(pool, ran, "lone", Caller("other")))
    held.set()
    await asyncio.gather(*tasks)
    assert ran == ["lone", *range(20)]


async def test_work_of_a_caller_who_left_is_never_begun(pool: Pool, held: Event) -> None:
    ran: list[Any] = []
    leaver = await begin(pool, ran, "leaver", Caller())
    stayer = await begin(pool, ran, "stayer", Caller())
    leaver.cancel()
    held.set()
    await stayer
    assert ran == ["stayer"]


async def test_closing_does_what_still_waits_and_takes_nothing_more(pool: Pool, held: Event) -> None:
    ran: list[Any] = []
    tasks = [await begin(pool, ran, number, Caller()) for number in range(3)]
    held.set()
    await asyncio.to_thread(pool.close)
    await asyncio.gather(*tasks)
    assert ran == [0, 1, 2]
    with pytest.raises(NotReady):
        await pool.run(lambda: 1, Caller())


@pytest.mark.parametrize("gives_way", [False, True])
async def test_only_threads_that_give_way_have_a_lower_priority(gives_way: bool) -> None:
    pool = Pool(1, name="test", gives_way=gives_way)
    niceness = await pool.run(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id()), Caller())
    await asyncio.to_thread(pool.close)
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert niceness == (BULK_NICENESS if gives_way and own < BULK_NICENESS else own)
