"""The pool after breaks, against a real PostgreSQL. Wherever its library would pause, it pauses for an hour here."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import psycopg_pool
import pytest
from psycopg.conninfo import conninfo_to_dict

from server.database import lent
from server.database.pool import Pool, open_pool
from tests.support.databases import database_of, in_database, run_sql
from tests.support.process import PATIENCE, until
from tests.support.proxy import Proxy

pytestmark = pytest.mark.anyio

OTHERS = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


@pytest.fixture(autouse=True)
def library_that_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psycopg_pool.base.AttemptWithBackoff, "INITIAL_DELAY", 3600.0)


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    async with open_pool(database_url, min_size=2, max_size=8, timeout=PATIENCE) as pool:
        await pool.wait()
        yield pool


@pytest.fixture
async def proxy(database_url: str) -> AsyncIterator[Proxy]:
    with tempfile.TemporaryDirectory(prefix="twinlens-proxy-") as folder:
        async with Proxy(database_url, Path(folder)).running() as proxy:
            yield proxy


@contextmanager
def away(url: str) -> Iterator[None]:
    """The database is away: it lets nobody in, and ends who is in."""
    name = database_of(url)
    with psycopg.connect(in_database(url, "postgres"), autocommit=True) as connection:
        connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        inside = "FROM pg_stat_activity WHERE datname = %s"
        connection.execute(f"SELECT pg_terminate_backend(pid) {inside}", (name,))
        until(lambda: connection.execute(f"SELECT count(*) {inside}", (name,)).fetchone() == (0,))
        try:
            yield
        finally:
            connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')


async def ask(pool: Pool) -> object:
    async with pool.connection() as connection:
        return await (await connection.execute("SELECT 'an answer'")).fetchone()


async def test_connections_know_vectors_and_make_custom_plans(pool: Pool) -> None:
    async with pool.connection() as connection:
        cursor = await connection.execute("SELECT '[1,2]'::halfvec, current_setting('plan_cache_mode')")
        row = await cursor.fetchone()
    assert row is not None
    assert row[0].to_list() == [1.0, 2.0]
    assert row[1] == "force_custom_plan"


async def test_no_caller_gets_a_connection_that_the_server_has_closed(pool: Pool, database_url: str) -> None:
    await asyncio.gather(*(ask(pool) for _ in range(64)))
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(f"SELECT pg_terminate_backend(pid) {OTHERS}")
        # A process that is to end informs its client first, and leaves the list after that.
        until(lambda: connection.execute(f"SELECT count(*) {OTHERS}").fetchone() == (0,))
    assert await asyncio.gather(*(ask(pool) for _ in range(64))) == [("an answer",)] * 64


async def test_callers_who_wait_are_served_as_soon_as_the_database_is_back(pool: Pool, database_url: str) -> None:
    with away(database_url):
        waiting = [asyncio.create_task(ask(pool)) for _ in range(64)]
        await asyncio.sleep(0.5)  # many attempts fail
        assert not any(one.done() for one in waiting)
    assert await asyncio.gather(*waiting) == [("an answer",)] * 64
    assert pool.get_stats()["pool_size"] >= 2


async def test_a_caller_who_gives_up_while_the_database_is_away_leaves_the_pool_whole(
    pool: Pool, database_url: str
) -> None:
    with away(database_url):
        with pytest.raises(psycopg_pool.PoolTimeout):
            async with pool.connection(timeout=0.3):
                pass
        leaving = asyncio.create_task(ask(pool))
        await asyncio.sleep(0.1)
        leaving.cancel()
    assert await asyncio.gather(*(ask(pool) for _ in range(64))) == [("an answer",)] * 64


async def test_connections_are_not_closed_for_being_idle(pool: Pool, database_url: str) -> None:
    run_sql(database_url, f'ALTER DATABASE "{database_of(database_url)}" SET idle_session_timeout = 100')
    await pool.drain()
    assert await ask(pool) == ("an answer",)
    before = run_sql(database_url, f"SELECT pid {OTHERS} ORDER BY pid")
    await asyncio.sleep(0.5)
    assert run_sql(database_url, f"SELECT pid {OTHERS} ORDER BY pid") == before
    assert await ask(pool) == ("an answer",)


async def test_connections_that_have_fallen_silent_are_replaced_before_they_are_lent(proxy: Proxy) -> None:
    async with open_pool(proxy.url, min_size=4, max_size=4, timeout=PATIENCE) as pool:
        await pool.wait()
        for _ in range(2):
            proxy.silence()
            for connection in pool._pool:
                connection.rested_since = float("-inf")
            async with asyncio.timeout(PATIENCE):
                assert await asyncio.gather(*(ask(pool) for _ in range(8))) == [("an answer",)] * 8


async def test_one_silent_connection_stands_for_all_that_rest(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    probes = 0

    async def probe(self: lent.Lent) -> bool:
        nonlocal probes
        probes += 1
        self.pgconn.finish()
        return False

    async with open_pool(proxy.url, min_size=4, max_size=4, timeout=PATIENCE) as pool:
        await pool.wait()
        for connection in pool._pool:
            connection.rested_since = float("-inf")
        monkeypatch.setattr(lent.Lent, "answers", probe)
        assert await ask(pool) == ("an answer",)
    assert probes == 1


async def test_a_statement_of_a_silent_server_ends_and_its_connection_with_it(proxy: Proxy) -> None:
    async with open_pool(proxy.url, min_size=1, max_size=1, timeout=PATIENCE, longest=0.1) as pool:
        async with pool.connection() as connection:
            proxy.silence()
            with pytest.raises(psycopg.OperationalError, match="did not answer"):
                await connection.execute("SELECT 1")
            assert connection.broken
        assert await ask(pool) == ("an answer",)


async def test_attempts_that_hang_are_joined_by_others(proxy: Proxy) -> None:
    """The network loses the first packets; when it is back, no attempt that was begun before needs to succeed."""
    async with open_pool(proxy.url, min_size=1, max_size=1, timeout=3600, longest=0.1) as pool:
        await ask(pool)
        pool._pool[0].rested_since = float("-inf")
        proxy.hold()
        asked = asyncio.create_task(ask(pool))
        await asyncio.sleep(1.0)  # some attempts hang
        proxy.silence()
        proxy.release()
        async with asyncio.timeout(PATIENCE):
            assert await asked == ("an answer",)


async def test_a_pool_is_closed_while_its_database_is_away(pool: Pool, database_url: str) -> None:
    with away(database_url):
        waiting = asyncio.create_task(ask(pool))
        await asyncio.sleep(0.2)
        async with asyncio.timeout(PATIENCE):
            await pool.close()
        with pytest.raises(psycopg_pool.PoolClosed):
            await waiting
    assert not [task for task in asyncio.all_tasks() if "Connector" in repr(task)]


async def test_the_url_is_asked_for_at_each_attempt(database_url: str) -> None:
    urls = iter([*["postgresql://nobody@127.0.0.1:1/nothing"] * 3, *[database_url] * 20])
    async with open_pool(lambda: next(urls), min_size=1, max_size=1, timeout=PATIENCE) as pool:
        assert await ask(pool) == ("an answer",)
    assert conninfo_to_dict(pool.url)["dbname"] == database_of(database_url)


async def test_an_outage_is_two_lines_of_the_log(
    pool: Pool, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with away(database_url):
        waiting = [asyncio.create_task(ask(pool)) for _ in range(16)]
        await asyncio.sleep(0.3)
    await asyncio.gather(*waiting)
    said = [record.getMessage() for record in caplog.records if record.name.startswith("server.")]
    assert [line.split(";")[0].split(" after")[0] for line in said] == ["The database is away", "The database is back"]
