"""The way of an entry into the table: batches, floods, a database that is away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from server.access import trail as trails
from server.access.audit import Entry
from server.access.trail import MOST_WAITING, REFUSED_AT_ONCE, REFUSED_EACH_SECOND, Trail
from server.database.pool import open_pool
from server.database.runner import Runner
from server.errors import CatalogueUnavailable
from tests.support.databases import run_sql

pytestmark = pytest.mark.anyio

DONE = Entry(action="PUT /v1/products/{product_id}", status=200)
REFUSED = Entry(action="DELETE /v1/media/{media_id}", status=401, code="key_missing")


class Away(Runner):
    """A database that is away until it is back."""

    def __init__(self, runner: Runner) -> None:
        super().__init__(runner._pool)
        self.away: type[Exception] | None = CatalogueUnavailable
        self.calls = 0

    async def write(self, *arguments: object, **options: object) -> object:  # type: ignore[override]
        self.calls += 1
        if self.away is not None:
            raise self.away
        return await super().write(*arguments, **options)  # type: ignore[arg-type]


@pytest.fixture
async def runner(database_url: str) -> AsyncIterator[Runner]:
    async with open_pool(database_url, min_size=1, max_size=2, timeout=30) as pool:
        yield Runner(pool)


def counted(url: str) -> list[tuple[str, int, str | None, int, int]]:
    """Action, status and code; in how many rows, and how many they stand for."""
    return run_sql(
        url,
        "SELECT action, status, code, count(*), sum(count) FROM twinlens_audit GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
    )


async def test_entries_are_written_in_batches_and_none_is_left(runner: Runner, database_url: str) -> None:
    trail = Trail(runner, days=1)
    for _ in range(2500):
        trail.add(DONE)
    await trail.flush()
    await trail.flush()
    assert counted(database_url) == [(DONE.action, 200, None, 2500, 2500)]


async def test_an_entry_is_a_line_at_once(runner: Runner, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger=trails.__name__):
        Trail(runner, days=0).add(DONE)
    assert caplog.messages == [str(DONE)]


async def test_of_a_flood_of_refused_writes_a_few_are_kept_and_the_rest_is_counted(
    runner: Runner, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    now = 0.0
    trail = Trail(runner, days=1, clock=lambda: now)
    with caplog.at_level(logging.INFO, logger=trails.__name__):
        for _ in range(5000):
            trail.add(REFUSED, refused=True)
            trail.add(DONE)
        now = 1.0
        for _ in range(5000):
            trail.add(REFUSED, refused=True)
        await trail.flush()
    kept = int(REFUSED_AT_ONCE + REFUSED_EACH_SECOND)
    assert counted(database_url) == [
        ("(several)", 401, "key_missing", 1, 10_000 - kept),
        (REFUSED.action, 401, "key_missing", kept, kept),
        (DONE.action, 200, None, 5000, 5000),
    ]
    assert sum("key_missing" in line for line in caplog.messages) == kept + 1


async def test_what_waits_for_a_database_that_is_away_is_written_once_it_is_back_and_the_rest_is_counted(
    runner: Runner, database_url: str
) -> None:
    away = Away(runner)
    trail = Trail(away, days=1)
    for _ in range(MOST_WAITING + 7):
        trail.add(DONE)
    with pytest.raises(CatalogueUnavailable):
        await trail.flush()
    away.away = None
    await trail.flush()
    await trail.flush()  # what did not fit beside the rest
    assert counted(database_url) == [
        ("(several)", 200, None, 1, 7),
        (DONE.action, 200, None, MOST_WAITING, MOST_WAITING),
    ]


async def test_what_cannot_be_written_at_a_stop_is_said(runner: Runner, caplog: pytest.LogCaptureFixture) -> None:
    trail = Trail(Away(runner), days=1)
    trail.add(DONE)
    await trail.close()
    assert "1 entries of the audit are in the log alone" in caplog.text


async def test_one_entry_that_the_table_cannot_hold_does_not_keep_the_others_out(
    runner: Runner, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    trail = Trail(runner, days=1)
    trail.add(DONE)
    trail.add(Entry(action="nul \0"))  # as no route is called
    trail.add(DONE)
    await trail.flush()
    assert counted(database_url) == [(DONE.action, 200, None, 2, 2)]
    assert "in the log alone" in caplog.text


async def test_without_days_there_are_no_rows(runner: Runner, database_url: str) -> None:
    trail = Trail(runner, days=0)
    trail.add(DONE)
    await trail.close()
    assert counted(database_url) == []


async def test_what_is_older_than_its_days_is_removed(runner: Runner, database_url: str) -> None:
    trail = Trail(runner, days=3)
    now = datetime.now(UTC)
    for days in (1, 2, 4, 5):
        trail.add(Entry(action=f"{days}", at=now - timedelta(days=days)))
    await trail.flush()
    forgetting = asyncio.create_task(trail.forget(runner))
    while len(counted(database_url)) > 2:
        await asyncio.sleep(0.01)
    forgetting.cancel()
    assert [action for action, *_ in counted(database_url)] == ["1", "2"]


async def test_entries_that_are_added_while_a_batch_is_written_are_not_lost(runner: Runner, database_url: str) -> None:
    class Adding(Runner):
        async def write(self, work: object, **options: object) -> object:  # type: ignore[override]
            async def adding(connection: AsyncConnection[TupleRow]) -> None:
                if self.more:
                    self.more -= 1
                    trail.add(DONE)
                await work(connection)  # type: ignore[operator]

            return await super().write(adding)

        more = 5

    trail = Trail(Adding(runner._pool), days=1)
    trail.add(DONE)
    await trail.flush()
    assert counted(database_url) == [(DONE.action, 200, None, 6, 6)]
