"""The role that serves: how a database comes to have it, what it may, and that nothing changes for others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import conninfo
from psycopg.rows import scalar_row

from server.catalogue.catalogue import Catalogue
from server.catalogue.filters import Conditions, Filter
from server.catalogue.rows import Query, SpaceRow
from server.commands import migrate as migrate_command
from server.commands.serve import database_url as print_url
from server.database import isolation
from server.database.isolation import SERVING_ROLE, arrange, find
from server.database.migrations import load_migrations, migrate
from server.database.pool import open_pool
from server.database.runner import Runner
from server.errors import BadSetting
from server.settings import Settings
from server.spaces import spaces
from tests.support import artifacts
from tests.support.catalogue import D, fill, open_test_space
from tests.support.databases import as_role, fresh_database, postgres, role, run_sql
from tests.support.flow import use_everything, use_the_api
from tests.support.pgbouncer import needs_pgbouncer, pooled
from tests.support.serving import serving
from tests.support.spaces import NEW, described
from tests.support.vectors import UnitVectors

TABLES = ("products", "media")


@pytest.fixture
def space(database_url: str, unit_vectors: UnitVectors) -> SpaceRow:
    """With three products of each of two clients."""
    space = open_test_space(database_url)
    for client in ("ours", "theirs"):
        fill(database_url, space, client, unit_vectors(3, D, 1))
    return space


@contextmanager
def login(url: str, *rights: str) -> Iterator[str]:
    """The URL of a role that may log in and what `rights` say, such as `CREATEROLE`."""
    with role(url) as name:
        for right in rights:
            run_sql(url, f"ALTER ROLE {name} {right}")
        yield as_role(url, name)


def name_in(url: str) -> str:
    return str(conninfo.conninfo_to_dict(url)["user"])


@contextmanager
def database_of_its_own(url: str, *rights: str) -> Iterator[str]:
    """A migrated database whose owner is no superuser: the owner's URL."""
    with fresh_database(url) as database, login(database, *rights) as owner:
        run_sql(database, "CREATE EXTENSION vector")
        run_sql(database, f"GRANT CREATE ON SCHEMA public TO {name_in(owner)}")
        migrate(owner)
        yield owner


def seen(url: str, role_name: str | None, client: str | None, table: str) -> int:
    with psycopg.connect(url) as connection:
        if role_name:
            connection.execute(f"SET ROLE {role_name}".encode())
        if client is not None:
            connection.execute("SELECT set_config('twinlens.client', %s, true)", (client,))
        (count,) = connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone() or (0,)
    return int(count)


# --- what the role may -----------------------------------------------------------------------------------------------


def test_the_role_owns_nothing_and_bypasses_nothing(database_url: str, space: SpaceRow) -> None:
    rights = "rolsuper, rolbypassrls, rolcreaterole, rolcreatedb, rolreplication, rolcanlogin, rolinherit"
    assert run_sql(database_url, f"SELECT {rights} FROM pg_roles WHERE rolname = %s", (SERVING_ROLE,)) == [(False,) * 7]
    owned = "SELECT count(*) FROM pg_shdepend WHERE refobjid = %s::regrole AND deptype = 'o'"
    assert run_sql(database_url, owned, (SERVING_ROLE,)) == [(0,)]
    member = "SELECT count(*) FROM pg_auth_members WHERE member = %s::regrole"
    assert run_sql(database_url, member, (SERVING_ROLE,)) == [(0,)]


def test_it_sees_one_client_and_without_one_nobody(database_url: str, space: SpaceRow) -> None:
    for table in (*TABLES, space.table):
        assert seen(database_url, None, None, table) == 6
        assert seen(database_url, SERVING_ROLE, "ours", table) == 3
        for nobody in (None, "", "somebody"):
            assert seen(database_url, SERVING_ROLE, nobody, table) == 0


