"""Limits in use: in one process, and in the database for all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from server.access.exact import ExactLimiter
from server.access.limits import Left, Limiter, LocalLimiter, Wanted, limits_of
from server.database.pool import open_pool
from server.database.runner import Runner
from server.errors import BadParameter
from server.limits import Allowance
from tests.support.databases import run_sql

pytestmark = pytest.mark.anyio

SLOW = Allowance(0.001, 3)
"""Three, and then practically none: what is left does not depend on how long a test takes."""


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def requests(subject: str, count: float = 1, allowance: Allowance = SLOW) -> Wanted:
    return Wanted(subject, "requests", allowance, count)


def admitted(answers: list[Left]) -> bool:
    return not any(one.wait for one in answers)


async def taken(limiter: Limiter, *wanted: Wanted, times: int = 1) -> int:
    """How often it was admitted."""
    return sum([admitted(await limiter.take(wanted)) for _ in range(times)])


def test_limits_that_cannot_be_read_are_refused_with_an_example() -> None:
    with pytest.raises(BadParameter, match="requests=50/100"):
        limits_of("many")


async def test_a_burst_is_admitted_then_the_rate_and_after_the_wait_it_is_again() -> None:
    clock = Clock()
    limiter = LocalLimiter(clock)
    wanted = requests("client a", allowance=Allowance(2, 4))
    assert await taken(limiter, wanted, times=100) == 4
    (refused,) = await limiter.take([wanted])
    clock.now += refused.wait - 0.001
    assert await taken(limiter, wanted) == 0
    clock.now += 0.001
    assert await taken(limiter, wanted, times=100) == 1


async def test_a_flood_gets_its_rate_and_no_more_however_long_it_lasts() -> None:
    clock = Clock()
    limiter = LocalLimiter(clock)
    wanted = requests("client a", allowance=Allowance(10, 10))
    count = 0
    for _ in range(50 * 10 * 20):  # 50 times its limit, for 20 s
        count += await taken(limiter, wanted)
        clock.now += 1 / 500
    assert count in (209, 210)


async def test_subjects_and_kinds_are_apart() -> None:
    limiter = LocalLimiter(Clock())
    assert await taken(limiter, requests("client a"), times=9) == 3
    assert await taken(limiter, requests("client b"), times=9) == 3
    assert await taken(limiter, Wanted("client a", "pictures", SLOW, 1), times=9) == 3


async def test_who_is_refused_by_one_limit_takes_nothing_of_another() -> None:
    limiter = LocalLimiter(Clock())
    key, client = requests("key k"), requests("client c", allowance=Allowance(0.001, 1))
    assert await taken(limiter, key, client, times=9) == 1
    assert await taken(limiter, key, times=9) == 2


async def test_to_need_one_takes_none() -> None:
    limiter = LocalLimiter(Clock())
    look = Wanted("client a", "bytes", SLOW, 0)
    assert await taken(limiter, look, times=9) == 9
    limiter.owe([Wanted("client a", "bytes", SLOW, 3)])
    assert await taken(limiter, look) == 0


async def test_what_is_full_again_is_forgotten_and_made_up_names_fill_no_memory() -> None:
    clock = Clock()
    limiter = LocalLimiter(clock, most=5000)
    for number in range(20_000):
        await limiter.take([requests(f"client {number}", allowance=Allowance(1000, 1))])
        clock.now += 0.01
    assert len(limiter) <= 1024
    for number in range(20_000):
        await limiter.take([requests(f"client {number}")])
    assert len(limiter) <= 5000 + 1024


def test_nobody_inside_leaves_nothing_behind() -> None:
    inside = LocalLimiter().inside
    inside.enter(["client a", "key k"])
    inside.enter(["client a"])
    assert (inside["client a"], inside["key k"], inside["client b"]) == (2, 1, 0)
    inside.leave(["client a", "key k"])
    inside.leave(["client a"])
    assert len(inside) == 0


# --- exact ------------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def exact(url: str, servers: int = 1) -> AsyncIterator[list[ExactLimiter]]:
    """As many servers on one database."""
    async with open_pool(url, min_size=2, max_size=4, timeout=5.0) as pool:
        await pool.wait()
        yield [ExactLimiter(Runner(pool)) for _ in range(servers)]


async def test_two_servers_share_an_exact_limit(database_url: str) -> None:
    async with exact(database_url, 2) as (one, other):
        assert await taken(one, requests("client a"), times=2) == 2
        assert await taken(other, requests("client a"), times=9) == 1
        assert await taken(one, requests("client a")) == 0
        assert await taken(other, requests("client b"), times=9) == 3


async def test_many_at_the_same_moment_get_no_more_than_there_is(database_url: str) -> None:
    async with exact(database_url, 4) as servers:
        wanted = [requests("client a"), requests("key k", allowance=Allowance(0.001, 50))]
        answers = await asyncio.gather(*(servers[number % 4].take(wanted) for number in range(40)))
        assert sum(map(admitted, answers)) == 3
        assert await taken(servers[0], wanted[1], times=60) == 47


async def test_the_database_does_the_same_arithmetic(database_url: str) -> None:
    async with exact(database_url) as (limiter,):
        ten = Wanted("client a", "pictures", SLOW, 10)
        (first,) = await limiter.take([ten])
        assert first.wait == 0
        assert first.left == pytest.approx(-7, abs=0.1)
        (second,) = await limiter.take([ten])
        assert second.wait == pytest.approx(8000, rel=0.01)
        quick = requests("client a", allowance=Allowance(1e9, 1))
        assert await taken(limiter, quick, times=5) == 5  # it is full again at once


async def test_what_was_refused_does_not_reach_the_database_until_it_is_due(database_url: str) -> None:
    async with exact(database_url) as (limiter,):
        wanted = requests("client a")
        assert await taken(limiter, wanted, times=4) == 3
        run_sql(database_url, "DELETE FROM twinlens_rates")
        assert await taken(limiter, wanted, times=9) == 0
        assert await taken(limiter, requests("client a", allowance=Allowance(0.001, 4))) == 1  # a limit that changed


async def test_bytes_that_one_server_received_count_in_the_others(database_url: str) -> None:
    async with exact(database_url, 2) as (one, other):
        look = Wanted("client a", "bytes", SLOW, 0)
        one.owe([Wanted("client a", "bytes", SLOW, 2)])
        one.owe([Wanted("client a", "bytes", SLOW, 2)])
        assert await taken(other, look) == 1
        await one.tell()
        assert await taken(other, look) == 0


async def test_without_its_database_each_counts_its_share_for_itself(database_url: str) -> None:
    async with open_pool(database_url, min_size=1, max_size=1, timeout=5.0) as pool:
        await pool.wait()
        limiter = ExactLimiter(Runner(pool), workers=3)
        run_sql(database_url, "ALTER TABLE twinlens_rates RENAME TO gone")
        assert await taken(limiter, requests("client a"), times=9) == 1
        run_sql(database_url, "ALTER TABLE gone RENAME TO twinlens_rates")


async def test_the_table_forgets_what_is_full(database_url: str) -> None:
    async with exact(database_url) as (limiter,):
        await limiter.take([requests("client a")])
        run_sql(database_url, "INSERT INTO twinlens_rates VALUES ('client b', 'requests', 1000)")
        await limiter._runner.read(limiter._forget)
        assert run_sql(database_url, "SELECT subject FROM twinlens_rates") == [("client a",)]


@pytest.mark.parametrize(
    "limits", ['{"requestsPerSecond": "many"}', '{"requestsPerSecond": 0}', '{"concurrent": null}']
)
def test_limits_in_the_database_are_numbers_above_0(database_url: str, limits: str) -> None:
    with pytest.raises(Exception, match="twinlens_limits_are_numbers"):
        run_sql(database_url, """INSERT INTO twinlens_limits VALUES ('acme', %s)""", (limits,))
