"""Turns of writes of one thing."""

from __future__ import annotations

import asyncio

import pytest

from server.catalogue.turns import Turns
from server.errors import CatalogueBusy

pytestmark = pytest.mark.anyio


async def test_so_many_are_let_in_at_once_for_each_thing_and_nothing_is_kept_of_it() -> None:
    turns, inside, most = Turns(2, patience=10.0), {"a": 0, "b": 0}, {"a": 0, "b": 0}

    async def work(thing: str) -> None:
        async with turns.turn(thing):
            inside[thing] += 1
            most[thing] = max(most[thing], inside[thing])
            await asyncio.sleep(0)
            inside[thing] -= 1

    await asyncio.gather(*(work(thing) for thing in "aabaabaab"))
    assert most == {"a": 2, "b": 2}
    assert len(turns) == 0


async def test_who_waits_too_long_is_refused_and_who_leaves_takes_no_turn() -> None:
    turns, done = Turns(1, patience=0.05), asyncio.Event()

    async def hold() -> None:
        async with turns.turn("product"):
            await done.wait()

    holding = asyncio.create_task(hold())
    await asyncio.sleep(0)
    with pytest.raises(CatalogueBusy):
        async with turns.turn("product"):
            raise AssertionError("there was no room")
    leaving = asyncio.create_task(hold())
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.wait({leaving})
    async with turns.turn("another"):
        assert len(turns) == 2
    done.set()
    await holding
    async with turns.turn("product"):
        assert len(turns) == 1
    assert len(turns) == 0
