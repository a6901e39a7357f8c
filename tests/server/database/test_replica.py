"""Reads on a real standby of a real PostgreSQL, and on the primary whenever the standby cannot be trusted."""

from __future__ import annotations

import asyncio
import logging
import re
import signal
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
from psycopg import AsyncConnection, conninfo

from server.catalogue.catalogue import Catalogue
from server.catalogue.rows import NewMedia, Query, SpaceRow
from server.database.isolation import SERVING_ROLE, arrange
from server.database.migrations import migrate
from server.database.pool import open_pool
from server.database.replica import Replica
from server.database.runner import Runner
from server.errors import BadParameter, CatalogueUnavailable, DatabaseUnusable
from server.postgres.server import EmbeddedPostgres
from tests.support.catalogue import D, open_test_space
from tests.support.databases import as_role, database_of, discard, fresh_database, in_database, role, run_sql
from tests.support.process import KEYBOARD
from tests.support.serving import serving
from tests.support.standby import BRIEF_REPLAY_CONFLICTS, Standby, follow
from tests.support.vectors import UnitVectors

pytestmark = pytest.mark.anyio

QUICK = ("fsync=off", "full_page_writes=off")
PATIENCE = 60.0  # seconds until something that never comes is called missing


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.01)


# --- two servers, and a catalogue that knows both --------------------------------------------------------------------


class Pair(NamedTuple):
    primary: EmbeddedPostgres
    standby: Standby


@contextmanager
def pair_of_servers() -> Iterator[Pair]:
    # All can walk to it, so that under root, too, the databases lie in it.
    with tempfile.TemporaryDirectory(prefix="twinlens-test-", ignore_cleanup_errors=True) as name:
        home = Path(name)
        home.chmod(0o755)
        primary = EmbeddedPostgres(home / "primary", extra_settings=QUICK)
        try:
            primary.start()
            with Standby(primary, home / "standby", extra_settings=[*QUICK, BRIEF_REPLAY_CONFLICTS]) as standby:
                yield Pair(primary, standby)
        finally:
            discard(primary)


@pytest.fixture(scope="module")
def servers() -> Iterator[Pair]:
    """For tests that leave both as they are."""
    with pair_of_servers() as pair:
        yield pair


@pytest.fixture
def own_servers() -> Iterator[Pair]:
    """For a test that breaks one of them."""
    with pair_of_servers() as pair:
        yield pair


class Place(NamedTuple):
    """A database with a space, on both servers."""

    url: str
    standby_url: str
    space: SpaceRow


@contextmanager
def place_on(pair: Pair) -> Iterator[Place]:
    with fresh_database(pair.primary.url) as url:
        migrate(url)
        space = open_test_space(url)
        arrange(url)
        pair.standby.catch_up()
        yield Place(url, in_database(pair.standby.url, database_of(url)), space)


@pytest.fixture
def place(servers: Pair) -> Iterator[Place]:
    with place_on(servers) as place:
        yield place


class Server(NamedTuple):
    """What a server has of the database."""

    catalogue: Catalogue
    replica: Replica
    reads: Counter[str]
    """How often reads were answered where, or why there."""


@asynccontextmanager
async def server_of(url: str, replica_url: str, space: SpaceRow, wait: float = 10.0) -> AsyncIterator[Server]:
    reads: Counter[str] = Counter()
    async with (
        open_pool(url, min_size=1, max_size=8, timeout=wait, role=SERVING_ROLE) as pool,
        Replica(
            replica_url, Runner(pool), longest=30.0, on_read=lambda answered, _: reads.update([answered])
        ) as replica,
    ):
        yield Server(Catalogue(pool, space, replica=replica), replica, reads)


async def add(catalogue: Catalogue, number: int, vector: Any, client_id: str = "acme") -> str:
    product = f"{client_id}-{number:05}"
    await catalogue.put_product(client_id, product, name=product)
    names = {"s3_key": product, "thumbnail_key": None, "content_type": None}
    facts = {
        "bytes": None,
        "width": None,
        "height": None,
        "content_digest": product.encode().ljust(32),
        "upload": product,
    }
    media, _ = await catalogue.add_media(NewMedia(f"m-{product}", product, client_id, **names, **facts), vector)  # type: ignore[arg-type]
    return media.id


async def found(catalogue: Catalogue, vector: Any, client_id: str = "acme") -> list[str]:
    return [match.media_id for match in (await catalogue.search(Query(client_id, vector, limit=3))).matches]


