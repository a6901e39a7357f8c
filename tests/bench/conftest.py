"""What several benches are tried on."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from bench import serving
from tests.support import few_products
from tests.support.process import Process
from tests.support.serving import Shop


@pytest.fixture(autouse=True)
def briefly_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server of a bench does not measure first what is best on this machine, and its demo catalogue has few products:
    both take longer than what is tried here."""
    monkeypatch.setenv(few_products.VARIABLE, "24")
    program = (sys.executable, "-m", few_products.__name__, "--threads", "2", "--batch", "8")
    monkeypatch.setattr(serving, "_TWINLENS", program)


@pytest.fixture(scope="session")
def server(new_shop: Callable[[], AbstractContextManager[Shop]]) -> Iterator[Process]:
    """A server with the demo catalogue, for every load test: a load test takes out what it put in."""
    with new_shop() as shop:
        process = Process(shop.data, "--demo", "on", "--database-url", shop.database_url)
        try:
            yield process.ready()
        finally:
            process.stop()
