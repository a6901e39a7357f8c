"""What a server waits for before it says that it is ready, and what it does not wait for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from server import lifespan
from server.artifact.artifact import Artifact
from server.errors import DatabaseUnfit
from server.lifespan import Services, open_services
from server.settings import Settings
from server.spaces.spaces import SpaceDescription, open_space
from tests import STARTER
from tests.support.databases import as_role, database_of, in_database, role, run_sql
from tests.support.process import PATIENCE

pytestmark = pytest.mark.anyio


def settings_for(url: str, data: Path) -> Settings:
    return replace(Settings(), database_url=url, data=data, model=STARTER, device="cpu", threads=2, batch=8)


@asynccontextmanager
async def opening(settings: Settings) -> AsyncIterator[tuple[asyncio.Task[None], asyncio.Event]]:
    """A server that is being opened; the event is set once it is, and it is closed at the end of the block."""
    opened, enough = asyncio.Event(), asyncio.Event()

    async def run() -> None:
        async with open_services(settings) as services:
            assert isinstance(services, Services)
            opened.set()
            await enough.wait()

    task = asyncio.create_task(run())
    yield task, opened
    enough.set()
    await task


@pytest.fixture(autouse=True)
def asked_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifespan, "_DATABASE_ASKED_EACH_SECONDS", 0.1)
    monkeypatch.setattr(lifespan, "_CONNECTION_TIMEOUT_SECONDS", 0.5)


async def test_a_database_that_takes_no_connections_is_waited_for(
    database_url: str, postgres_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name, elsewhere = database_of(database_url), in_database(postgres_url, "postgres")
    run_sql(elsewhere, f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    with caplog.at_level(logging.INFO):
        async with asyncio.timeout(PATIENCE), opening(settings_for(database_url, tmp_path)) as (_, opened):
            while "Waiting for the database" not in caplog.text:
                await asyncio.sleep(0.01)
            assert not opened.is_set()
            run_sql(elsewhere, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
            await opened.wait()
    assert "Ready after" in caplog.text


async def test_it_is_not_ready_before_the_pool_has_a_connection(
    database_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = database_of(database_url)

    def open_space_then_close_the_door(*args: object, **kwargs: object) -> object:
        space = open_space(*args, **kwargs)  # type: ignore[arg-type]  # passed on as they came
        run_sql(database_url, f"ALTER DATABASE {name} CONNECTION LIMIT 0")
        return space

    open_space(database_url, SpaceDescription.of(Artifact.read(STARTER), "fp32"))
    monkeypatch.setattr("server.lifespan.open_space", open_space_then_close_the_door)
    with role(database_url) as mortal:  # the limit does not hold for a superuser
        run_sql(database_url, f"GRANT pg_read_all_data, pg_write_all_data TO {mortal}")
        settings = settings_for(as_role(database_url, mortal), tmp_path)
        with caplog.at_level(logging.INFO):
            async with asyncio.timeout(PATIENCE), opening(settings) as (_, opened):
                while "too many connections for database" not in caplog.text:
                    await asyncio.sleep(0.01)
                assert not opened.is_set()
                assert "Ready after" not in caplog.text
                run_sql(database_url, f"ALTER DATABASE {name} CONNECTION LIMIT -1")
                await opened.wait()
    assert "Ready after" in caplog.text


async def test_a_database_that_connections_cannot_be_set_up_for_is_not_waited_for(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    def open_space_then_lose_pgvector(*args: object, **kwargs: object) -> object:
        space = open_space(*args, **kwargs)  # type: ignore[arg-type]  # passed on as they came
        run_sql(database_url, "DROP EXTENSION vector CASCADE")
        return space

    monkeypatch.setattr("server.lifespan.open_space", open_space_then_lose_pgvector)
    with pytest.raises(DatabaseUnfit, match="cannot be set up for searches"):
        async with asyncio.timeout(PATIENCE), open_services(settings_for(database_url, tmp_path)):
            pass


async def test_a_search_path_that_does_not_lead_to_the_catalogue_is_not_waited_for(
    database_url: str, tmp_path: Path
) -> None:
    run_sql(database_url, f"CREATE SCHEMA app; ALTER DATABASE {database_of(database_url)} SET search_path = app")
    run_sql(database_url, "CREATE SCHEMA ours; ALTER EXTENSION vector SET SCHEMA ours")
    with pytest.raises(DatabaseUnfit, match="does not lead"):
        async with asyncio.timeout(PATIENCE), open_services(settings_for(database_url, tmp_path)):
            pass
