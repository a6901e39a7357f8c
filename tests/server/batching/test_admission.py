"""Who is admitted beside whom: each lane and each client has a share that others cannot take."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from server.batching.admission import PLACES, Admission
from server.batching.fair_queue import Caller, Lane
from server.errors import Overloaded

pytestmark = pytest.mark.anyio

LONG = 60.0

SHOP = Caller("shop")
CROWD = Caller("crowd")


def bulk(client: str) -> Caller:
    return Caller(client, "bulk")


class Office:
    """An admission whose work goes on until it is let go."""

    def __init__(self) -> None:
        self.admission = Admission("Picture")
        self._let_go = asyncio.Event()
        self._calls: list[asyncio.Task[Any]] = []

    async def admit(self, caller: Caller, count: int = 1, *, within: float = LONG, weight: float | None = None) -> bool:
        """Ask for so many; whether they were admitted. They stay inside."""

        async def wait(one: int) -> int:
            await self._let_go.wait()
            return one

        work = self.admission.each(
            wait, range(count), within=within, caller=caller, weight=count if weight is None else weight
        )
        call = asyncio.create_task(work)
        await asyncio.sleep(0)
        if not call.done():
            self._calls.append(call)
            return True
        with pytest.raises(Overloaded):
            await call
        return False

    async def learn(self, seconds: float) -> None:
        """Have one picture take so long, so that the pace is known."""

        async def take(_: int) -> None:
            await asyncio.sleep(seconds)

        await self.admission.each(take, [0], within=LONG, caller=SHOP, weight=1.0)

    async def close(self) -> None:
        self._let_go.set()
        await asyncio.gather(*self._calls)
        assert self.admission.inside == 0


async def test_bulk_calls_never_take_the_places_of_searches() -> None:
    office = Office()
    admitted = [await office.admit(bulk("crowd"), 256) for _ in range(10)]
    assert admitted == [True] * 4 + [False] * 6
    assert [await office.admit(SHOP) for _ in range(100)] == [True] * 100
    assert await office.admit(CROWD)  # the client's own searches have places too
    await office.close()


@pytest.mark.parametrize("lane", ["interactive", "bulk"])
async def test_one_client_gets_half_of_a_lane_and_leaves_places_to_the_next(lane: Lane) -> None:
    office = Office()
    crowd, shop = Caller("crowd", lane), Caller("shop", lane)
    assert await office.admit(crowd, PLACES // 2)
    assert not await office.admit(crowd)
    assert await office.admit(shop, PLACES // 4)
    assert not await office.admit(shop)
    assert await office.admit(Caller("third", lane), PLACES // 8)
    await office.close()


async def test_places_that_were_given_back_can_be_taken_again() -> None:
    office = Office()
    for _ in range(3):
        assert await office.admit(CROWD, PLACES // 2)
        assert not await office.admit(CROWD)
        await office.close()
        office._let_go.clear()
        office._calls.clear()


async def test_a_call_larger_than_any_share_is_admitted_where_its_lane_is_empty() -> None:
    office = Office()
    assert await office.admit(SHOP)
    assert await office.admit(bulk("crowd"), PLACES + 1)
    assert not await office.admit(bulk("other"))
    assert await office.admit(SHOP)
    await office.close()


async def test_the_work_of_a_crowd_is_not_counted_against_a_client_who_goes_before_it() -> None:
    office = Office()
    await office.learn(0.01)
    assert await office.admit(CROWD, 1000)  # about ten seconds of work
    assert not await office.admit(CROWD, within=1.0)
    assert await office.admit(SHOP, within=1.0)  # after one picture of the crowd's at most
    assert not await office.admit(Caller("third"), 500, within=1.0)
    await office.close()


async def test_a_client_of_large_pictures_counts_by_their_weight() -> None:
    office = Office()
    await office.learn(0.01)
    assert await office.admit(CROWD, 10, weight=1000.0)
    assert not await office.admit(SHOP, within=0.5)  # one of the crowd's pictures takes a second
    assert await office.admit(SHOP, within=5.0)
    await office.close()


async def test_bulk_work_waits_for_searches_and_is_refused_where_that_takes_too_long() -> None:
    office = Office()
    await office.learn(0.01)
    assert await office.admit(CROWD, 1000)
    assert not await office.admit(bulk("shop"), within=1.0)
    assert await office.admit(bulk("shop"), within=LONG)
    await office.close()
