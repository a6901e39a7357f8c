"""Work on the pool's connections, against a real PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection
from psycopg.rows import scalar_row

from server.database.pool import open_pool
from server.database.runner import Runner
from server.errors import CatalogueConflict, CatalogueUnavailable, OutcomeUnknown

pytestmark = pytest.mark.anyio

SUICIDE = b"SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(10)"


@pytest.fixture
async def runner(database_url: str) -> AsyncIterator[Runner]:
    async with open_pool(database_url, min_size=1, max_size=2, timeout=30) as pool:
        yield Runner(pool)


async def test_a_connection_that_dies_under_a_read_is_replaced(runner: Runner) -> None:
    deaths = iter([True, False])

    async def work(connection: AsyncConnection[Any]) -> str:
        if next(deaths):
            await connection.execute(SUICIDE)
        ((found,),) = await (await connection.execute("SELECT 'an answer'")).fetchall()
        return str(found)

    assert await runner.read(work) == "an answer"
    deaths = iter([True, True])
    with pytest.raises(CatalogueUnavailable):
        await runner.read(work)


async def test_a_connection_that_dies_under_a_write_leaves_its_outcome_unknown(runner: Runner) -> None:
    calls = 0

    async def work(connection: AsyncConnection[Any]) -> None:
        nonlocal calls
        calls += 1
        await connection.execute(SUICIDE)

    with pytest.raises(OutcomeUnknown):
        await runner.write(work)
    assert calls == 1


async def test_a_write_that_met_another_is_run_once_more(runner: Runner) -> None:
    calls = 0

    async def work(connection: AsyncConnection[Any]) -> int:
        nonlocal calls
        calls += 1
        if calls in (1, 3, 4):
            raise psycopg.errors.DeadlockDetected if calls == 1 else psycopg.errors.UniqueViolation
        return calls

    assert await runner.write(work) == 2
    with pytest.raises(CatalogueConflict):
        await runner.write(work)
    assert calls == 4


async def test_rows_are_fetched_as_the_factory_makes_them(runner: Runner) -> None:
    statement = b"SELECT generate_series(1, %(count)s)"
    assert await runner.fetch(statement, {"count": 3}, scalar_row) == [1, 2, 3]
