"""Connecting, cut short."""

from __future__ import annotations

import asyncio

import pytest
from psycopg import AsyncConnection

from server.database.connecting import connected
from tests.support.databases import run_sql

pytestmark = pytest.mark.anyio

OTHERS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


async def test_nothing_of_a_cancelled_one_stays_open(bare_database_url: str) -> None:
    kept = []
    for turn in range(60):  # cut off at every step of the way: a connection here takes about 5 ms
        task = asyncio.ensure_future(connected(AsyncConnection, conninfo=bare_database_url))
        await asyncio.sleep(turn / 8_000)
        task.cancel()
        kept.append(task)  # and with it its exception, as a record of a log keeps one
    ended = await asyncio.gather(*kept, return_exceptions=True)
    for one in ended:
        if isinstance(one, AsyncConnection):
            await one.close()
    assert any(isinstance(one, asyncio.CancelledError) for one in ended)

    loop = asyncio.get_running_loop()
    patience = loop.time() + 10  # PostgreSQL takes a moment to see that one has gone
    while (open_yet := run_sql(bare_database_url, OTHERS)[0][0]) and loop.time() < patience:
        await asyncio.sleep(0.1)
    assert open_yet == 0
