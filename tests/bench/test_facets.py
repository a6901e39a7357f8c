"""The bench of counts beside a search: it fills what it says, and counts all of it."""

from __future__ import annotations

import pytest

from bench import facets
from tests.support.databases import run_sql


@pytest.mark.anyio
async def test_each_line_says_how_many_media_it_counted(database_url: str) -> None:
    space = facets.fill(database_url, 1_000, 8)
    ((active,),) = run_sql(database_url, f"SELECT count(*) FROM {space.table} WHERE active")
    assert active == 980
    _, _, *lines = await facets.measure(database_url, space, 1)
    cells = [line.strip("| ").split(" | ") for line in lines]
    counted = {name: int(total.replace(",", "")) for name, total, _ in cells}
    assert len(counted) == len(facets.LINES) + 1
    assert counted["the total alone"] == counted["ten attributes"] == active
    assert counted["five attributes, by product"] == active // 2
    assert 0 < counted["five attributes, filter: half of the prices"] < active
    assert 0 < counted["one attribute, over matches"] < active
    assert counted["an exact search"] == 24
