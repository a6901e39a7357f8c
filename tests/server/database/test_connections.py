"""Single connections and the pool, against a real PostgreSQL."""

from __future__ import annotations

import psycopg
import pytest

from server.database.migrations import migrate
from server.database.pool import open_pool
from server.errors import DatabaseUnusable
from tests.support.process import until


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://someone:hunter2@127.0.0.1:1/nothing",
        "postgresql://someone:hunter2@@127.0.0.1:what/nothing?x=hunter2",
        "host=127.0.0.1 port=1 password=hunter2",
        "hunter2",
    ],
)
def test_a_database_out_of_reach_is_refused_without_the_password(url: str) -> None:
    with pytest.raises(DatabaseUnusable) as refusal:
        migrate(url)
    assert "hunter2" not in str(refusal.value)


@pytest.mark.anyio
async def test_connections_of_the_pool_know_vectors_and_make_custom_plans(database_url: str) -> None:
    async with open_pool(database_url, min_size=1, max_size=1, timeout=10) as pool, pool.connection() as connection:
        cursor = await connection.execute("SELECT '[1,2]'::halfvec, current_setting('plan_cache_mode')")
        row = await cursor.fetchone()
    assert row is not None
    assert row[0].to_list() == [1.0, 2.0]
    assert row[1] == "force_custom_plan"


@pytest.mark.anyio
async def test_a_connection_that_was_broken_is_replaced_before_it_is_lent(database_url: str) -> None:
    async with open_pool(database_url, min_size=2, max_size=2, timeout=30) as pool:
        await pool.wait()
        with psycopg.connect(database_url, autocommit=True) as connection:
            others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            assert connection.execute(f"SELECT count(pg_terminate_backend(pid)) {others}").fetchone() == (2,)
            # A process that is to end informs its client first, and leaves the list after that.
            until(lambda: connection.execute(f"SELECT count(*) {others}").fetchone() == (0,))
        for _ in range(4):
            async with pool.connection() as lent:
                await lent.execute("SELECT 1")
