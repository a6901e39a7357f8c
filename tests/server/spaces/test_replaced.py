"""A media whose picture is replaced while it is embedded for another space never gets the earlier one's vector."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from server.spaces.backfill import Backfill
from tests.support.catalogue import D
from tests.support.databases import run_sql
from tests.support.house import LONG, House, open_house, picture
from tests.support.spaces import register_new

pytestmark = pytest.mark.anyio


@pytest.fixture
async def house(database_url: str, tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(database_url, tmp_path / "media") as house:
        yield house


async def test_a_vector_of_the_picture_before_is_not_written(house: House) -> None:
    await house.librarian.put("acme", "m", "p", picture(1), within=LONG)
    other = register_new(house.url)
    backfill = Backfill(house.pool, other, house.embedder, house.store, at_once=1)
    fetch, fetched, go_on = house.store.get, asyncio.Event(), asyncio.Event()

    async def held(key: str) -> bytes:
        data = await fetch(key)
        fetched.set()
        await go_on.wait()
        return data

    house.store.get = held  # type: ignore[method-assign]
    filling = asyncio.create_task(backfill.fill(["m"]))
    await fetched.wait()
    house.store.get = fetch  # type: ignore[method-assign]
    await house.librarian.put("acme", "m", "p", picture(2), within=LONG)
    go_on.set()
    await filling
    assert run_sql(house.url, f"SELECT count(*) FROM {other.table}") == [(0,)]
    await backfill.fill(["m"])
    (stored,) = run_sql(house.url, f"SELECT embedding::vector::real[] FROM {other.table}")
    assert list(stored[0]).index(1.0) == 2 % D
