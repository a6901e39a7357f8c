"""A furnished catalogue, a backup of it, and empty places to restore it into."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from server.database.isolation import arrange
from tests.support.backups import Place, furnish
from tests.support.databases import as_role, database_of, fresh_database, role
from tests.support.house import House, open_house
from tests.support.s3 import VARIABLES, make_bucket, s3


@pytest.fixture(scope="package")
def furnished(postgres_url: str, template_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Nobody writes to it. Two roles serve, or have served; and a role of the operator's may read."""
    with fresh_database(postgres_url, template_database) as url, role(url) as app:
        place = Place(url, tmp_path_factory.mktemp("furnished") / "media")
        arrange(url, as_role(url, app))
        furnish(place)
        yield place


@pytest.fixture(scope="package")
def backup(furnished: Place, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("backup") / "backup.tar"
    furnished.back_up(path)
    return path


@pytest.fixture
def writable(furnished: Place, postgres_url: str, tmp_path: Path) -> Iterator[Place]:
    """A copy of the furnished one."""
    with fresh_database(postgres_url, database_of(furnished.url)) as url:
        yield Place(url, shutil.copytree(furnished.folder, tmp_path / "writable"))


@pytest.fixture
def empty(bare_database_url: str, tmp_path: Path) -> Place:
    return Place(bare_database_url, tmp_path / "empty" / "media")


@pytest.fixture
async def house(database_url: str, tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(database_url, tmp_path / "store") as house:
        yield house


@pytest.fixture
def s3_url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a store in an S3, whose bucket is made; the variables that reach it are set."""
    with s3() as address:
        for name, value in {**VARIABLES, "AWS_ENDPOINT_URL": address}.items():
            monkeypatch.setenv(name, value)
        yield make_bucket(address)
