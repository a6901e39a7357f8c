"""Behind a pooler: Debian's pgbouncer, which gives each connection or each transaction a session of PostgreSQL."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from server.catalogue.catalogue import Catalogue
from server.catalogue.rows import Query
from server.database.advisory import held_if_free
from server.database.connections import Direct, connect, connection_of_its_own
from server.database.locks import LOCKS
from server.database.migrations import migrate, migrate_directly
from server.database.pool import open_pool
from server.errors import BadSetting, SessionNeeded
from server.settings import Pooling, Settings
from tests.support import artifacts
from tests.support.catalogue import D, fill, open_test_space
from tests.support.databases import run_sql
from tests.support.flow import KEYBOARD, use_everything
from tests.support.odd_defaults import make_odd
from tests.support.pgbouncer import needs_pgbouncer, pooled
from tests.support.process import Serve
from tests.support.spaces import older_database
from tests.support.vectors import UnitVectors

pytestmark = needs_pgbouncer

LOCK = (LOCKS, 99)


@pytest.fixture
def pooler(database_url: str) -> Iterator[str]:
    """The test's database behind a pooler of transactions, with two connections to PostgreSQL."""
    with pooled(database_url, "transaction") as url:
        yield url


def leftovers(pooler: str, size: int = 2) -> list[set[Any]]:
    """What a stranger finds in each of the pooler's sessions: settings that somebody made, prepared statements."""
    found = []
    with ExitStack() as stack:
        for _ in range(size):  # each holds its session, so that the next one gets another
            connection = stack.enter_context(psycopg.connect(pooler, prepare_threshold=None))
            made = connection.execute(
                "SELECT name, setting FROM pg_settings WHERE source = 'session' AND setting <> reset_val "
                "UNION SELECT name, statement FROM pg_prepared_statements"
            )
            found.append(set(made.fetchall()))
    return found


def locks(url: str) -> list[Any]:
    return run_sql(
        url,
        "SELECT classid, objid FROM pg_locks JOIN pg_database d ON d.oid = database "
        "WHERE locktype = 'advisory' AND datname = current_database()",
    )


# --- how the pooler works is found out -------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("mode", "settings", "pooling", "per_transaction"),
    [
        ("transaction", {}, "auto", True),
        ("transaction", {"server_round_robin": 1}, "auto", True),
        ("transaction", {"size": 1}, "auto", True),
        ("session", {"size": 8}, "auto", False),
        ("session", {"size": 2}, "auto", True),  # no third connection is to be had, so nothing is certain
        ("session", {"size": 2}, "session", False),
        ("session", {"size": 2}, "transaction", True),
    ],
)
async def test_how_a_pooler_works_is_found_out_or_said(
    database_url: str, mode: str, settings: dict[str, Any], pooling: Pooling, per_transaction: bool
) -> None:
    with pooled(database_url, mode, **settings) as url:
        async with connection_of_its_own(url, pooling=pooling) as connection:
            assert (connection.per_transaction is not None) is per_transaction
            assert await (await connection.execute("SELECT current_setting('jit')")).fetchone() == ("off",)


@pytest.mark.anyio
async def test_without_a_pooler_settings_are_those_of_the_session(database_url: str) -> None:
    async with connection_of_its_own(database_url) as connection:
        assert connection.per_transaction is None


# --- everything works, and nothing is left behind --------------------------------------------------------------------


@pytest.mark.parametrize("odd", [False, True])
def test_everything_works_behind_a_pooler_of_transactions(database_url: str, tmp_path: Path, odd: bool) -> None:
    if odd:
        make_odd(database_url)
    with pooled(database_url, "transaction") as url:
        before = leftovers(url)
        use_everything(url, tmp_path / "data", artifacts.another_space(tmp_path / "other"))
        assert leftovers(url) == before
    assert locks(database_url) == []


def test_everything_works_behind_a_pooler_of_sessions(database_url: str, tmp_path: Path) -> None:
    with pooled(database_url, "session", size=30) as url:
        use_everything(url, tmp_path / "data", artifacts.another_space(tmp_path / "other"))


