"""Embedded PostgreSQL servers for the tests of this room."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.postgres.server import LOCKS, EmbeddedPostgres
from tests.support.postgres import Embedded


@pytest.fixture
def embedded() -> Iterator[Embedded]:
    """Makes servers, and removes all that they leave."""
    made: list[EmbeddedPostgres] = []

    def make(data: Path) -> EmbeddedPostgres:
        made.append(EmbeddedPostgres(data))
        return made[-1]

    yield make
    for postgres in made:
        postgres.close()
    for postgres in made:
        shutil.rmtree(postgres.cluster, ignore_errors=True)
        for lock in LOCKS:
            postgres.cluster.with_name(postgres.cluster.name + lock).unlink(missing_ok=True)


@pytest.fixture
def public_path() -> Iterator[Path]:
    """A folder that every user can walk to, as pytest's own is not: under root, a database in it stays in it."""
    folder = Path(tempfile.mkdtemp(prefix="twinlens-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
