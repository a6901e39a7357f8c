"""What is kept of vectors, and work that is shared while it is under way."""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from server.batching.vector_cache import VectorCache
from server.errors import EncoderFailed

pytestmark = pytest.mark.anyio

LARGE = 100_000
US, THEM = "us", "them"


@dataclass
class Kept:
    embedding: np.ndarray


def value(size: int = 16) -> Kept:
    return Kept(np.zeros(size, np.float32))


class Work:
    """Something that takes as long as the test likes."""

    def __init__(self, error: EncoderFailed | None = None) -> None:
        self.began = 0
        self.ended = 0
        self.gate = asyncio.Event()
        self.error = error

    async def __call__(self) -> str:
        self.began += 1
        await self.gate.wait()
        self.ended += 1
        if self.error:
            raise self.error
        return "made"


Cache = VectorCache[Any, Any, Any]


async def joined(cache: Cache, work: Work, count: int, client: str = "us") -> list[asyncio.Task[Any]]:
    tasks = [asyncio.create_task(cache.join(client, "key", work)) for _ in range(count)]
    for _ in range(3):
        await asyncio.sleep(0)
    return tasks


def test_the_bytes_stay_within_their_bound_and_what_was_asked_for_longest_ago_goes() -> None:
    cache = Cache(LARGE)
    first = value(1000)
    cache.put(US, "first", first)
    for number in range(100):
        cache.put(US, number, value(1000))
        assert cache.bytes <= LARGE
        assert cache.get(US, "first") is first  # asked for again and again, so it stays
    assert cache.get(US, 0) is None
    assert cache.get(US, 99) is not None
    assert cache.bytes > LARGE // 2
    assert cache.hits == 101


def test_no_memory_keeps_nothing_and_what_is_too_large_is_left_out() -> None:
    for cache in (Cache(0), Cache(1000)):
        cache.put(US, "large", value(1000))
        assert cache.get(US, "large") is None
        assert cache.bytes == 0


async def test_equal_requests_in_flight_are_computed_once() -> None:
    cache, work = Cache(LARGE), Work()
    tasks = await joined(cache, work, 5)
    work.gate.set()
    assert await asyncio.gather(*tasks) == ["made"] * 5
    assert (work.began, cache.made, cache.joined) == (1, 1, 4)
    assert await cache.join(US, "key", work) == "made"  # that flight is over: this is another one
    assert work.began == 2


# --- clients ---------------------------------------------------------------------------------------------------------

EACH = 16 * 4 + 440


def held(cache: Cache, client: str, keys: Iterable[Any]) -> int:
    """How many of these values are still kept for a client. To ask for them would be to use them."""
    kept = cache._shares[client].kept if client in cache._shares else ()
    return sum(key in kept for key in keys)


def test_what_one_client_has_asked_for_another_does_not_find() -> None:
    cache = Cache(LARGE)
    cache.put(US, "key", value())
    assert cache.get(THEM, "key") is None
    theirs = value()
    cache.put(THEM, "key", theirs)
    assert cache.get(THEM, "key") is theirs
    assert cache.get(US, "key") is not theirs
    assert cache.bytes == 2 * EACH


async def test_equal_requests_of_two_clients_are_computed_twice() -> None:
    cache, ours, theirs = Cache(LARGE), Work(), Work()
    tasks = await joined(cache, ours, 2) + await joined(cache, theirs, 2, THEM)
    ours.gate.set()
    theirs.gate.set()
    await asyncio.gather(*tasks)
    assert (ours.began, theirs.began, cache.made, cache.joined) == (1, 1, 2, 2)


def test_a_client_that_sends_new_things_all_day_drops_its_own_once_it_has_its_share() -> None:
    cache = Cache(100 * EACH)
    for number in range(30):
        cache.put(US, number, value())
    for number in range(1000):
        cache.put(THEM, number, value())
    assert held(cache, US, range(30)) == 30
    assert held(cache, THEM, range(930, 1000)) == 70
    assert cache.bytes == 100 * EACH


def test_a_newcomer_gets_its_share_of_a_cache_that_is_full() -> None:
    cache = Cache(100 * EACH)
    for number in range(100):
        cache.put(US, number, value())
    for number in range(200):
        cache.put(THEM, number, value())
    assert held(cache, US, range(50, 100)) == held(cache, THEM, range(150, 200)) == 50
    for client in map(str, range(98)):
        cache.put(client, "key", value())
    assert (held(cache, US, range(100)), held(cache, THEM, range(200))) == (1, 1)
    assert all(held(cache, client, ["key"]) for client in map(str, range(98)))


def test_a_client_that_asks_for_nothing_any_more_has_no_share_to_defend() -> None:
    now = 0.0
    cache = Cache(100 * EACH, clock=lambda: now)
    for number in range(50):
        cache.put(US, number, value())
        cache.put(THEM, number, value())
    now = 599.0
    cache.put(THEM, "one more", value())
    assert (held(cache, US, range(50)), held(cache, THEM, range(50))) == (50, 49)
    now = 601.0
    for number in range(50, 80):
        cache.put(THEM, number, value())
    assert held(cache, US, range(50)) == 20  # what it had asked for longest ago went
    assert cache.get(US, 49) is not None  # and it is back
    cache.put(THEM, 80, value())
    assert held(cache, US, range(50)) == 20


def test_its_count_of_bytes_and_its_largest_share_are_right_whatever_happens() -> None:
    draw = random.Random(7)
    now = 0.0
    cache = Cache(20 * EACH, clock=lambda: now)
    for _ in range(5000):
        now += draw.choice((0.0, 1.0, 400.0))
        client, key = draw.choice("abcdef"), draw.randrange(12)
        if cache.get(client, key) is None or draw.random() < 0.1:
            cache.put(client, key, value())
        counts = {name: len(share.kept) for name, share in cache._shares.items()}
        assert cache.bytes == EACH * sum(counts.values()) <= 20 * EACH
        assert cache._largest == max(counts.values())
        assert {one: count for count, names in cache._by_count.items() for one in names} == counts


# --- errors, and callers who leave -----------------------------------------------------------------------------------


async def test_an_error_is_everybodys_who_waits() -> None:
    cache, work = Cache(LARGE), Work(EncoderFailed())
    tasks = await joined(cache, work, 2)
    work.gate.set()
    for found in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(found, EncoderFailed)


async def test_one_who_leaves_takes_nothing_from_the_others() -> None:
    cache, work = Cache(LARGE), Work()
    first, second = await joined(cache, work, 2)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    work.gate.set()
    assert await second == "made"
    assert work.ended == 1


async def test_work_that_nobody_waits_for_is_stopped_and_nobody_joins_it() -> None:
    cache, work = Cache(LARGE), Work()
    (only,) = await joined(cache, work, 1)
    only.cancel()
    await asyncio.gather(only, return_exceptions=True)
    (next_one,) = await joined(cache, work, 1)
    work.gate.set()
    assert await next_one == "made"
    assert (work.began, work.ended) == (2, 1)


async def test_work_that_fails_as_it_is_cancelled_is_no_error_that_nobody_looked_at() -> None:
    never_looked_at: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: never_looked_at.append(context))

    async def work() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise EncoderFailed from None
        return "never"

    cache = Cache(LARGE)
    task = asyncio.create_task(cache.join(US, "key", work))
    for _ in range(3):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for _ in range(3):
        await asyncio.sleep(0)
    del task
    gc.collect()
    await asyncio.sleep(0)
    assert not never_looked_at