def test_several_workers_serve_many_callers_through_two_connections(
    pooler: str, database_url: str, serve: Serve
) -> None:
    before = leftovers(pooler)
    server = serve("--database-url", pooler, "--workers", "2", "--deadline", "60").ready(2)
    wrong: list[str] = []

    def call(number: int) -> None:
        def note(answer: httpx.Response) -> None:
            if answer.is_error:
                wrong.append(f"{answer.request.method} {answer.request.url}: {answer.status_code} {answer.text}")

        with server.client() as client:
            for turn in range(6):
                product = f"/v1/products/p-{number}-{turn}"
                note(client.put(product, json={"name": "A thing"}))
                note(client.post(f"{product}/media", files={"file": KEYBOARD}))
                note(client.post("/v1/search", files={"file": KEYBOARD}))
                if turn % 2:
                    note(client.delete(product))

    callers = [threading.Thread(target=call, args=(number,)) for number in range(8)]
    for one in callers:
        one.start()
    for one in callers:
        one.join()
    assert wrong == []
    assert run_sql(database_url, "SELECT count(*) FROM media") == [(24,)]
    assert server.stop() == 0
    log = "".join(server.log)
    assert "each transaction" in log
    assert "Traceback" not in log
    assert leftovers(pooler) == before
    assert locks(database_url) == []


@pytest.mark.anyio
async def test_what_a_stranger_left_in_a_session_does_no_harm(pooler: str, database_url: str) -> None:
    with ExitStack() as stack:
        for _ in range(2):
            stranger = stack.enter_context(psycopg.connect(pooler, prepare_threshold=None))
            for setting in ("search_path = pg_catalog", "DateStyle = German", "statement_timeout = 50"):
                stranger.execute(f"SET {setting}")
            stranger.commit()
            stranger.execute("SELECT 1")
    async with open_pool(pooler, min_size=1, max_size=2, timeout=10) as pool, pool.connection() as connection:
        for _ in range(7):
            cursor = await connection.execute('SELECT count("createdAt"), now(), pg_sleep(0.06) FROM products')
            rows = await cursor.fetchall()
            assert rows[0][0] == 0
        with pytest.raises(psycopg.errors.UndefinedTable):
            await connection.execute("SELECT FROM nothing")
        async with connection.transaction(), connection.transaction():
            cursor = await connection.execute("SELECT current_setting('DateStyle')")
            assert cursor.rowcount == 1
            assert await cursor.fetchone() == ("ISO, MDY",)
        async with connection.transaction(force_rollback=True):
            await connection.execute("INSERT INTO products (id, \"clientId\", name) VALUES ('p', 'c', 'P')")
    assert run_sql(database_url, "SELECT count(*) FROM products") == [(0,)]


def test_single_connections_see_and_write_what_they_should(pooler: str, database_url: str) -> None:
    with connect(pooler) as connection:
        connection.execute("CREATE TABLE here (number integer)")
        connection.execute("INSERT INTO here VALUES (%s)", (1,))
        with pytest.raises(psycopg.errors.DivisionByZero):
            connection.execute("SELECT 1 / 0")
        with connection.transaction():
            connection.execute("INSERT INTO here VALUES (2)")
        assert connection.execute("SELECT sum(number) FROM here").fetchone() == (3,)
        connection.only_read()
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            connection.execute("INSERT INTO here VALUES (3)")
    assert run_sql(database_url, "SELECT sum(number) FROM here") == [(3,)]
    run_sql(pooler, "INSERT INTO here VALUES (4)")  # no session is left read-only


# --- locks -----------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("mode", ["session", "transaction"])
async def test_a_lock_is_held_by_one_and_released(database_url: str, mode: str) -> None:
    with pooled(database_url, mode, size=6) as url:
        for _ in range(3):
            async with held_if_free(url, LOCK) as mine, held_if_free(url, LOCK) as other:
                assert (mine, other) == (True, False)
        assert locks(database_url) == []


@pytest.mark.anyio
async def test_a_lock_that_is_held_for_long_holds_up_no_vacuum(pooler: str, database_url: str) -> None:
    run_sql(database_url, "CREATE TABLE here AS SELECT generate_series(1, 1000) AS number")
    async with held_if_free(pooler, LOCK) as mine:
        assert mine
        run_sql(database_url, "DELETE FROM here")
        run_sql(database_url, "VACUUM here")
        assert run_sql(database_url, "SELECT pg_relation_size('here')") == [(0,)]


@pytest.mark.anyio
async def test_a_lock_goes_with_the_process_that_holds_it(pooler: str, database_url: str) -> None:
    async def hold() -> None:
        async with held_if_free(pooler, LOCK):
            await asyncio.Event().wait()

    task = asyncio.create_task(hold())
    while not locks(database_url):
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert locks(database_url) == []


