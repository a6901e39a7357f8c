"""What a database must be before anything is written there: each refusal is a sentence, and leaves it as it was."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from psycopg import sql

from server.catalogue.indexes import Indexes
from server.database.connections import Direct
from server.database.migrations import load_migrations, migrate, require_migrated
from server.database.pool import open_pool
from server.errors import DatabaseUnfit
from server.postgres.server import EmbeddedPostgres
from tests.support.databases import applied, as_role, contents, database_of, discard, fresh_database, role, run_sql
from tests.support.spaces import add_media, older_database, open_old, register_new

MIGRATIONS = [one.name for one in load_migrations()]


@contextmanager
def refused(url: str, sentence: str, *, seen_by: str | None = None) -> Iterator[None]:
    """What the block raises has this sentence, and the database is what it was; `seen_by`: a URL that can look."""
    before = contents(seen_by or url)
    with pytest.raises(DatabaseUnfit, match=sentence):
        yield
    assert contents(seen_by or url) == before


@pytest.fixture
def nobody(bare_database_url: str) -> Iterator[str]:
    """A role without rights in the database of `bare_database_url`."""
    with role(bare_database_url) as name:
        yield name


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_that_cannot_hold_every_name_is_refused_and_the_remedy_works(
    postgres_url: str, encoding: str
) -> None:
    create = f"TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'"
    with fresh_database(postgres_url) as url:
        name = database_of(url)
        run_sql(postgres_url, f"DROP DATABASE {name}")
        run_sql(postgres_url, f"CREATE DATABASE {name} {create}")
        with refused(url, rf"encoded in {encoding}.*CREATE DATABASE {name}_utf8 ") as _:
            try:
                migrate(url)
            except DatabaseUnfit as refusal:
                (remedy,) = re.findall("CREATE DATABASE.*", refusal.sentence)
                raise
        run_sql(postgres_url, remedy)
        try:
            assert migrate(url.replace(name, f"{name}_utf8")) == MIGRATIONS
        finally:
            run_sql(postgres_url, f"DROP DATABASE {name}_utf8")


def test_an_older_server_is_refused(bare_database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.database.preconditions.OLDEST_POSTGRES", 990_000)
    with refused(bare_database_url, r"PostgreSQL \d+.*at least 99 is needed"):
        migrate(bare_database_url)


def test_a_read_only_database_is_refused(bare_database_url: str) -> None:
    name = database_of(bare_database_url)
    run_sql(bare_database_url, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    with refused(bare_database_url, "read-only.*SET default_transaction_read_only = off"):
        migrate(bare_database_url)


def test_a_standby_is_refused(tmp_path: Path) -> None:
    postgres = EmbeddedPostgres(tmp_path)
    try:
        postgres.start()
        postgres.close()
        (postgres.cluster / "standby.signal").touch()
        url = postgres.start()
        with refused(url, "on a standby.*target_session_attrs=read-write"):
            migrate(url)
    finally:
        discard(postgres)


def test_a_role_that_may_not_make_tables_learns_what_to_run(bare_database_url: str, nobody: str) -> None:
    run_sql(bare_database_url, "CREATE EXTENSION vector")
    grant = f"GRANT CREATE ON SCHEMA public TO {nobody}"
    with refused(bare_database_url, grant):
        migrate(as_role(bare_database_url, nobody))
    run_sql(bare_database_url, grant)
    assert migrate(as_role(bare_database_url, nobody)) == MIGRATIONS


def test_a_role_that_may_not_add_pgvector_learns_what_to_run(bare_database_url: str, nobody: str) -> None:
    run_sql(bare_database_url, f"GRANT CREATE ON SCHEMA public TO {nobody}")
    with refused(bare_database_url, f"{nobody} may not add it.*CREATE EXTENSION vector"):
        migrate(as_role(bare_database_url, nobody))
    run_sql(bare_database_url, "CREATE EXTENSION vector")
    assert migrate(as_role(bare_database_url, nobody)) == MIGRATIONS


def test_a_role_that_may_not_use_the_schema_of_pgvector_learns_what_to_run(bare_database_url: str, nobody: str) -> None:
    run_sql(bare_database_url, f"CREATE SCHEMA extensions; GRANT CREATE ON SCHEMA public TO {nobody}")
    run_sql(bare_database_url, "CREATE EXTENSION vector SCHEMA extensions")
    grant = f"GRANT USAGE ON SCHEMA extensions TO {nobody}"
    with refused(bare_database_url, grant):
        migrate(as_role(bare_database_url, nobody))
    run_sql(bare_database_url, grant)
    assert migrate(as_role(bare_database_url, nobody)) == MIGRATIONS


def test_tables_of_another_role_are_refused_until_it_is_a_member_of_that_role(database_url: str) -> None:
    with role(database_url) as owner, role(database_url) as other:
        for one in (owner, other):
            run_sql(database_url, f"GRANT CREATE ON SCHEMA public TO {one}")
        ours = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v')"
        for (table,) in run_sql(database_url, ours):
            run_sql(database_url, f"ALTER TABLE {table} OWNER TO {owner}")
        with refused(database_url, f"belongs to {owner}.*GRANT {owner} TO {other}"):
            migrate(as_role(database_url, other))
        run_sql(database_url, f"GRANT {owner} TO {other}")
        assert migrate(as_role(database_url, other)) == []
        run_sql(database_url, f"REVOKE {owner} FROM {other}; REASSIGN OWNED BY {owner} TO CURRENT_USER")


def test_a_search_path_that_leads_nowhere_is_refused(bare_database_url: str) -> None:
    name = database_of(bare_database_url)
    run_sql(bare_database_url, f"ALTER DATABASE {name} SET search_path = nowhere")
    with refused(bare_database_url, rf"\(nowhere\) leads to no schema.*IN DATABASE {name} SET search_path = public"):
        migrate(bare_database_url)
    with refused(bare_database_url, "leads to no schema"):
        require_migrated(bare_database_url)


def test_a_catalogue_beyond_the_search_path_is_not_made_a_second_time(database_url: str) -> None:
    name = database_of(database_url)
    run_sql(database_url, f"CREATE SCHEMA app; CREATE SCHEMA ours; ALTER DATABASE {name} SET search_path = app")
    run_sql(database_url, "ALTER EXTENSION vector SET SCHEMA ours")  # else its schema leads to the catalogue
    with refused(database_url, r"lies in the schema public.*\(app.*SET search_path = public"):
        migrate(database_url)


@pytest.mark.parametrize("path", ["app", "nowhere"])
def test_a_catalogue_in_pgvectors_schema_is_found_whatever_the_search_path(database_url: str, path: str) -> None:
    name = database_of(database_url)
    run_sql(database_url, f"CREATE SCHEMA app; ALTER DATABASE {name} SET search_path = {path}")
    assert migrate(database_url) == []
    require_migrated(database_url)


def test_a_schema_that_comes_to_lie_before_the_catalogue_does_not_hide_it(database_url: str) -> None:
    open_old(database_url)
    name = database_of(database_url)
    run_sql(database_url, f"CREATE SCHEMA app; ALTER DATABASE {name} SET search_path = app, public")
    assert migrate(database_url) == []
    register_new(database_url)
    tables = run_sql(database_url, "SELECT schemaname FROM pg_tables WHERE tablename ~ '^twinlens_space_'")
    assert tables == [("public",), ("public",)]


@pytest.mark.anyio
async def test_pgvector_in_a_schema_of_its_own_is_found(bare_database_url: str, nobody: str) -> None:
    run_sql(bare_database_url, f'CREATE SCHEMA "My Extensions"; GRANT USAGE ON SCHEMA "My Extensions" TO {nobody}')
    run_sql(bare_database_url, f'CREATE EXTENSION vector SCHEMA "My Extensions"; CREATE SCHEMA AUTHORIZATION {nobody}')
    url = as_role(bare_database_url, nobody)
    assert migrate(url) == MIGRATIONS
    old = open_old(url)
    vector = ", ".join(["1", *["0"] * 15])
    add_media(url, "a", "b")
    # What a function of the catalogue does, and what the application reads, works in a session of the role's own.
    run_sql(url, 'UPDATE products SET "isActive" = false; UPDATE products SET "isActive" = true')
    async with open_pool(url, min_size=1, max_size=1, timeout=10) as pool, pool.connection() as connection:
        insert = f"INSERT INTO {old.table} (space, \"mediaId\", embedding) VALUES ({old.number}, %s, '[{vector}]')"
        for media in ("a", "b"):
            await connection.execute(insert.encode(), (media,))
        cursor = await connection.execute(f"SELECT embedding FROM {old.table}".encode())
        ((embedding,), _) = await cursor.fetchall()
        assert embedding.to_list()[:2] == [1.0, 0.0]
    assert run_sql(url, 'SELECT "mediaId" FROM image_embeddings ORDER BY 1') == [("a",), ("b",)]
    indexes = Indexes(old)
    await indexes.maintain(Direct(url), threshold=2)
    assert run_sql(url, "SELECT count(*) FROM twinlens_indexes") == [(1,)]
    tables = run_sql(url, "SELECT DISTINCT schemaname FROM pg_tables WHERE tablename ~ '^(twinlens_|media)'")
    assert tables == [(nobody,)]


def test_what_only_reads_does_not_migrate(bare_database_url: str, tmp_path: Path) -> None:
    older_database(bare_database_url, tmp_path / "sql")
    for writing in (False, True):
        with refused(bare_database_url, rf"lacks {MIGRATIONS[1]}.*python -m server migrate"):
            require_migrated(bare_database_url, writing=writing)
    migrate(bare_database_url)
    require_migrated(bare_database_url)


def test_a_reader_needs_no_more_than_the_right_to_read(database_url: str) -> None:
    with role(database_url) as reader:
        url = as_role(database_url, reader)
        grant = f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {reader}"
        with refused(database_url, grant):
            require_migrated(url)
        run_sql(database_url, grant)
        require_migrated(url)
        with refused(database_url, "may not make tables"):
            require_migrated(url, writing=True)


def test_a_database_without_a_catalogue_says_so(bare_database_url: str) -> None:
    with refused(bare_database_url, "holds no catalogue"):
        require_migrated(bare_database_url)


def test_the_last_look_comes_before_anything_is_written_and_only_where_something_would_be(
    bare_database_url: str, tmp_path: Path
) -> None:
    def refuse(_: object, catalogue: bool) -> None:
        raise DatabaseUnfit("not like this")

    assert older_database(bare_database_url, tmp_path / "sql") == MIGRATIONS[:1]
    with refused(bare_database_url, "not like this"):
        migrate(bare_database_url, last_look=refuse)
    assert applied(bare_database_url) == MIGRATIONS[:1]
    migrate(bare_database_url)
    assert migrate(bare_database_url, last_look=refuse) == []


def test_a_name_that_needs_quotes_is_quoted_in_the_remedy(bare_database_url: str) -> None:
    run_sql(bare_database_url, "CREATE EXTENSION vector")
    strange = 'Otto "O" ' + database_of(bare_database_url)[-8:]
    identifier = sql.Identifier(strange).as_string(None)
    run_sql(bare_database_url, f"CREATE ROLE {identifier} LOGIN PASSWORD 'x'")
    try:
        with refused(bare_database_url, re.escape(f"TO {identifier}")):
            migrate(as_role(bare_database_url, strange))
    finally:
        run_sql(bare_database_url, f"DROP ROLE {identifier}")
