"""The pool, the migrations and the named queries, against a real PostgreSQL."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from server.database.connections import open_pool
from server.database.migrations import load_migrations, migrate
from server.database.queries import SQL
from server.errors import DatabaseUnusable
from tests.support.process import until


@pytest.fixture
def migrations(tmp_path: Path) -> Path:
    """A copy of the migrations that a test may add to."""
    folder = tmp_path / "sql"
    shutil.copytree(SQL, folder)
    return folder


def test_migrating_twice_does_nothing_the_second_time(bare_database_url: str) -> None:
    names = [migration.name for migration in load_migrations()]
    assert migrate(bare_database_url) == names
    assert migrate(bare_database_url) == []


def test_processes_that_migrate_at_once_apply_each_migration_once(bare_database_url: str) -> None:
    with ThreadPoolExecutor(4) as threads:
        applied = [name for names in threads.map(migrate, [bare_database_url] * 4) for name in names]
    assert applied == [migration.name for migration in load_migrations()]


def test_a_new_migration_is_applied_to_an_old_database(database_url: str, migrations: Path) -> None:
    (migrations / "9000_more.sql").write_text("CREATE TABLE more (); SELECT 1 % 1;")
    assert migrate(database_url, migrations) == ["9000_more"]


def test_a_migration_that_fails_leaves_nothing_behind(database_url: str, migrations: Path) -> None:
    (migrations / "9000_bad.sql").write_text("CREATE TABLE half (); SELECT 1 / 0;")
    with pytest.raises(DatabaseUnusable, match="9000_bad failed"):
        migrate(database_url, migrations)
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT to_regclass('half')").fetchone() == (None,)
    (migrations / "9000_bad.sql").write_text("CREATE TABLE half ();")
    assert migrate(database_url, migrations) == ["9000_bad"]


def test_an_applied_migration_that_changed_is_refused(database_url: str, migrations: Path) -> None:
    first = migrations / f"{load_migrations()[0].name}.sql"
    first.write_text(first.read_text() + "-- changed")
    with pytest.raises(DatabaseUnusable, match=r"0001_.* is not the one that made this database"):
        migrate(database_url, migrations)


def test_a_database_that_is_newer_than_the_code_is_refused(database_url: str, migrations: Path) -> None:
    (migrations / "9000_later.sql").write_text("SELECT 1")
    migrate(database_url, migrations)
    with pytest.raises(DatabaseUnusable, match=r"newer than this version.*9000_later"):
        migrate(database_url)


def test_a_database_with_tables_of_someone_else_is_refused(bare_database_url: str) -> None:
    with psycopg.connect(bare_database_url) as connection:
        connection.execute("CREATE TABLE products (id uuid)")
    with pytest.raises(DatabaseUnusable, match=r"tables that Twinlens did not make.*products"):
        migrate(bare_database_url)


def test_an_old_pgvector_is_refused(bare_database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.database.migrations.OLDEST_PGVECTOR", (99, 0, 0))
    with pytest.raises(DatabaseUnusable, match=r"pgvector \d.*99\.0\.0 is needed"):
        migrate(bare_database_url)


def test_a_user_who_may_not_add_pgvector_learns_what_to_run(bare_database_url: str) -> None:
    role = "twinlens_nobody"
    with psycopg.connect(bare_database_url, autocommit=True) as connection:
        connection.execute(f"DROP ROLE IF EXISTS {role}")
        connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x'")
        try:
            with pytest.raises(DatabaseUnusable, match="CREATE EXTENSION vector"):
                migrate(psycopg.conninfo.make_conninfo(bare_database_url, user=role, password="x"))
        finally:
            connection.execute(f"DROP ROLE {role}")


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