@pytest.mark.anyio
async def test_a_pooler_that_comes_back_in_another_mode_is_found_out_anew(
    database_url: str, unit_vectors: UnitVectors
) -> None:
    with ExitStack() as stack:
        first = stack.enter_context(ExitStack())
        url = first.enter_context(pooled(database_url, "session", size=4))
        async with open_pool(url, min_size=2, max_size=2, timeout=30) as pool:
            catalogue = Catalogue(pool, open_test_space(database_url))
            await asyncio.gather(*(write_and_read(catalogue, unit_vectors, number) for number in range(8)))
            await asyncio.to_thread(first.close)
            folder = Path(str(psycopg.conninfo.conninfo_to_dict(url)["host"]))
            stack.enter_context(pooled(database_url, "transaction", folder=folder))
            await asyncio.gather(*(write_and_read(catalogue, unit_vectors, number) for number in range(8, 24)))
            assert leftovers(url) == [set(), set()]


async def write_and_read(catalogue: Catalogue, unit_vectors: UnitVectors, number: int) -> None:
    """Often enough that psycopg would prepare each statement."""
    for turn in range(8):
        await catalogue.put_product("acme", f"{number}", name=f"Turn {turn}")
        assert (await catalogue.get_product("acme", f"{number}")).name == f"Turn {turn}"
    await catalogue.search(Query("acme", unit_vectors(1, D, number)[0], limit=3))


# --- what needs a session says so ------------------------------------------------------------------------------------


def test_migrations_are_refused_behind_a_pooler_of_transactions(bare_database_url: str, tmp_path: Path) -> None:
    with pooled(bare_database_url, "transaction") as url:
        with pytest.raises(SessionNeeded, match="TWINLENS_DIRECT_DATABASE_URL"):
            migrate(url)
        assert run_sql(bare_database_url, "SELECT to_regclass('twinlens_migrations')") == [(None,)]
        older_database(bare_database_url, tmp_path / "sql")
        with pytest.raises(SessionNeeded, match="TWINLENS_DIRECT_DATABASE_URL"):
            migrate(url)
        migrate(bare_database_url)
        assert migrate(url) == []
    assert locks(bare_database_url) == []


def test_migrations_run_behind_a_pooler_of_sessions(bare_database_url: str) -> None:
    with pooled(bare_database_url, "session", size=4) as url:
        assert len(migrate(url)) >= 3
        assert migrate(url) == []


def test_a_server_migrates_through_the_direct_url(bare_database_url: str, serve: Serve) -> None:
    with pooled(bare_database_url, "transaction") as url:
        refused = serve("--database-url", url)
        assert refused.end() == 2
        assert "TWINLENS_DIRECT_DATABASE_URL" in refused.log[-1]
        server = serve("--database-url", url, "--direct-database-url", bare_database_url).ready()
        assert server.search() == []
        assert server.stop() == 0
        assert "builds no indexes" not in "".join(server.log)
        without = serve("--database-url", url).ready().wait_for("builds no indexes.*TWINLENS_DIRECT_DATABASE_URL")
        assert without.stop() == 0
        assert sum("builds no indexes" in line for line in without.log) == 1


def test_a_direct_url_of_another_database_is_refused(pooler: str, database_url: str, bare_database_url: str) -> None:
    with pytest.raises(BadSetting, match="leads to another database"):
        migrate_directly(Settings(direct_database_url=bare_database_url), pooler)
    assert run_sql(bare_database_url, "SELECT to_regclass('twinlens_migrations')") == [(None,)]
    assert migrate_directly(Settings(direct_database_url=database_url), pooler) == []


@pytest.mark.anyio
async def test_indexes_are_built_through_the_direct_url_and_used_through_the_pooler(
    pooler: str, database_url: str, unit_vectors: UnitVectors
) -> None:
    space = open_test_space(pooler)
    vectors = unit_vectors(600, D, 1)
    fill(database_url, space, "large", vectors)
    async with open_pool(pooler, min_size=1, max_size=2, timeout=30) as pool:
        with pytest.raises(SessionNeeded, match="TWINLENS_DIRECT_DATABASE_URL"):
            await Catalogue(pool, space).maintain_indexes(threshold=500)
        catalogue = Catalogue(pool, space, direct=Direct(database_url))
        assert (await catalogue.maintain_indexes(threshold=500)).built == ("large",)
        found = await catalogue.search(Query("large", vectors[7], limit=24))
    assert (found.plan, len(found.matches)) == ("index", 24)
    assert found.matches[0].product_id == "large-000007"
