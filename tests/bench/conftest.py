"""What several benches are tried on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from tests.support.process import Process
from tests.support.serving import Shop


@pytest.fixture(scope="session")
def server(new_shop: Callable[[], AbstractContextManager[Shop]]) -> Iterator[Process]:
    """A server with the demo catalogue, for every load test: a load test takes out what it put in."""
    with new_shop() as shop:
        process = Process(shop.data, "--demo", "on", "--database-url", shop.database_url)
        try:
            yield process.ready()
        finally:
            process.stop()
