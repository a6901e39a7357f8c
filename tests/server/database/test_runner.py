"""Work on the pool's connections, against a real PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection
from psycopg.rows import scalar_row

from server.database import outcome
from server.database.pool import open_pool
from server.database.runner import Runner
from server.errors import BadParameter, CatalogueConflict, CatalogueReadOnly, CatalogueUnavailable, OutcomeUnknown
from tests.support.databases import database_of, in_database, run_sql
from tests.support.process import PATIENCE
from tests.support.traces import below, named, traced

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


async def test_a_write_on_a_connection_that_became_read_only_is_run_once_more_on_a_new_one(
    runner: Runner, database_url: str
) -> None:
    async def work(connection: AsyncConnection[Any]) -> int:
        return (await connection.execute("CREATE TABLE IF NOT EXISTS written ()")).rowcount

    def allow(only: str) -> None:
        name = database_of(database_url)
        run_sql(
            in_database(database_url, "postgres"), f'ALTER DATABASE "{name}" SET default_transaction_read_only = {only}'
        )

    await runner._pool.wait()
    allow("on")
    await runner._pool.drain()
    for _ in range(2):
        with pytest.raises(CatalogueReadOnly):
            await runner.write(work)
    assert await runner.fetch(b"SELECT 1", {}, scalar_row) == [1]
    allow("off")
    async with asyncio.timeout(PATIENCE):
        while True:
            with contextlib.suppress(CatalogueReadOnly):
                await runner.write(work)
                break
            await asyncio.sleep(0.1)
    assert await runner.fetch(b"SELECT count(*) FROM written", {}, scalar_row) == [0]


async def test_what_a_request_may_have_written_is_known_while_it_runs(runner: Runner) -> None:
    async def write(connection: AsyncConnection[Any]) -> None:
        assert writes.possible
        await connection.execute("SELECT pg_sleep(60)")

    async def fail(connection: AsyncConnection[Any]) -> None:
        raise psycopg.errors.CheckViolation

    with outcome.watched() as writes:
        with pytest.raises(BadParameter):
            await runner.write(fail)
        assert not writes.possible
        task = asyncio.create_task(runner.write(write))
        while not writes.possible:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert writes.possible
    with outcome.watched() as writes, pytest.raises(OutcomeUnknown):
        await runner.write(lambda connection: connection.execute(SUICIDE))
    assert writes.possible


async def test_conditions_beyond_postgresqls_stack_are_the_callers_fault(runner: Runner) -> None:
    """And not those of a database that cannot be reached."""
    many = " && ".join(["(1 == 1)"] * 50_000)
    with pytest.raises(BadParameter, match="more conditions"):
        await runner.fetch(b"SELECT %(many)s::jsonpath", {"many": many}, scalar_row)


# --- traces ----------------------------------------------------------------------------------------------------------


async def test_a_trace_shows_each_connection_that_work_waited_for_and_what_it_failed_with(runner: Runner) -> None:
    deaths = iter([True, False])

    async def work(connection: AsyncConnection[Any]) -> None:
        await connection.execute(SUICIDE if next(deaths) else b"SELECT 1")

    async def wrong(connection: AsyncConnection[Any]) -> None:
        await connection.execute("SELECT %s::int", ["a secret"])

    with traced() as traces:
        with traces.request("request"):
            await runner.read(work, "reading")
            with pytest.raises(BadParameter):
                await runner.write(wrong, "writing")
        spans = traces.spans(6)
    reading, writing = named(spans, "SQL reading"), named(spans, "SQL writing")
    assert below(spans, reading) == ["connection", "connection"]
    assert below(spans, writing) == ["connection"]
    assert (reading.kind, reading.attributes, reading.failed) == ("client", {"db.system.name": "postgresql"}, False)
    assert (writing.attributes["error.type"], writing.failed) == ("bad_parameter", True)
    assert "secret" not in writing.said


async def test_work_that_gets_no_connection_shows_that_it_waited_for_one_in_vain(database_url: str) -> None:
    async def work(connection: AsyncConnection[Any]) -> None:
        await connection.execute(b"SELECT 1")

    async with open_pool(database_url, min_size=1, max_size=1, timeout=30) as pool, pool.connection():
        with traced() as traces:
            with traces.request("request"), pytest.raises(CatalogueUnavailable):
                await Runner(pool).read(work, "reading", patience=0.01)
            spans = traces.spans(2)
    assert named(spans, "SQL reading").failed
    assert below(spans, named(spans, "SQL reading")) == []