def test_it_writes_for_one_client_and_without_one_for_nobody(database_url: str, space: SpaceRow) -> None:
    insert = """INSERT INTO products (id, "clientId", name) VALUES ('new', 'theirs', 'New')"""
    for client in ("", "ours"):
        with psycopg.connect(database_url) as connection:
            connection.execute(f"SET ROLE {SERVING_ROLE}".encode())
            connection.execute("SELECT set_config('twinlens.client', %s, true)", (client,))
            for statement in ("UPDATE products SET name = 'X'", "DELETE FROM products"):
                with connection.transaction(force_rollback=True):
                    assert connection.execute(statement.encode()).rowcount == (3 if client else 0)
            for statement in (insert, """UPDATE products SET "clientId" = 'theirs'"""):
                if client or statement is insert:
                    with pytest.raises(psycopg.errors.InsufficientPrivilege), connection.transaction():
                        connection.execute(statement.encode())
            # A vector's row takes its client from its media.
            vector = f"""INSERT INTO {space.table} (space, "mediaId", embedding)
                SELECT space, 'theirs-000001', embedding FROM {space.table}"""
            connection.execute("RESET ROLE")
            connection.execute(f"""DELETE FROM {space.table} WHERE "mediaId" = 'theirs-000001'""".encode())
            connection.execute(f"SET ROLE {SERVING_ROLE}".encode())
            if client:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(f"{vector} LIMIT 1".encode())
            connection.rollback()


