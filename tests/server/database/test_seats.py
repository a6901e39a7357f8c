"""Seats: a number that is locked while its process lives, and notices."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from server.database.locks import LOCKS_OF_EMBEDDING
from server.database.seats import seat
from tests.support.databases import run_sql
from tests.support.pgbouncer import needs_pgbouncer, pooled

pytestmark = pytest.mark.anyio

LISTEN = b"LISTEN news"
LOCKED = f"SELECT objid::bigint FROM pg_locks WHERE locktype = 'advisory' AND classid = {LOCKS_OF_EMBEDDING}"
PATIENCE = 30


def locked(url: str) -> set[int]:
    return {number for (number,) in run_sql(url, LOCKED)}


async def test_each_has_a_number_that_is_locked_until_its_end(bare_database_url: str) -> None:
    async with seat(bare_database_url, LOCKS_OF_EMBEDDING, LISTEN) as one:
        async with seat(bare_database_url, LOCKS_OF_EMBEDDING, LISTEN) as other:
            assert one.number != other.number
            assert locked(bare_database_url) == {one.number, other.number}
        assert locked(bare_database_url) == {one.number}
    assert locked(bare_database_url) == set()


async def test_a_notice_is_news(bare_database_url: str) -> None:
    async with seat(bare_database_url, LOCKS_OF_EMBEDDING, LISTEN) as one:
        assert (one.hears, one.news.is_set()) == (True, False)
        await asyncio.to_thread(run_sql, bare_database_url, "NOTIFY news")
        await asyncio.wait_for(one.news.wait(), PATIENCE)
        assert not one.lost


async def test_it_says_that_it_is_lost(bare_database_url: str) -> None:
    async with seat(bare_database_url, LOCKS_OF_EMBEDDING, LISTEN) as one:
        ended = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
        await asyncio.to_thread(run_sql, bare_database_url, ended)
        await asyncio.wait_for(one.news.wait(), PATIENCE)
        assert one.lost
    assert locked(bare_database_url) == set()


async def test_what_is_raised_within_comes_out(bare_database_url: str) -> None:
    with pytest.raises(psycopg.errors.DivisionByZero):
        async with seat(bare_database_url, LOCKS_OF_EMBEDDING, LISTEN):
            run_sql(bare_database_url, "SELECT 1 / 0")
    assert locked(bare_database_url) == set()


@needs_pgbouncer
async def test_behind_a_pooler_of_transactions_it_holds_the_lock_and_hears_nothing(bare_database_url: str) -> None:
    with pooled(bare_database_url, "transaction") as url:
        async with seat(url, LOCKS_OF_EMBEDDING, LISTEN) as one:
            assert not one.hears
            assert locked(bare_database_url) == {one.number}
            # It holds up no vacuum.
            holds_up = "SELECT pid FROM pg_stat_activity WHERE state = 'idle in transaction'"
            assert len(run_sql(bare_database_url, holds_up)) == 1
            assert not run_sql(
                bare_database_url, f"{holds_up} AND (backend_xid IS NOT NULL OR backend_xmin IS NOT NULL)"
            )
        assert locked(bare_database_url) == set()
