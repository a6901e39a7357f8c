"""The app in the process of the test, on a real database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from litestar import Litestar
from litestar.testing import TestClient

from server.app import create_app
from server.settings import Settings
from tests import STARTER

Client = TestClient[Litestar]


@contextmanager
def serving(database_url: str, data: Path, **settings: Any) -> Iterator[Client]:
    """The whole app in this process, on a real database and the starter artifact, or the `model` that is given."""
    # Given, so that no start spends time on measuring what is best.
    layout = {"threads": 2, "batch": 8}
    standard = {"database_url": database_url, "data": data, "model": STARTER, "device": "cpu", **layout}
    chosen = Settings(**{**standard, **settings})
    with TestClient(create_app(chosen), base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        yield client


class Shop(NamedTuple):
    """A database with the demo catalogue in it, and the data folder with its pictures: what `serving` takes."""

    database_url: str
    data: Path


NewShop = Callable[[], AbstractContextManager[Shop]]
"""The type of the fixture `new_shop`."""
