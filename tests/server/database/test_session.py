"""What our statements rely on is so in every session, whatever the database's defaults are."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest

from server.catalogue.catalogue import Catalogue
from server.catalogue.rows import Query
from server.database.connections import connect, connection_of_its_own
from server.database.migrations import migrate
from server.database.pool import open_pool
from server.database.session import AsyncSessionConnection, wanted
from server.errors import DatabaseUnusable
from tests.support import artifacts
from tests.support.catalogue import D, fill, open_test_space
from tests.support.databases import run_sql
from tests.support.flow import use_everything
from tests.support.odd_defaults import ODD, make_odd
from tests.support.proxy import Proxy
from tests.support.vectors import UnitVectors


def test_everything_works_on_a_database_whose_defaults_are_all_odd(bare_database_url: str, tmp_path: Path) -> None:
    make_odd(bare_database_url)
    migrate(bare_database_url)
    make_odd(bare_database_url, search_path="nowhere")
    use_everything(bare_database_url, tmp_path / "data", artifacts.another_space(tmp_path / "other"))


@pytest.mark.anyio
async def test_an_index_is_built_and_used_whatever_the_planner_is_told_by_default(
    database_url: str, unit_vectors: UnitVectors
) -> None:
    space = open_test_space(database_url)
    vectors = unit_vectors(600, D, 1)
    fill(database_url, space, "large", vectors)
    make_odd(database_url)
    async with open_pool(database_url, min_size=1, max_size=2, timeout=30) as pool:
        catalogue = Catalogue(pool, space)
        assert (await catalogue.maintain_indexes(threshold=500)).built == ("large",)
        found = await catalogue.search(Query("large", vectors[7], limit=24))
    assert (found.plan, len(found.matches)) == ("index", 24)
    assert found.matches[0].product_id == "large-000007"


@pytest.mark.anyio
async def test_a_connection_that_breaks_off_leaves_nothing_to_the_log(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its statement fails, and what collects its results is not left in the middle, which Python would print later."""
    printed: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", printed.append)
    with TemporaryDirectory() as folder:
        async with Proxy(database_url, Path(folder)).running() as proxy, connection_of_its_own(proxy.url) as connection:
            connection.client = "acme"
            proxy.break_off()
            await asyncio.sleep(0.05)  # until it is closed
            with pytest.raises(psycopg.OperationalError):
                await connection.execute("SELECT 1")
            gc.collect()
    assert printed == []


@asynccontextmanager
async def of_the_pool(url: str) -> AsyncIterator[AsyncSessionConnection]:
    async with open_pool(url, min_size=1, max_size=1, timeout=30) as pool, pool.connection() as connection:
        yield connection


@pytest.mark.anyio
@pytest.mark.parametrize("opened", [of_the_pool, connection_of_its_own])
async def test_no_default_that_is_odd_is_left(database_url: str, opened: object) -> None:
    make_odd(database_url)
    left = "SELECT name FROM unnest(%s::text[], %s::text[]) AS odd (name, value) WHERE current_setting(name) = value"
    ours = {name: value for name, value in ODD.items() if name in wanted(None)}
    async with opened(database_url) as connection:  # type: ignore[operator]
        rows = await (await connection.execute(left, (list(ours), list(ours.values())))).fetchall()
        now = await (await connection.execute("SELECT now()")).fetchone()
    assert rows == []
    assert now[0].tzinfo is UTC
    assert abs((now[0] - datetime.now(UTC)).total_seconds()) < 60


@pytest.mark.anyio
async def test_connections_of_the_pool_outlive_the_limit_for_idle_ones(database_url: str) -> None:
    make_odd(database_url)
    async with open_pool(database_url, min_size=1, max_size=1, timeout=30) as pool:
        async with pool.connection() as connection:
            first = connection.info.backend_pid
        await asyncio.sleep(1.3)
        async with pool.connection() as connection:
            assert connection.info.backend_pid == first


def test_a_single_connection_works_and_waits_as_long_as_it_must(database_url: str) -> None:
    make_odd(database_url)
    with connect(database_url) as connection, connection.transaction():
        connection.execute("SELECT pg_sleep(1.2)")
        assert connection.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize(
    ("default", "path"),
    [
        ("public", "public, pg_temp"),
        ("app, public", "app, public, pg_temp"),
        ("nobody, public", "public, pg_temp"),
        ("app", "app, types, pg_temp"),
        ("nobody", "types, pg_temp"),
    ],
)
def test_the_path_is_the_operator_s_with_the_schema_of_the_vectors(
    bare_database_url: str, default: str, path: str
) -> None:
    schema = "types" if "types" in path else "public"
    run_sql(bare_database_url, "CREATE SCHEMA app")
    run_sql(bare_database_url, f"CREATE SCHEMA IF NOT EXISTS {schema}")
    run_sql(bare_database_url, f"CREATE EXTENSION vector WITH SCHEMA {schema}")
    url = psycopg.conninfo.make_conninfo(bare_database_url, options=f"-csearch_path={default.replace(' ', '')}")
    with connect(url) as connection:
        assert connection.execute("SELECT current_setting('search_path')").fetchone() == (path,)


def test_tables_in_a_schema_of_their_own_stay_where_the_url_says(bare_database_url: str) -> None:
    run_sql(bare_database_url, "CREATE SCHEMA shop")
    url = psycopg.conninfo.make_conninfo(bare_database_url, options="-csearch_path=shop")
    migrate(url)
    run_sql(bare_database_url, "CREATE TABLE public.products ()")
    open_test_space(url)
    assert run_sql(bare_database_url, "SELECT count(*) FROM shop.twinlens_spaces") == [(1,)]
    assert migrate(url) == []


def test_a_default_that_this_role_may_not_change_is_told(database_url: str) -> None:
    run_sql(database_url, "CREATE ROLE restricted LOGIN")
    try:
        make_odd(database_url)
        url = psycopg.conninfo.make_conninfo(database_url, user="restricted")
        with pytest.raises(DatabaseUnusable, match="session_replication_role"), connect(url):
            pass
    finally:
        run_sql(database_url, "DROP ROLE restricted")
