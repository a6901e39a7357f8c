"""The census: what a database holds, of all clients, and what of it searches cannot find."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress

import psycopg
import pytest

from server.catalogue import sizes as sizes_module
from server.catalogue.catalogue import Catalogue
from server.catalogue.rows import SpaceRow
from server.catalogue.sizes import Census
from server.database.pool import open_pool
from server.database.runner import Runner
from tests.support.catalogue import D, fill, open_test_space
from tests.support.databases import run_sql
from tests.support.vectors import unit_vectors

pytestmark = pytest.mark.anyio


class Counted:
    """What a census has told."""

    def __init__(self) -> None:
        self.sizes: list[tuple[str, Mapping[str, int], Mapping[str, int], float]] = []
        self.indexes: list[Mapping[str, int]] = []

    def of(self, runner: Runner, space: SpaceRow) -> Census:
        return Census(
            runner,
            space,
            on_counted=lambda *told: self.sizes.append(told),
            on_indexes=self.indexes.append,
        )


async def test_it_counts_all_clients_and_what_has_no_vector(database_url: str) -> None:
    space, told = open_test_space(database_url), Counted()
    async with open_pool(database_url, min_size=1, max_size=2, timeout=30) as pool:
        census = told.of(Runner(pool), space)
        await census.count()
        assert set(told.sizes[-1][1].values()) == {0}
        assert told.sizes[-1][3] == 0.0
        fill(database_url, space, "acme", unit_vectors(5, D, 1))
        fill(database_url, space, "zoo", unit_vectors(3, D, 2))
        run_sql(
            database_url,
            """
            INSERT INTO products (id, "clientId", name, "isActive") VALUES ('off', 'bare', 'A thing', false);
            INSERT INTO media (id, "productId", "clientId", "s3Key", status, kind) VALUES
                ('new', 'off', 'bare', 'k', 'ready', 'image'), ('bad', 'off', 'bare', 'k', 'ready', 'image'),
                ('film', 'off', 'bare', 'k', 'ready', 'video'), ('coming', 'off', 'bare', 'k', 'pending', 'image'),
                ('aside', 'off', 'bare', 'k', 'pending', 'image'), ('theirs', 'off', 'bare', 'k', 'failed', 'image');
            UPDATE twinlens_pending SET code = 'not_a_picture' WHERE "mediaId" = 'aside';
            UPDATE media SET status = 'failed' WHERE id = 'aside';
            INSERT INTO twinlens_unreadable (space, "mediaId", reason) VALUES (1, 'bad', 'damaged')
            """,
        )
        assert await census.count() > 0
    assert told.sizes[-1][:3] == (
        space.id,
        {
            "clients": 3,
            "products": 9,
            "active_products": 8,
            "media": 14,
            "media_of_largest_client": 6,
            "vectors": 8,
            "pending_media": 1,
            "failed_media": 1,
        },
        {"untried": 1, "failed": 1},
    )


async def test_it_says_how_long_a_pending_picture_has_been_due(database_url: str) -> None:
    space, told = open_test_space(database_url), Counted()
    run_sql(
        database_url,
        """
        INSERT INTO products (id, "clientId", name) VALUES ('p', 'acme', 'A thing');
        INSERT INTO media (id, "productId", "clientId", "s3Key", status) VALUES
            ('late', 'p', 'acme', 'k', 'pending'), ('later', 'p', 'acme', 'k', 'pending'),
            ('put-off', 'p', 'acme', 'k', 'pending'), ('aside', 'p', 'acme', 'k', 'pending');
        UPDATE twinlens_pending SET "nextAt" = now() - interval '2 hours' WHERE "mediaId" = 'late';
        UPDATE twinlens_pending SET "nextAt" = now() + interval '2 hours' WHERE "mediaId" = 'put-off';
        UPDATE twinlens_pending SET "nextAt" = NULL, code = 'not_a_picture' WHERE "mediaId" = 'aside'
        """,
    )
    async with open_pool(database_url, min_size=1, max_size=2, timeout=30) as pool:
        census = told.of(Runner(pool), space)
        await census.count()
        assert 7200 <= told.sizes[-1][3] < 10_800
        # What is not due yet has waited for nobody.
        run_sql(database_url, """DELETE FROM twinlens_pending WHERE "nextAt" <= now()""")
        await census.count()
    assert told.sizes[-1][3] == 0.0


async def test_it_sees_indexes_that_are_ready_that_are_being_built_and_that_were_left_half_made(
    database_url: str,
) -> None:
    space, told = open_test_space(database_url), Counted()
    fill(database_url, space, "acme", unit_vectors(600, D, 1))
    fill(database_url, space, "zoo", unit_vectors(600, D, 2))
    async with open_pool(database_url, min_size=1, max_size=4, timeout=30) as pool:
        catalogue, census = Catalogue(pool, space), told.of(Runner(pool), space)
        await catalogue.maintain_indexes(threshold=500)
        assert await census.index_states() == {"ready": 2, "building": 0, "incomplete": 0}
        run_sql(database_url, f"DROP INDEX {await name_of(database_url, space)}")
        # A transaction that has written to the table holds up the build, as in real life.
        with psycopg.connect(database_url) as old:
            old.execute(f"UPDATE {space.table} SET active = active WHERE \"mediaId\" = 'zoo-000001'")
            building = asyncio.create_task(catalogue.maintain_indexes(threshold=500))
            async with asyncio.timeout(30):
                while (states := await census.index_states())["building"] == 0:
                    assert states["incomplete"] == 0
                    await asyncio.sleep(0.01)
            run_sql(
                database_url,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_progress_create_index "
                "WHERE datname = current_database()",
            )
            with suppress(Exception):
                await building
            async with asyncio.timeout(30):
                while (states := await census.index_states())["building"]:
                    await asyncio.sleep(0.01)
            assert states == {"ready": 1, "building": 0, "incomplete": 1}
            old.rollback()


async def name_of(url: str, space: SpaceRow) -> str:
    """One of the space's indexes of clients."""
    ((name,), *_) = run_sql(url, f"SELECT indexname FROM pg_indexes WHERE indexname LIKE '{space.table}_hnsw_%'")
    return str(name)


async def test_it_goes_on_when_the_database_is_away_for_a_while(
    database_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", sizes_module.__name__)
    monkeypatch.setattr(sizes_module, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(sizes_module, "_COUNT_SECONDS", 0.01)
    space, told = open_test_space(database_url), Counted()
    async with open_pool(database_url, min_size=1, max_size=2, timeout=0.1) as pool:
        task = asyncio.create_task(told.of(Runner(pool), space).run())

        async def until(count: int) -> None:
            async with asyncio.timeout(30):
                while len(told.sizes) < count:
                    await asyncio.sleep(0.01)

        await until(1)
        run_sql(database_url, f"ALTER TABLE {space.table} RENAME TO away")
        async with asyncio.timeout(30):
            while not caplog.records:
                await asyncio.sleep(0.01)
        run_sql(database_url, f"ALTER TABLE away RENAME TO {space.table}")
        await until(len(told.sizes) + 2)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
