"""What is kept of vectors, and work that is shared while it is under way."""

from __future__ import annotations

import asyncio
import gc
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from server.batching.vector_cache import VectorCache
from server.errors import EncoderFailed

pytestmark = pytest.mark.anyio

LARGE = 100_000


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


async def joined(cache: Cache, work: Work, count: int, key: str = "key") -> list[asyncio.Task[Any]]:
    tasks = [asyncio.create_task(cache.join(key, work)) for _ in range(count)]
    for _ in range(3):
        await asyncio.sleep(0)
    return tasks


def test_the_bytes_stay_within_their_bound_and_what_was_asked_for_longest_ago_goes() -> None:
    cache = Cache(LARGE)
    first = value(1000)
    cache.put("first", first)
    for number in range(100):
        cache.put(number, value(1000))
        assert cache.bytes <= LARGE
        assert cache.get("first") is first  # asked for again and again, so it stays
    assert cache.get(0) is None
    assert cache.get(99) is not None
    assert cache.bytes > LARGE // 2
    assert cache.hits == 101


def test_no_memory_keeps_nothing_and_what_is_too_large_is_left_out() -> None:
    for cache in (Cache(0), Cache(1000)):
        cache.put("large", value(1000))
        assert cache.get("large") is None
        assert cache.bytes == 0


async def test_equal_requests_in_flight_are_computed_once() -> None:
    cache, work = Cache(LARGE), Work()
    tasks = await joined(cache, work, 5)
    work.gate.set()
    assert await asyncio.gather(*tasks) == ["made"] * 5
    assert (work.began, cache.made, cache.joined) == (1, 1, 4)
    assert await cache.join("key", work) == "made"  # that flight is over: this is another one
    assert work.began == 2


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
    task = asyncio.create_task(cache.join("key", work))
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
