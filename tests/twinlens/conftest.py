"""A running server with keys, which all tests of the client library share; each has a client's catalogue of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.databases import fresh_database
from tests.support.keys import new_key
from tests.support.process import Process
from tests.support.served import Served
from twinlens import Client


@pytest.fixture(scope="package")
def served(postgres_url: str, template_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with fresh_database(postgres_url, template_database) as url:
        admin, search = new_key(url, "admin", None).key, new_key(url, "search").key
        process = Process(tmp_path_factory.mktemp("served"), "--database-url", url)
        try:
            yield Served(process.ready().url, admin, search)
        finally:
            process.stop()


@pytest.fixture
def client(served: Served, client_id: str) -> Iterator[Client]:
    """A client with an empty catalogue."""
    with Client(served.url, key=served.admin, client=client_id) as client:
        yield client
