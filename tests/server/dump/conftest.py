"""A furnished catalogue, a dump of it with the pictures, and an empty place with the same live space."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.catalogue.rows import SpaceRow
from tests.support.backups import Place, furnish
from tests.support.catalogue import open_test_space
from tests.support.databases import database_of, fresh_database, run_sql
from tests.support.dumps import dump


@pytest.fixture(scope="package")
def furnished(postgres_url: str, template_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Nobody writes to it. Two clients have a product of the same id."""
    with fresh_database(postgres_url, template_database) as url:
        place = Place(url, tmp_path_factory.mktemp("furnished") / "media")
        furnish(place)
        run_sql(
            url,
            'INSERT INTO products (id, "apiId", "clientId", name, sku) '
            "VALUES ('p0~1', 'p0', 'large', 'Another', 'S-1')",
        )
        run_sql(
            url,
            'INSERT INTO twinlens_attributes ("clientId", name, type) '
            "VALUES ('acme', 'price', 'number'), ('acme', 'größe', 'text'), ('large', 'price', 'date')",
        )
        yield place


@pytest.fixture(scope="package")
def dumped(furnished: Place, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nobody writes into it."""
    folder = tmp_path_factory.mktemp("dump") / "dump"
    dump(furnished, folder, pictures=True)
    return folder


@pytest.fixture
def copied(dumped: Path, tmp_path: Path) -> Path:
    """A copy of the dump."""
    return shutil.copytree(dumped, tmp_path / "copied")


@pytest.fixture
def writable(furnished: Place, postgres_url: str, tmp_path: Path) -> Iterator[Place]:
    """A copy of the furnished one."""
    with fresh_database(postgres_url, database_of(furnished.url)) as url:
        yield Place(url, shutil.copytree(furnished.folder, tmp_path / "writable"))


@pytest.fixture
def empty(database_url: str, tmp_path: Path) -> Place:
    return Place(database_url, tmp_path / "empty" / "media")


@pytest.fixture
def space(empty: Place) -> SpaceRow:
    """The live space of the empty place, which is that of the dump; its number is another one than there."""
    run_sql(empty.url, "SELECT nextval(pg_get_serial_sequence('twinlens_spaces', 'number'))")
    return open_test_space(empty.url)
