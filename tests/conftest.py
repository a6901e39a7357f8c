"""Fixtures that tests of several rooms share; helpers that tests import lie in `tests/support`."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from server.database.isolation import arrange
from server.database.migrations import migrate
from server.postgres.server import EmbeddedPostgres
from tests.support import artifacts, vectors
from tests.support.axe import Axe, installed
from tests.support.databases import ReadyCluster, database_of, discard, fresh_database, postgres
from tests.support.picture_host import PictureHost, fetched_from, picture_host
from tests.support.process import Process, Serve
from tests.support.serving import Client, NewShop, Shop, serving

SLOW_LIMIT = 1500
"""Seconds for a test that is marked as slow, in place of the `timeout` of all others."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is slow begins first: a long test that began last would run alone at the end."""
    slow = [item for item in items if item.get_closest_marker("slow") is not None]
    for item in slow:
        item.add_marker(pytest.mark.timeout(SLOW_LIMIT))
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def client_id() -> str:
    """A client whom no other test knows."""
    return f"client-{uuid.uuid4().hex[:8]}"


# --- databases -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL for the whole run."""
    with postgres(tmp_path_factory.mktemp("postgres")) as url:
        yield url


@pytest.fixture(scope="session")
def template_database(postgres_url: str) -> Iterator[str]:
    """The name of a migrated, empty database that tests copy theirs from, with the role that serves."""
    with fresh_database(postgres_url) as url:
        migrate(url)
        arrange(url)
        yield database_of(url)


@pytest.fixture
def database_url(postgres_url: str, template_database: str) -> Iterator[str]:
    """A migrated, empty database of the test's own."""
    with fresh_database(postgres_url, template_database) as url:
        yield url


@pytest.fixture
def bare_database_url(postgres_url: str) -> Iterator[str]:
    """A database of the test's own that nobody has migrated."""
    with fresh_database(postgres_url) as url:
        yield url


@pytest.fixture
def unit_vectors() -> vectors.UnitVectors:
    """A function of count, dimensions and seed: float32[count, dimensions], random directions of length 1."""
    return vectors.unit_vectors


# --- artifacts -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def image_only(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an artifact that knows no words."""
    return artifacts.image_only(tmp_path_factory.mktemp("artifacts") / "image-only")


@pytest.fixture(scope="session")
def with_words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an artifact with a small text tower of the tests' own; `artifacts.WORDS` is what it knows."""
    return artifacts.with_words(tmp_path_factory.mktemp("artifacts") / "with-words")


# --- pages -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> Axe:
    """axe-core, for pages in a browser: `assert axe.violations(page) == []`."""
    return installed(tmp_path_factory.mktemp("axe"))


# --- the server ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def new_shop(postgres_url: str, template_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NewShop]:
    """Makes shops, as the server itself has loaded one: to start on a copy embeds no picture."""
    loaded = tmp_path_factory.mktemp("shop")

    with fresh_database(postgres_url, template_database) as url:
        with serving(url, loaded, demo=True):
            pass

        @contextmanager
        def make() -> Iterator[Shop]:
            with fresh_database(postgres_url, database_of(url)) as copy:
                yield Shop(copy, shutil.copytree(loaded, tmp_path_factory.mktemp("shop") / "data"))

        yield make


@pytest.fixture
def shop(new_shop: NewShop) -> Iterator[Shop]:
    """One of the test's own."""
    with new_shop() as made:
        yield made


@pytest.fixture(scope="session")
def pictures() -> Iterator[PictureHost]:
    """A host that `api` may fetch pictures from; a test answers at paths of its own."""
    with picture_host() as host:
        yield host


@pytest.fixture(scope="session")
def api(new_shop: NewShop, pictures: PictureHost) -> Iterator[Client]:
    """One app for all tests of routes, with the demo catalogue; a test that writes uses a `client_id` of its own."""
    with (
        fetched_from(pictures) as hosts,
        new_shop() as shop,
        serving(*shop, demo=True, max_upload=4_000_000, **hosts) as client,
    ):
        yield client


@pytest.fixture(scope="session")
def words_api(new_shop: NewShop, with_words: Path) -> Iterator[Client]:
    """As `api`, with the artifact of `with_words`."""
    with new_shop() as shop, serving(*shop, demo=True, model=with_words) as client:
        yield client


@pytest.fixture(scope="session")
def ready_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReadyCluster]:
    """What a data folder with an embedded PostgreSQL can begin with."""
    made = ReadyCluster(tmp_path_factory.mktemp("cluster") / "data")
    yield made
    made.discard()


@pytest.fixture
def serve(tmp_path: Path, ready_cluster: ReadyCluster) -> Iterator[Serve]:
    """Starts servers that are processes of their own; those that still run at the test's end are stopped."""
    started: list[Process] = []

    def start(*flags: str, data: Path = tmp_path / "data", from_nothing: bool = False, **options: Any) -> Process:
        if not from_nothing and not data.exists() and "--database-url" not in flags:
            ready_cluster.copy_to(data)
        started.append(Process(data, *flags, **options))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.stop()
        discard(EmbeddedPostgres(one.data))


@pytest.fixture(scope="session")
def few_pictures_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sixth of the gate's pictures, the goldens among them."""
    from export.artifacts import publish  # with torch, which few tests need
    from export.proof import parity

    folder = tmp_path_factory.mktemp("pictures")
    everything = sorted(parity.PICTURES.iterdir())
    for path in everything:
        if path.name in (*publish.GOLDENS, "LICENCES.md") or (
            path in everything[::8] and path.stat().st_size < 200_000
        ):
            (folder / path.name).symlink_to(path)
    return folder
