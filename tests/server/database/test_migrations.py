"""Migrations, against a real PostgreSQL."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from server.database.migrations import load_migrations, migrate
from server.database.queries import SQL
from server.errors import DatabaseUnusable
from tests.support.databases import run_sql
from tests.support.spaces import add_media, open_old, register_new


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
    monkeypatch.setattr("server.database.preconditions.OLDEST_PGVECTOR", (99, 0, 0))
    with pytest.raises(DatabaseUnusable, match=r"pgvector \d.*99\.0\.0 is needed: install"):
        migrate(bare_database_url)


def test_vectors_of_an_older_version_count_as_read_by_it_and_it_can_go_on_writing(
    bare_database_url: str, migrations: Path
) -> None:
    older = [one for one in load_migrations() if one.number < 5]
    for path in migrations.glob("*.sql"):
        if path.stem not in {one.name for one in older}:
            path.unlink()
    migrate(bare_database_url, migrations)
    space = open_old(bare_database_url)
    add_media(bare_database_url, "before", vectors_in=[space])
    assert migrate(bare_database_url) == [one.name for one in load_migrations() if one.number >= 5]
    add_media(bare_database_url, "after", vectors_in=[space])
    new = register_new(bare_database_url)
    add_media(bare_database_url, "newer", vectors_in=[new])
    with psycopg.connect(bare_database_url) as connection:
        for table in (space.table, new.table):
            assert {*connection.execute(f"SELECT blank, reading FROM {table}")} == {(False, 0)}


def test_a_product_of_the_future_has_changed_when_lists_of_changes_came(
    bare_database_url: str, migrations: Path
) -> None:
    for one in load_migrations():
        if one.number >= 13:
            (migrations / f"{one.name}.sql").unlink()
    migrate(bare_database_url, migrations)
    run_sql(
        bare_database_url,
        """INSERT INTO products (id, "clientId", name, "updatedAt")
        VALUES ('a', 'c', 'A', '2001-01-01'), ('b', 'c', 'B', '2999-01-01'), ('c', 'c', 'C', 'infinity')""",
    )
    migrate(bare_database_url)
    found = run_sql(bare_database_url, """SELECT id, "updatedAt" <= now(), "updatedAt" > '2001-01-01' FROM products""")
    assert sorted(found) == [("a", True, False), ("b", True, True), ("c", True, True)]
    # The version before this one says the time itself.
    run_sql(bare_database_url, """UPDATE products SET name = 'x', "updatedAt" = now() WHERE id = 'a'""")
    assert run_sql(bare_database_url, """SELECT "updatedAt" > '2001-01-01' FROM products WHERE id = 'a'""") == [(True,)]


def test_a_filled_database_gets_ids_within_clients_without_its_rows_being_rewritten(
    bare_database_url: str, migrations: Path
) -> None:
    for one in load_migrations():
        if one.number >= 7:
            (migrations / f"{one.name}.sql").unlink()
    migrate(bare_database_url, migrations)
    space = open_old(bare_database_url)
    add_media(bare_database_url, "m", "n", vectors_in=[space])
    look = "SELECT pg_relation_filenode('products'), pg_relation_filenode('media')"
    rows = "SELECT ctid::text, id FROM media ORDER BY id"
    before = [run_sql(bare_database_url, one) for one in (look, rows)]
    assert migrate(bare_database_url) == [one.name for one in load_migrations() if one.number >= 7]
    assert [run_sql(bare_database_url, one) for one in (look, rows)] == before
    assert run_sql(bare_database_url, 'SELECT count(*), count("apiId") FROM media') == [(2, 0)]
    # The version before this one still adds what it adds, and no second row of an id within a client.
    run_sql(bare_database_url, """INSERT INTO products (id, "apiId", "clientId", name) VALUES ('q~', 'q', 'c', 'Q')""")
    with pytest.raises(psycopg.errors.UniqueViolation, match="products_api_id"):
        run_sql(bare_database_url, """INSERT INTO products (id, "clientId", name) VALUES ('q', 'c', 'Q')""")
    run_sql(bare_database_url, """INSERT INTO products (id, "clientId", name) VALUES ('q', 'd', 'Q')""")
    with pytest.raises(psycopg.errors.CheckViolation, match="products_apiId_check"):
        run_sql(
            bare_database_url, """INSERT INTO products (id, "apiId", "clientId", name) VALUES ('r', '', 'c', 'R')"""
        )
