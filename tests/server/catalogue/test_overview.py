"""The overview: what it says of clients, spaces and indexes, and that many who look cost no more than one."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import psycopg
import pytest

from server.catalogue.catalogue import Catalogue
from server.catalogue.overview import MOST_INDEXES, Overview, Seen, SpaceSeen
from server.catalogue.rows import SpaceRow
from server.catalogue.sizes import Census
from server.catalogue.tally import MOST_CLIENTS, ClientSize, SpaceSize, Tallies
from server.database.locks import LOCKS_OF_REEMBEDDING
from server.database.pool import Pool, open_pool
from server.database.runner import Runner
from server.errors import CatalogueUnavailable
from server.spaces import spaces
from tests.support.catalogue import D, fill, open_test_space
from tests.support.databases import database_of, in_database, run_sql
from tests.support.spaces import NEW, OLD, add_media, open_old, record_failure, register_new
from tests.support.vectors import unit_vectors

pytestmark = pytest.mark.anyio


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def count(pool: Pool, space: SpaceRow, tallies: Tallies) -> None:
    """As the census of a server does it."""
    await Census(
        Runner(pool), space, on_counted=lambda *_: None, on_indexes=lambda _: None, on_tally=tallies.keep
    ).count()


async def seen(url: str, space: SpaceRow, *, counted: bool = True) -> Seen:
    """What a server of this space sees that has just been started."""
    tallies = Tallies()
    async with open_pool(url, min_size=1, max_size=2, timeout=30) as pool:
        if counted:
            await count(pool, space, tallies)
        return await Overview(Runner(pool), space, tallies).look()


# --- clients ----------------------------------------------------------------------------------------------------------


async def test_an_empty_catalogue_has_no_clients_and_before_the_first_count_nothing_is_known(database_url: str) -> None:
    space = open_test_space(database_url)
    assert (await seen(database_url, space, counted=False)).tally is None
    found = await seen(database_url, space)
    assert found.tally is not None
    assert (found.tally.clients, found.tally.largest) == (0, ())
    assert (found.indexes, found.largest_indexes) == (0, ())
    ((one),) = found.spaces
    assert (one.id, one.state, one.size) == (space.id, "live", SpaceSize(vectors=0, untried=0, failed=0))


async def test_of_ten_thousand_clients_the_largest_hundred_are_named_in_one_order(database_url: str) -> None:
    space = open_test_space(database_url)
    run_sql(
        database_url,
        """
        INSERT INTO products (id, "clientId", name, "isActive")
        SELECT 'p' || n, 'client-' || to_char(n, 'FM00000'), 'A thing', n % 2 = 0 FROM generate_series(1, 10000) n;
        INSERT INTO products (id, "clientId", name) VALUES ('more', 'client-00007', 'A thing');
        INSERT INTO media (id, "productId", "clientId", "s3Key")
        SELECT 'm' || n || '-' || k, 'p' || n, 'client-' || to_char(n, 'FM00000'), 'k'
        FROM generate_series(1, 150) n, generate_series(1, CASE n WHEN 42 THEN 5 WHEN 7 THEN 3 ELSE 1 END) k
        """,
    )
    found = (await seen(database_url, space)).tally
    assert found is not None
    assert (found.clients, len(found.largest)) == (10_000, MOST_CLIENTS)
    assert found.largest[:4] == (
        ClientSize(id="client-00042", products=1, active_products=1, media=5),
        ClientSize(id="client-00007", products=2, active_products=1, media=3),
        ClientSize(id="client-00001", products=1, active_products=0, media=1),
        ClientSize(id="client-00002", products=1, active_products=1, media=1),
    )


async def test_a_client_without_media_is_one_too(database_url: str) -> None:
    space = open_test_space(database_url)
    run_sql(database_url, """INSERT INTO products (id, "clientId", name) VALUES ('p', 'bare', 'A thing')""")
    found = (await seen(database_url, space)).tally
    assert found is not None
    assert found.largest == (ClientSize(id="bare", products=1, active_products=1, media=0),)


# --- spaces -----------------------------------------------------------------------------------------------------------


def by_id(found: Seen) -> dict[str, SpaceSeen]:
    return {one.id: one for one in found.spaces}


async def test_a_space_that_is_filled_says_how_far_it_is_and_whether_somebody_fills_it(database_url: str) -> None:
    old = open_old(database_url)
    new = register_new(database_url)
    add_media(database_url, "one", "two", vectors_in=[old, new])
    add_media(database_url, "three", "four", "five", vectors_in=[old])
    add_media(database_url, "six")
    record_failure(database_url, new, "five")

    found = by_id(await seen(database_url, old))
    assert list(found) == [NEW, OLD], "the newest first"
    assert (found[OLD].state, found[OLD].size) == ("live", SpaceSize(vectors=5, untried=1, failed=0))
    assert (found[NEW].state, found[NEW].size) == ("filling", SpaceSize(vectors=2, untried=3, failed=1))
    assert not any(one.being_filled for one in found.values())

    with psycopg.connect(database_url, autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(%s, %s)", (LOCKS_OF_REEMBEDDING, new.number))
        filled = {one.id: one.being_filled for one in (await seen(database_url, old)).spaces}
        assert filled == {NEW: True, OLD: False}


async def test_after_the_switch_the_space_that_was_live_is_retired_and_nothing_is_missing_there(
    database_url: str,
) -> None:
    old = open_old(database_url)
    new = register_new(database_url)
    add_media(database_url, "one", vectors_in=[old, new])
    add_media(database_url, "two", vectors_in=[new])
    run_sql(database_url, "SELECT twinlens_make_live(%s)", (new.number,))
    found = by_id(await seen(database_url, spaces.choose(database_url, NEW)))
    assert (found[NEW].state, found[NEW].size) == ("live", SpaceSize(vectors=2, untried=0, failed=0))
    assert (found[OLD].state, found[OLD].size) == ("retired", SpaceSize(vectors=1))
    assert found[OLD].retired_at is not None
    # A server that was not started anew searches the old one still, and sees both.
    found = by_id(await seen(database_url, old))
    assert (found[NEW].state, found[OLD].state) == ("live", "retired")


# --- indexes ----------------------------------------------------------------------------------------------------------


async def test_an_index_says_whose_it_is_and_how_well_it_finds(database_url: str) -> None:
    space = open_test_space(database_url)
    fill(database_url, space, "acme", unit_vectors(600, D, 1))
    fill(database_url, space, "zoo's", unit_vectors(700, D, 2))
    async with open_pool(database_url, min_size=1, max_size=4, timeout=30) as pool:
        await Catalogue(pool, space).maintain_indexes(threshold=500)
    run_sql(
        database_url,
        """
        DELETE FROM twinlens_indexes WHERE "clientId" = 'zoo''s';
        INSERT INTO twinlens_recall (space, "clientId", embedding, "limit", expected, found)
        SELECT 1, 'acme', '[1]'::halfvec, 24, expected, found
        FROM (VALUES (24, 24), (24, 18), (0, 0)) AS one (expected, found)
        """,
    )
    found = await seen(database_url, space)
    unmeasured, measured = found.largest_indexes
    assert found.indexes == 2
    assert (unmeasured.client_id, unmeasured.state, unmeasured.recall) == ("zoo's", "ready", None)
    assert (measured.client_id, measured.state, measured.vectors) == ("acme", "ready", 600)
    assert measured.recall is not None
    assert 0.9 <= measured.recall <= 1
    assert measured.compared == 3
    assert measured.compared_recall == pytest.approx((1 + 0.75 + 1) / 3)


async def test_of_many_indexes_some_are_named_and_all_are_counted(database_url: str) -> None:
    space = open_test_space(database_url)
    fill(database_url, space, "acme", unit_vectors(2, D, 1))
    for number in range(MOST_INDEXES + 1):
        run_sql(
            database_url,
            f"CREATE INDEX {space.table}_hnsw_{number:024} ON {space.table} USING hnsw (embedding halfvec_ip_ops) "
            f"WHERE \"clientId\" = 'client-{number}' AND active",
        )
    found = await seen(database_url, space)
    assert (found.indexes, len(found.largest_indexes)) == (MOST_INDEXES + 1, MOST_INDEXES)


# --- how often --------------------------------------------------------------------------------------------------------


async def test_those_who_look_at_once_or_soon_after_another_are_shown_the_same(database_url: str) -> None:
    space, clock, tallies = open_test_space(database_url), Clock(), Tallies()
    async with open_pool(database_url, min_size=1, max_size=2, timeout=30) as pool:
        overview = Overview(Runner(pool), space, tallies, clock=clock)
        first, *others = await asyncio.gather(*(overview.look() for _ in range(20)))
        assert all(one is first for one in others)
        clock.now = 4.9
        assert await overview.look() is first
        clock.now = 5.0
        assert await overview.look() is not first


async def test_while_the_database_is_away_it_says_so_and_afterwards_it_looks_again(database_url: str) -> None:
    space, clock = open_test_space(database_url), Clock()
    async with open_pool(database_url, min_size=1, max_size=2, timeout=30) as pool:
        overview = Overview(Runner(pool), space, Tallies(), clock=clock)
        await overview.look()
        name = database_of(database_url)
        with psycopg.connect(in_database(database_url, "postgres"), autocommit=True) as connection:
            connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
            clock.now = 60.0
            with pytest.raises(CatalogueUnavailable):
                await overview.look()
            connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
        async with asyncio.timeout(30):
            while True:
                try:
                    assert len((await overview.look()).spaces) == 1
                    break
                except CatalogueUnavailable:
                    await asyncio.sleep(0.05)


# --- several workers --------------------------------------------------------------------------------------------------


async def test_what_one_worker_has_counted_every_worker_knows(database_url: str, tmp_path: Path) -> None:
    space = open_test_space(database_url)
    fill(database_url, space, "acme", unit_vectors(3, D, 1))
    one, other = Tallies(tmp_path), Tallies(tmp_path)
    assert other.last() is None
    async with open_pool(database_url, min_size=1, max_size=2, timeout=30) as pool:
        await count(pool, space, one)
        found = await Overview(Runner(pool), space, other).look()
    assert found.tally == one.last()
    assert found.tally is not None
    assert found.tally.largest == (ClientSize(id="acme", products=3, active_products=3, media=3),)
    assert os.listdir(tmp_path) == ["tally.json"], "nothing is left beside it"
