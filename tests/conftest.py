"""What several test modules need."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import psycopg
import pytest
from litestar import Litestar
from litestar.testing import TestClient
from numpy.typing import NDArray
from PIL import Image
from psycopg import conninfo, sql

from server.app import create_app
from server.database.migrations import migrate
from server.postgres.server import EmbeddedPostgres
from server.settings import Settings
from tests import STARTER
from tests.support import artifacts
from tests.support.process import Process


class UnitVectors(Protocol):
    def __call__(self, count: int, dimensions: int, seed: int = 0) -> NDArray[np.float32]: ...


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


# --- database --------------------------------------------------------------------------------------------------------


def discard(postgres: EmbeddedPostgres) -> None:
    """Stop an embedded PostgreSQL and delete its data, which under root may lie outside the test's folder."""
    postgres.close()
    shutil.rmtree(postgres.cluster, ignore_errors=True)
    postgres.cluster.with_name(postgres.cluster.name + ".running").unlink(missing_ok=True)


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL for the whole run: TWINLENS_TEST_DATABASE_URL, or an embedded one."""
    given = os.environ.get("TWINLENS_TEST_DATABASE_URL")
    if given:
        yield given
        return
    # Nothing in it outlives the run, so nothing waits for the disk; that data survive is proved on others.
    postgres = EmbeddedPostgres(tmp_path_factory.mktemp("postgres"), extra_settings=["fsync=off"])
    url = postgres.start()
    try:
        yield url
    finally:
        discard(postgres)


@pytest.fixture
def public_path() -> Iterator[Path]:
    """A folder that every user can walk to, as pytest's own is not: under root, a database in it stays in it."""
    folder = Path(tempfile.mkdtemp(prefix="twinlens-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def in_database(url: str, name: str) -> str:
    return conninfo.make_conninfo(url, dbname=name)


@pytest.fixture(scope="session")
def template_database(postgres_url: str) -> Iterator[str]:
    """The name of a migrated, empty database that tests copy theirs from."""
    name = f"twinlens_template_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    migrate(in_database(postgres_url, name))
    yield name
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _fresh_database(postgres_url: str, template: str) -> Iterator[str]:
    name = f"twinlens_test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
        )
    yield in_database(postgres_url, name)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def database_url(postgres_url: str, template_database: str) -> Iterator[str]:
    """A migrated, empty database of the test's own."""
    yield from _fresh_database(postgres_url, template_database)


@pytest.fixture
def bare_database_url(postgres_url: str) -> Iterator[str]:
    """A database of the test's own that nobody has migrated."""
    yield from _fresh_database(postgres_url, "template1")


@pytest.fixture
def unit_vectors() -> UnitVectors:
    """A function of count, dimensions and seed: float32[count, dimensions], random directions of length 1."""

    def make(count: int, dimensions: int, seed: int = 0) -> NDArray[np.float32]:
        vectors = np.random.default_rng(seed).standard_normal((count, dimensions))
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    return make


# --- the server ------------------------------------------------------------------------------------------------------


@contextmanager
def serving(database_url: str, data: Path, **settings: Any) -> Iterator[TestClient[Litestar]]:
    """The whole app in this process, on a real database and the starter artifact, or the `model` that is given."""
    # Given, so that no start spends time on measuring what is best.
    layout = {"threads": 2, "batch": 8}
    standard = {"database_url": database_url, "data": data, "model": STARTER, "device": "cpu", **layout}
    chosen = Settings(**{**standard, **settings})
    with TestClient(create_app(chosen), raise_server_exceptions=False) as client:
        yield client


class Shop(NamedTuple):
    """A database with the demo catalogue in it, and the data folder with its pictures: what `serving` takes."""

    database_url: str
    data: Path


@pytest.fixture(scope="session")
def new_shop(
    postgres_url: str, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], AbstractContextManager[Shop]]]:
    """Makes shops, as the server itself has loaded one: to start on a copy embeds no picture."""
    loaded = tmp_path_factory.mktemp("shop")

    @contextmanager
    def make() -> Iterator[Shop]:
        with contextmanager(_fresh_database)(postgres_url, name) as copy:
            yield Shop(copy, shutil.copytree(loaded, tmp_path_factory.mktemp("shop") / "data"))

    with contextmanager(_fresh_database)(postgres_url, template_database) as url:
        with serving(url, loaded, demo=True):
            pass
        name = str(conninfo.conninfo_to_dict(url)["dbname"])
        yield make


@pytest.fixture
def shop(new_shop: Callable[[], AbstractContextManager[Shop]]) -> Iterator[Shop]:
    """One of the test's own."""
    with new_shop() as made:
        yield made


@pytest.fixture(scope="session")
def api(new_shop: Callable[[], AbstractContextManager[Shop]]) -> Iterator[TestClient[Litestar]]:
    """One app for all tests of routes, with the demo catalogue; a test that writes uses a `client_id` of its own."""
    with new_shop() as shop, serving(*shop, demo=True, max_upload=4_000_000) as client:
        yield client


@pytest.fixture(scope="session")
def image_only(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an artifact that knows no words."""
    return artifacts.image_only(tmp_path_factory.mktemp("artifacts") / "image-only")


@pytest.fixture(scope="session")
def with_words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an artifact with a small text tower of the tests' own; `artifacts.WORDS` is what it knows."""
    return artifacts.with_words(tmp_path_factory.mktemp("artifacts") / "with-words")


@pytest.fixture(scope="session")
def words_api(new_shop: Callable[[], AbstractContextManager[Shop]], with_words: Path) -> Iterator[TestClient[Litestar]]:
    """As `api`, with that artifact."""
    with new_shop() as shop, serving(*shop, demo=True, model=with_words) as client:
        yield client


@pytest.fixture
def client_id() -> str:
    return f"client-{uuid.uuid4().hex[:8]}"


def in_format(image: Image.Image, form: str, **options: Any) -> bytes:
    """The bytes of a picture in one of Pillow's formats."""
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def unseen(data: bytes) -> bytes:
    """The same picture in a file that no server has seen: what comes after its end belongs to no picture."""
    return data + uuid.uuid4().bytes


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def start(*flags: str, data: Path = tmp_path / "data", **options: Any) -> Process:
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
    from export.artifacts import publish
    from export.proof import parity

    folder = tmp_path_factory.mktemp("pictures")
    everything = sorted(parity.PICTURES.iterdir())
    for path in everything:
        if path.name in (*publish.GOLDENS, "LICENCES.md") or (
            path in everything[::8] and path.stat().st_size < 200_000
        ):
            (folder / path.name).symlink_to(path)
    return folder


@pytest.fixture(scope="module")
def few_pictures(few_pictures_folder: Path) -> Iterator[None]:
    """For tests that export many times over: the gate has fewer pictures."""
    from export.proof import parity

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(parity, "PICTURES", few_pictures_folder)
        yield