@pytest.mark.parametrize(
    "table",
    [
        *("twinlens_keys", "twinlens_limits", "twinlens_audit", "twinlens_recall", "twinlens_unreadable"),
        *("twinlens_store", "twinlens_migrations", "twinlens_pending"),
    ],
)
def test_it_may_not_read_what_servers_do_not_read_for_a_client(database_url: str, table: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        seen(database_url, SERVING_ROLE, "ours", table)


SECRET = 'SELECT "urlSecret" FROM twinlens_access'


def test_it_may_not_read_what_signs_addresses_of_pictures(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute(f"SET ROLE {SERVING_ROLE}".encode())
        assert connection.execute('SELECT "servingRoles" FROM twinlens_access').fetchall() == [([SERVING_ROLE],)]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(SECRET.encode())


def test_a_role_that_served_before_loses_the_right_to_read_it_and_goes_on(
    bare_database_url: str, tmp_path: Path
) -> None:
    for one in load_migrations():
        if one.number < 17:
            (tmp_path / f"{one.name}.sql").write_text(one.text, encoding="utf-8")
    migrate(bare_database_url, tmp_path)
    with login(bare_database_url) as serving_url:
        assert arrange(bare_database_url, serving_url).role == name_in(serving_url)
        assert len(run_sql(serving_url, SECRET)) == 1
        migrate(bare_database_url)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            run_sql(serving_url, SECRET)
        assert find(serving_url).role == name_in(serving_url)
        assert run_sql(bare_database_url, "SELECT name FROM twinlens_open_tables()") == []


def test_a_right_on_a_column_that_is_lost_is_noticed_and_mended(database_url: str) -> None:
    run_sql(database_url, f'REVOKE SELECT ("servingRoles") ON twinlens_access FROM {SERVING_ROLE}')
    assert find(database_url).reason == "the table twinlens_access lacks its policies, or rights on it"
    assert arrange(database_url).role == SERVING_ROLE


# --- the door --------------------------------------------------------------------------------------------------------


async def counted(runner: Runner, client: str | None) -> tuple[int, str | None]:
    """The products that work for this client sees, and the client that is set."""

    async def count(connection: psycopg.AsyncConnection[Any]) -> tuple[int, str | None]:
        asked = "SELECT count(*), current_setting('twinlens.client', true) FROM products"
        ((count, set_to),) = await (await connection.execute(asked)).fetchall()
        return count, set_to

    return await runner.read(count, client=client)


@pytest.mark.anyio
async def test_a_client_does_not_linger_on_a_connection(database_url: str, space: SpaceRow) -> None:
    async with open_pool(database_url, min_size=1, max_size=1, timeout=30, role=SERVING_ROLE) as pool:
        runner = Runner(pool)
        for _ in range(7):  # psycopg prepares what it has run five times
            assert await counted(runner, "ours") == (3, "ours")
            found, left = await counted(runner, None)
            assert (found, left or "") == (0, "")

        async def fail(connection: psycopg.AsyncConnection[Any]) -> None:
            async with connection.transaction():
                await connection.execute("SELECT 1")
                raise RuntimeError

        with pytest.raises(RuntimeError):
            await runner.write(fail, client="ours")
        assert (await counted(runner, None))[0] == 0


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("statement", "value", "error"),
    [
        ("SELECT nothing FROM products WHERE id = %s", "x", psycopg.errors.UndefinedColumn),
        ("SELECT 1 / %s", 0, psycopg.errors.DivisionByZero),
        ("SELECT %s", object(), psycopg.ProgrammingError),
    ],
)
async def test_a_statement_that_fails_leaves_the_connection_as_it_was(
    database_url: str, space: SpaceRow, statement: str, value: object, error: type[psycopg.Error]
) -> None:
    async with open_pool(database_url, min_size=1, max_size=1, timeout=30, role=SERVING_ROLE) as pool:
        runner = Runner(pool)

        async def fail(connection: psycopg.AsyncConnection[Any]) -> int:
            with pytest.raises(error):
                await connection.execute(statement.encode(), (value,))
            return connection.info.backend_pid

        pids = {await runner.read(fail, client="ours") for _ in range(7)}
        assert await counted(runner, "ours") == (3, "ours")
        assert (await counted(runner, None))[0] == 0
        async with pool.connection() as connection:
            assert pids == {connection.info.backend_pid}


@pytest.mark.anyio
@needs_pgbouncer
async def test_a_client_does_not_linger_behind_a_pooler_either(database_url: str, space: SpaceRow) -> None:
    with pooled(database_url, "transaction", size=1) as url:
        async with open_pool(url, min_size=1, max_size=2, timeout=30, role=SERVING_ROLE) as pool:
            runner = Runner(pool)
            for _ in range(7):
                assert await counted(runner, "ours") == (3, "ours")
                assert await counted(runner, "theirs") == (3, "theirs")
                assert (await counted(runner, None))[0] == 0
        left = "SELECT current_user = session_user, coalesce(current_setting('twinlens.client', true), '')"
        with psycopg.connect(url, prepare_threshold=None) as connection:
            assert connection.execute(left.encode()).fetchone() == (True, "")


@pytest.mark.anyio
async def test_without_a_role_no_client_is_set(database_url: str, space: SpaceRow) -> None:
    async with open_pool(database_url, min_size=1, max_size=1, timeout=30) as pool:
        assert await counted(Runner(pool), "ours") == (6, None)


# --- nothing changes for others --------------------------------------------------------------------------------------


def test_the_owner_and_the_older_application_see_and_write_what_they_did(database_url: str, space: SpaceRow) -> None:
    with login(database_url) as older:
        run_sql(
            database_url,
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON products, media, image_embeddings, {space.table} "
            f"TO {name_in(older)}",
        )
        for number, url in enumerate((database_url, older)):
            product = """INSERT INTO products (id, "clientId", name) VALUES (%(id)s, 'ours', 'P')"""
            media = """INSERT INTO media (id, "productId", "clientId", "s3Key") VALUES (%(id)s, %(id)s, 'ours', 'k')"""
            vector = f"""INSERT INTO {space.table} (space, "mediaId", embedding)
                SELECT space, %(id)s, embedding FROM {space.table} LIMIT 1"""
            for statement in (product, media, vector):
                run_sql(url, statement, {"id": f"plain-{number}"})
            assert [seen(url, None, None, table) for table in ("products", "media", "image_embeddings")] == [
                7 + number
            ] * 3
            run_sql(url, """UPDATE products SET "isActive" = false WHERE id = %s""", (f"plain-{number}",))
            active = f"""SELECT active FROM {space.table} WHERE "mediaId" = %s"""
            assert run_sql(database_url, active, (f"plain-{number}",)) == [(False,)]
        asked = "SELECT id FROM products WHERE attributes @@ '$.colour == \"red\"'"
        with psycopg.connect(older) as connection:
            connection.execute("SET enable_seqscan = off")
            plan = "\n".join(row[0] for row in connection.execute(f"EXPLAIN {asked}".encode()).fetchall())
        assert "products_attributes" in plan


@pytest.mark.anyio
async def test_triggers_follow_what_the_role_writes(database_url: str, space: SpaceRow) -> None:
    async with open_pool(database_url, min_size=1, max_size=1, timeout=30, role=SERVING_ROLE) as pool:
        catalogue = Catalogue(pool, space)
        await catalogue.put_product("ours", "ours-000001", name="Off", is_active=False)
    off = f"""SELECT "mediaId" FROM {space.table} WHERE NOT active"""
    assert run_sql(database_url, off) == [("ours-000001",)]


@pytest.mark.anyio
async def test_indexes_are_built_for_all_clients_and_used_by_the_role(
    database_url: str, space: SpaceRow, unit_vectors: UnitVectors
) -> None:
    vectors = unit_vectors(300, D, 2)
    for client in ("large", "larger"):
        fill(database_url, space, client, vectors)
    async with (
        open_pool(database_url, min_size=1, max_size=1, timeout=30, role=SERVING_ROLE) as pool,
        open_pool(database_url, min_size=1, max_size=1, timeout=30) as owners,
    ):
        catalogue = Catalogue(pool, space, background=owners)
        assert set((await catalogue.maintain_indexes(threshold=200)).built) == {"large", "larger"}
        found = await catalogue.search(Query("large", vectors[7], limit=24))
        assert (found.plan, len(found.matches)) == ("index", 24)
        assert {match.media_id[:6] for match in found.matches} == {"large-"}


@pytest.mark.anyio
async def test_a_filter_by_attributes_uses_its_index_under_the_role(
    database_url: str, space: SpaceRow, unit_vectors: UnitVectors
) -> None:
    """A policy on the products would keep the index from it: see twinlens_client_products."""
    fill(database_url, space, "many", unit_vectors(3000, D, 2))
    run_sql(database_url, "UPDATE products SET attributes = jsonb_build_object('colour', 'colour of ' || id)")
    run_sql(database_url, f"ANALYZE products, media, {space.table}")
    async with open_pool(database_url, min_size=1, max_size=1, timeout=30, role=SERVING_ROLE) as pool:
        searcher = Catalogue(pool, space).searcher
        red = Filter(attributes={"colour": "colour of many-000007"})
        asked = Query("many", [1.0] + [0.0] * (D - 1), filter=red)
        parameters = searcher._parameters(asked, Conditions.of(asked.filter))
        assert [match.media_id for match in (await searcher.search(asked)).matches] == ["many-000007"]

        async def plan(connection: psycopg.AsyncConnection[Any]) -> list[str]:
            async with connection.transaction():
                cursor = connection.cursor(row_factory=scalar_row)
                statement = b"EXPLAIN " + searcher._statements.made["near_exactly active_where"]
                await cursor.execute(statement, {**parameters, "candidates": 40})
                return await cursor.fetchall()

        lines = await Runner(pool).read(plan, client="many")
    assert any("products_attributes" in line for line in lines)
    assert any("One-Time Filter" in line for line in lines)


def test_a_new_space_is_under_the_policies_at_once(database_url: str, space: SpaceRow) -> None:
    new = spaces.register(database_url, described(NEW))
    assert run_sql(database_url, "SELECT * FROM twinlens_open_tables()") == []
    with psycopg.connect(database_url) as connection:
        row = connection.execute("SELECT relrowsecurity FROM pg_class WHERE relname = %s", (new.table,)).fetchone()
    assert row == (True,)
    spaces_seen = seen(database_url, SERVING_ROLE, "ours", new.table)
    assert spaces_seen == 0


def test_a_whole_model_is_changed_under_the_policies(database_url: str, tmp_path: Path) -> None:
    use_everything(database_url, tmp_path / "data", artifacts.another_space(tmp_path / "other"))


# --- which role it is ------------------------------------------------------------------------------------------------


def test_the_owner_s_url_beside_a_role_that_only_serves(database_url: str, tmp_path: Path) -> None:
    with login(database_url) as app:
        found = arrange(database_url, app)
        assert (found.role, found.login) == (name_in(app), name_in(app))
        assert find(app) == found
        with serving(app, tmp_path / "data", owner_database_url=database_url) as client:
            use_the_api(client, "flow")
        # Servers with the role that was made before go on meanwhile, and are still held by the policies.
        assert find(database_url).role == SERVING_ROLE
        assert seen(database_url, SERVING_ROLE, None, "products") == 0
        assert seen(app, None, None, "products") == 0


@pytest.mark.parametrize("right", ["SUPERUSER", "BYPASSRLS"])
def test_a_serving_role_that_no_policy_holds_is_refused(database_url: str, right: str) -> None:
    with login(database_url, right) as app, pytest.raises(BadSetting, match="CREATE ROLE twinlens_app LOGIN"):
        arrange(database_url, app)


def test_a_serving_role_that_owns_the_tables_is_refused(postgres_url: str) -> None:
    with database_of_its_own(postgres_url) as owner, pytest.raises(BadSetting, match="owner of the catalogue's tables"):
        arrange(owner, owner)


def test_two_urls_of_different_databases_are_refused(database_url: str, postgres_url: str) -> None:
    with pytest.raises(BadSetting, match="TWINLENS_OWNER_DATABASE_URL leads to another database"):
        arrange(database_url, postgres_url)


def test_an_owner_s_url_needs_one_that_serves() -> None:
    with pytest.raises(BadSetting, match="TWINLENS_DATABASE_URL"):
        Settings.read({"TWINLENS_OWNER_DATABASE_URL": "postgresql://owner@localhost/twinlens"})


def test_the_url_that_is_printed_is_the_owner_s(capsys: pytest.CaptureFixture[str]) -> None:
    print_url(Settings(database_url="postgresql://app@host/db", owner_database_url="postgresql://owner@host/db"))
    assert capsys.readouterr().out == "postgresql://owner@host/db\n"


def test_an_owner_who_may_make_no_role_is_told_the_statements(
    postgres_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with database_of_its_own(postgres_url) as owner:
        arranged = arrange(owner)
        assert arranged.role is None
        assert find(owner) == arranged
        settings = Settings(database_url=owner, data=tmp_path)
        arguments = type("Arguments", (), {"check": False, "adopt": False})()
        assert migrate_command.run(settings, arguments, owner) == 0
        printed = capsys.readouterr().out
        assert "the predicates of the statements alone" in printed
        for statement in arranged.statements:
            assert statement in printed.splitlines()
            run_sql(conninfo.make_conninfo(postgres_url, dbname=conninfo.conninfo_to_dict(owner)["dbname"]), statement)
        assert find(owner).reason == f"the role {SERVING_ROLE} has no rights yet"
        assert arrange(owner).role == SERVING_ROLE
        open_test_space(owner)
        assert find(owner).role == SERVING_ROLE


def test_in_a_cluster_without_the_role_an_owner_with_createrole_makes_it(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with postgres(tmp_path / "postgres") as url:
        with database_of_its_own(url) as owner:
            assert arrange(owner).statements[0] == f"CREATE ROLE {SERVING_ROLE} NOLOGIN;"
        with database_of_its_own(url, "CREATEROLE") as owner:
            assert arrange(owner) == arrange(owner)
            assert find(owner).role == SERVING_ROLE
            with serving(owner, tmp_path / "data") as client:
                use_the_api(client, "flow")


def test_a_table_that_has_lost_its_policy_is_noticed_and_mended(database_url: str) -> None:
    run_sql(database_url, "DROP POLICY twinlens_client ON media")
    assert find(database_url).reason == "the table media lacks its policies, or rights on it"
    assert arrange(database_url).role == SERVING_ROLE


def test_arranging_again_takes_no_lock(database_url: str, space: SpaceRow) -> None:
    """A start must not wait for transactions that others leave open."""
    with psycopg.connect(database_url) as connection:
        connection.execute("SELECT FROM products, media")
        assert arrange(database_url).role == SERVING_ROLE


def test_the_role_cannot_be_used_where_it_passes_by_the_policies(
    bare_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate(bare_database_url)
    with role(bare_database_url) as name:
        run_sql(bare_database_url, f"ALTER ROLE {name} BYPASSRLS")
        monkeypatch.setattr(isolation, "SERVING_ROLE", name)
        assert arrange(bare_database_url).reason == f"the role {name} owns tables, or bypasses row-level security"


def test_the_migration_that_makes_the_policies_is_of_this_name() -> None:
    assert "0008_rows" in [one.name for one in load_migrations()]