async def ask(connection: AsyncConnection[Any], statement: str = "SELECT pg_is_in_recovery()") -> Any:
    row = await (await connection.execute(statement.encode())).fetchone()
    return row and row[0]


def asking(statement: str) -> Callable[[AsyncConnection[Any]], Any]:
    return lambda connection: ask(connection, statement)


# A read that lasts on a standby, and says whether it was answered by one.
LONG = "SELECT pg_is_in_recovery() FROM pg_sleep(CASE WHEN pg_is_in_recovery() THEN 600 ELSE 0 END)"


async def reading_long(one: Server, standby_url: str, statement: str = LONG) -> asyncio.Task[Any]:
    """A read that runs on the standby now. On a busy machine the standby may be behind for a moment, so that the
    primary answers: then it is tried again."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE query = %s AND state = 'active'"
    while True:
        await until(lambda: one.replica.used)
        reading = asyncio.create_task(one.replica.read(asking(statement)))
        await until(lambda task=reading: task.done() or run_sql(standby_url, query, (statement,)) == [(1,)])  # type: ignore[misc]
        if not reading.done():
            return reading
        assert await reading is False  # by the primary; what it refuses is raised here


async def asked_of_standby(one: Server) -> None:
    """Wait until a read is answered by the standby."""
    async with asyncio.timeout(PATIENCE):
        while not await one.replica.read(ask):
            await until(lambda: one.replica.used)


# --- what follows an acknowledged write sees it ----------------------------------------------------------------------


async def test_a_search_that_the_standby_cannot_answer_yet_is_answered_by_the_primary(
    servers: Pair, place: Place, unit_vectors: UnitVectors
) -> None:
    vectors = unit_vectors(3, D)
    async with server_of(*place) as one:
        await until(lambda: one.replica.used)
        first = await add(one.catalogue, 0, vectors[0])
        assert await found(one.catalogue, vectors[0]) == [first]
        await until(lambda: one.replica.used)
        with servers.standby.paused():
            by_replica = one.reads["replica"]
            second = await add(one.catalogue, 1, vectors[1])
            assert (await found(one.catalogue, vectors[1]))[0] == second
            assert one.reads["replica"] == by_replica
            assert run_sql(place.standby_url, "SELECT count(*) FROM media") == [(1,)]
        await until(lambda: one.replica.used)
        by_primary = one.reads.total() - one.reads["replica"]
        third = await add(one.catalogue, 2, vectors[2])
        servers.standby.catch_up()
        assert (await found(one.catalogue, vectors[2]))[0] == third
        assert one.reads.total() - one.reads["replica"] == by_primary


async def test_whatever_one_server_has_acknowledged_is_found_at_once_by_another_beside_constant_writing(
    place: Place, unit_vectors: UnitVectors
) -> None:
    rounds = 300
    vectors = unit_vectors(rounds, D)
    async with server_of(*place) as one, server_of(*place) as other:
        await until(lambda: other.replica.used)

        async def write(client_id: str) -> None:
            for number in range(10**6):
                await add(one.catalogue, number, vectors[number % rounds], client_id)

        writing = [asyncio.create_task(write(client_id)) for client_id in ("noise", "more noise")]
        for number, vector in enumerate(vectors):
            added = await add(one.catalogue, number, vector)
            assert (await found(other.catalogue, vector))[0] == added, number
        for task in writing:
            task.cancel()
        await asyncio.wait(writing)
    assert other.reads["replica"] > 0
    assert other.reads.total() >= rounds


async def test_where_commits_do_not_wait_for_the_disk_searches_see_them_all_the_same(
    place: Place, unit_vectors: UnitVectors
) -> None:
    name = conninfo.conninfo_to_dict(place.url)["dbname"]
    run_sql(place.url, f'ALTER DATABASE "{name}" SET synchronous_commit = off')
    vectors = unit_vectors(30, D)
    async with server_of(*place) as one, server_of(*place) as other:
        await until(lambda: other.replica.used)
        for number, vector in enumerate(vectors):
            added = await add(one.catalogue, number, vector)
            assert (await found(other.catalogue, vector))[0] == added, number


async def test_a_log_file_that_is_ended_early_keeps_no_search_from_the_standby(servers: Pair, place: Place) -> None:
    async with server_of(*place) as one:
        await until(lambda: one.replica.used)
        run_sql(place.url, "SELECT pg_switch_wal()")
        servers.standby.catch_up()
        await asked_of_standby(one)


# --- a standby in trouble --------------------------------------------------------------------------------------------


async def test_a_standby_that_dies_under_a_read_is_replaced_by_the_primary_and_used_again_once_it_is_back(
    servers: Pair, place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "server.database.replica")
    async with server_of(*place) as one:
        reading = await reading_long(one, place.standby_url)
        await asyncio.to_thread(servers.standby.kill)
        assert await reading is False
        assert [await one.replica.read(ask) for _ in range(20)] == [False] * 20
        await asyncio.to_thread(servers.standby.start)
        await asked_of_standby(one)
    said = [record.getMessage() for record in caplog.records if record.name == "server.database.replica"]
    assert said[0].startswith("Searches go to the read replica")
    assert said[-1].startswith("Searches go to the read replica")
    # A line for each change: on a busy machine the standby may also be behind for a moment.
    assert {line.startswith("Searches go to the primary") for line in said[1::2]} == {True}, said
    assert any("cannot be used" in line for line in said)


async def test_a_standby_that_does_not_answer_is_left_and_what_waits_for_it_goes_to_the_primary(
    servers: Pair, place: Place
) -> None:
    async with server_of(*place) as one:
        reading = await reading_long(one, place.standby_url)
        postmaster = psutil.Process(servers.standby.postgres.pid)
        stopped = [postmaster, *postmaster.children(recursive=True)]
        for process in stopped:
            process.send_signal(signal.SIGSTOP)
        try:
            async with asyncio.timeout(20.0):  # of the 600 seconds that the read would last
                assert await one.replica.read(ask) is False
                assert await reading is False
            assert not one.replica.used
        finally:
            for process in reversed(stopped):
                process.send_signal(signal.SIGCONT)
        await asked_of_standby(one)


async def test_a_read_that_the_replay_is_in_conflict_with_is_answered_by_the_primary(place: Place) -> None:
    run_sql(place.url, "CREATE TABLE short_lived AS SELECT generate_series(1, 1000) AS number")
    run_sql(place.url, f"GRANT SELECT ON short_lived TO {SERVING_ROLE}")
    long = LONG.replace(" FROM ", " FROM short_lived, ") + " LIMIT 1"
    async with server_of(*place) as one:
        await until(lambda: one.replica.used)
        run_sql(place.url, "DELETE FROM short_lived WHERE number > 1")
        reading = await reading_long(one, place.standby_url, long)
        by_conflict = one.reads["conflict"]
        while not reading.done():  # a vacuum passes over rows that another transaction may still see
            await asyncio.to_thread(run_sql, place.url, "VACUUM short_lived")
            await asyncio.sleep(0.1)
        assert await reading is False
        assert one.reads["conflict"] == by_conflict + 1


async def test_what_is_wrong_with_the_statement_itself_says_the_primary_and_the_standby_stays_in_use(
    place: Place,
) -> None:
    async with server_of(*place) as one:
        await asked_of_standby(one)
        with pytest.raises(BadParameter):
            await one.replica.read(asking("SELECT 1 / 0"))
        await asked_of_standby(one)


async def test_a_caller_who_leaves_breaks_nothing(place: Place) -> None:
    async with server_of(*place) as one:
        reading = await reading_long(one, place.standby_url)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await asked_of_standby(one)


async def test_more_reads_than_connections_to_the_standby_are_answered_by_both(place: Place) -> None:
    async with server_of(*place) as one:
        await asked_of_standby(one)
        one.reads.clear()
        answered = await asyncio.gather(*(one.replica.read(asking("SELECT 1 FROM pg_sleep(0.7)")) for _ in range(12)))
    assert answered == [1] * 12
    assert one.reads.total() == 12
    assert 1 <= one.reads["replica"] <= 8


async def test_without_the_primary_nothing_is_answered_although_the_standby_could(servers: Pair, place: Place) -> None:
    async with server_of(*place, wait=1.0) as one:
        await asked_of_standby(one)
        await asyncio.to_thread(servers.primary.close)
        try:
            with pytest.raises(CatalogueUnavailable):
                await one.replica.read(ask)
            assert run_sql(place.standby_url, "SELECT 1") == [(1,)]
        finally:
            await asyncio.to_thread(servers.primary.start)
        servers.standby.catch_up()


# --- what is no standby of the primary -------------------------------------------------------------------------------


async def test_a_standby_that_was_promoted_is_not_asked_any_more(own_servers: Pair, unit_vectors: UnitVectors) -> None:
    vectors = unit_vectors(2, D)
    with place_on(own_servers) as place:
        async with server_of(*place) as one:
            await until(lambda: one.replica.used)
            added = await add(one.catalogue, 0, vectors[0])
            own_servers.standby.catch_up()
            await asyncio.to_thread(own_servers.standby.promote)
            run_sql(place.standby_url, "DELETE FROM products")
            by_replica = one.reads["replica"]
            assert [await found(one.catalogue, vectors[0]) for _ in range(20)] == [[added]] * 20
            assert one.reads["replica"] == by_replica
            assert not one.replica.used


async def test_after_a_failover_a_standby_of_the_new_primary_is_used_and_one_of_the_old_is_not(
    own_servers: Pair, unit_vectors: UnitVectors, caplog: pytest.LogCaptureFixture
) -> None:
    old, new = own_servers.primary, own_servers.standby
    home = old.data.parent
    (vector,) = unit_vectors(1, D)
    with place_on(own_servers) as place, Standby(old, home / "third", extra_settings=QUICK) as third:

        def of(standby: Standby) -> str:
            return conninfo.make_conninfo(place.url, host=conninfo.conninfo_to_dict(standby.url)["host"])

        third.catch_up()
        third.stop()
        new.catch_up()
        new.promote()
        follow(third.postgres, new.postgres)
        third.start()
        async with server_of(place.standby_url, of(third), place.space) as one:
            await asked_of_standby(one)
        # The old primary goes on, and its standby has replayed more than the new primary has written.
        run_sql(place.url, "CREATE TABLE stray AS SELECT generate_series(1, 200000)")
        with Standby(old, home / "fourth", extra_settings=QUICK) as fourth:
            async with server_of(place.standby_url, of(fourth), place.space) as one:
                await until(lambda: "timeline 1, and the primary on 2" in caplog.text)
                added = await add(one.catalogue, 0, vector)
                assert await found(one.catalogue, vector) == [added]
                assert one.reads == {"unused": one.reads.total()}


async def test_another_database_is_not_taken_for_a_standby(
    place: Place, postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    for url, reason in (
        (postgres_url, "belongs to another PostgreSQL than the primary"),
        (place.url, "is not a standby"),
    ):
        async with server_of(place.url, conninfo.make_conninfo(url, target_session_attrs="any"), place.space) as one:
            await until(lambda reason=reason: reason in caplog.text)  # type: ignore[misc]
            assert await one.replica.read(ask) is False
            assert one.reads == {"unused": 1}


async def test_a_user_who_may_not_serve_as_the_role_is_told_and_the_primary_is_asked(
    place: Place, servers: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with role(place.url) as reader:
        run_sql(place.url, f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {reader}")
        servers.standby.catch_up()
        async with server_of(place.url, as_role(place.standby_url, reader), place.space) as one:
            await until(lambda: f"does not let its user serve as the role {SERVING_ROLE}" in caplog.text)
            assert await one.replica.read(ask) is False


@pytest.mark.parametrize("url", ["hunter", "postgresql://someone:hunt@hunter@127.0.0.1/x", "postgresql://a:hunter@[/x"])
async def test_a_url_that_cannot_be_read_is_refused_without_the_password(place: Place, url: str) -> None:
    async with open_pool(place.url, min_size=1, max_size=1, timeout=10) as pool:
        with pytest.raises(DatabaseUnusable) as refusal:
            Replica(url, Runner(pool), longest=1.0)
    assert "hunter" not in str(refusal.value)


# --- the whole server ------------------------------------------------------------------------------------------------


def test_a_picture_that_one_server_has_stored_is_found_by_another_that_searches_on_a_standby(
    servers: Pair, tmp_path: Path
) -> None:
    with fresh_database(servers.primary.url) as url:
        migrate(url)
        arrange(url)
        servers.standby.catch_up()
        replica = in_database(servers.standby.url, database_of(url))
        with serving(url, tmp_path) as one, serving(url, tmp_path, read_database_url=replica) as other:
            for number in range(20):
                one.put(f"/v1/products/p{number}", json={"name": "Keyboard"}).raise_for_status()
                picture = KEYBOARD + bytes([number])  # behind the picture's end: other bytes, the same pixels
                one.post(f"/v1/products/p{number}/media", files={"file": picture}).raise_for_status()
                answer = other.post("/v1/search", files={"file": picture}).raise_for_status().json()
                assert answer["results"][0]["productId"] == f"p{number}"
            figures = other.get("/metrics").text
            assert other.get("/health/ready").status_code == 200
        used = re.search(r'twinlens_search_reads_total\{server="replica",why=""\} ([0-9.]+)', figures)
        assert used
        assert float(used[1]) > 0
