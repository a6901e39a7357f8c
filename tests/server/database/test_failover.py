"""A failover from a primary to its standby, with real servers of PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection
from psycopg.rows import scalar_row

from server.database.pool import open_pool
from server.database.runner import Runner
from server.errors import CatalogueReadOnly, CatalogueUnavailable
from server.postgres.server import EmbeddedPostgres
from tests.support.databases import discard, run_sql
from tests.support.process import PATIENCE
from tests.support.standby import Standby, follow, hosts_url, kill

pytestmark = pytest.mark.anyio


@pytest.fixture
def primary(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    postgres = EmbeddedPostgres(tmp_path / "primary", extra_settings=["fsync=off"])
    try:
        run_sql(postgres.start(), "CREATE EXTENSION vector")
        run_sql(postgres.url, "CREATE TABLE notes (note text PRIMARY KEY)")
        yield postgres
    finally:
        discard(postgres)


@pytest.fixture
def standby(primary: EmbeddedPostgres, tmp_path: Path) -> Iterator[Standby]:
    with Standby(primary, tmp_path / "standby", extra_settings=["fsync=off"]) as standby:
        yield standby


async def write(runner: Runner, note: str) -> None:
    async def insert(connection: AsyncConnection[Any]) -> None:
        await connection.execute("INSERT INTO notes VALUES (%s) ON CONFLICT DO NOTHING", [note])

    await runner.write(insert)


async def notes(runner: Runner) -> set[str]:
    return set(await runner.fetch(b"SELECT note FROM notes", {}, scalar_row))


async def until_written(runner: Runner, note: str) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            with contextlib.suppress(CatalogueUnavailable):
                return await write(runner, note)
            await asyncio.sleep(0.05)


async def test_with_a_url_of_both_servers_writes_go_to_the_one_that_takes_them(
    primary: EmbeddedPostgres, standby: Standby
) -> None:
    url = hosts_url(primary, standby.postgres, target_session_attrs="read-write")
    async with open_pool(url, min_size=2, max_size=4, timeout=1.0) as pool:
        runner = Runner(pool)
        await write(runner, "before")
        standby.catch_up()
        await asyncio.to_thread(kill, primary)
        with pytest.raises(CatalogueUnavailable):
            await write(runner, "meanwhile")
        await asyncio.to_thread(standby.promote)
        await until_written(runner, "after")
        assert await notes(runner) == {"before", "after"}
        assert {row[0] for row in run_sql(standby.url, "SELECT note FROM notes")} == {"before", "after"}


async def test_a_pool_whose_server_became_a_standby_still_reads_and_writes_again_after_its_promotion(
    primary: EmbeddedPostgres, standby: Standby
) -> None:
    """As behind an address that moves: what answers there takes no writes for a while."""
    async with open_pool(standby.url, min_size=2, max_size=4, timeout=PATIENCE) as pool:
        runner = Runner(pool)
        await pool.wait()
        for _ in range(3):
            with pytest.raises(CatalogueReadOnly):
                await write(runner, "too early")
        assert await notes(runner) == set()
        await asyncio.to_thread(standby.promote)
        await until_written(runner, "after")
        assert await notes(runner) == {"after"}


async def test_a_server_that_is_demoted_is_left(primary: EmbeddedPostgres, standby: Standby) -> None:
    url = hosts_url(primary, standby.postgres, target_session_attrs="read-write")
    async with open_pool(url, min_size=2, max_size=4, timeout=PATIENCE) as pool:
        runner = Runner(pool)
        await write(runner, "before")
        standby.catch_up()
        await asyncio.to_thread(primary.close)
        await asyncio.to_thread(standby.promote)
        follow(primary, standby.postgres)
        await asyncio.to_thread(primary.start)
        await until_written(runner, "after")
        with psycopg.connect(standby.url) as connection:
            assert connection.execute("SELECT count(*) FROM notes").fetchone() == (2,)
