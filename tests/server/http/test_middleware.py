"""The deadline of a request, whatever its handler does."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from litestar import Litestar, get, put
from litestar.testing import TestClient

from server.app import assemble
from server.database.outcome import writing
from server.errors import CatalogueBusy
from server.http import middleware
from server.http.request import MOST_SECONDS
from server.settings import Settings
from tests.support.process import PATIENCE

ended: list[str] = []


async def _stay(name: str) -> None:
    """Hold out for as long as it takes to be cancelled twice, as psycopg does with a silent server."""
    try:
        for _ in range(2):
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                continue
        raise RuntimeError("an error that nobody waits for")
    finally:
        ended.append(name)


@get("/stays")
async def stays() -> None:
    await _stay("stays")


@get("/brief", opt={MOST_SECONDS: 0.2})
async def brief() -> None:
    await _stay("brief")


@put("/writes")
async def writes() -> None:
    with writing():
        await _stay("writes")


@put("/fails")
async def fails() -> None:
    with writing():
        raise CatalogueBusy


@put("/refused-then-stays")
async def refused_then_stays() -> None:
    try:
        with writing():
            raise CatalogueBusy
    except CatalogueBusy:
        await _stay("refused")


@get("/late")
async def late() -> str:
    """It answers as soon as it is told that nobody waits any more."""
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        return "too late"
    return "slept"


@get("/quick")
async def quick() -> str:
    return "answered"


HANDLERS = [stays, brief, writes, fails, refused_then_stays, late, quick]


@asynccontextmanager
async def nothing(_: Litestar) -> AsyncIterator[None]:
    yield


@pytest.fixture
def client() -> Iterator[TestClient[Litestar]]:
    ended.clear()
    app = assemble(Settings(deadline=0.3), HANDLERS, nothing)
    app.state.services = None
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/stays", "deadline_missed"),
        ("GET", "/brief", "deadline_missed"),
        ("GET", "/late", "deadline_missed"),
        ("PUT", "/writes", "outcome_unknown"),
        ("PUT", "/fails", "database_busy"),
        ("PUT", "/refused-then-stays", "deadline_missed"),
    ],
)
def test_an_answer_comes_at_the_deadline_however_long_the_handler_stays(
    client: TestClient[Litestar], method: str, path: str, code: str
) -> None:
    response = client.request(method, path)
    assert (response.status_code, response.json()["code"]) == (503, code)
    assert "Retry-After" in response.headers
    assert not ended
    assert client.get("/quick").text == "answered"


def test_no_handler_outlives_its_app_and_its_error_is_nobodys(caplog: pytest.LogCaptureFixture) -> None:
    app = assemble(Settings(deadline=0.1), HANDLERS, nothing)
    app.state.services = None
    ended.clear()
    with TestClient(app, raise_server_exceptions=False) as client:
        for _ in range(3):
            assert client.get("/stays").status_code == 503
    assert ended == ["stays"] * 3
    gc.collect()
    assert not [record for record in caplog.records if "never retrieved" in record.getMessage()]


@pytest.mark.anyio
async def test_what_a_handler_sends_after_its_deadline_reaches_nobody() -> None:
    sent: list[str] = []

    async def receive() -> None:
        await asyncio.sleep(3600)

    async def send(message: dict[str, str]) -> None:
        sent.append(message["type"])

    start: Any = {"type": "http.response.start"}
    body: Any = {"type": "http.response.body"}
    connection = middleware._Connection(cast("Any", receive), cast("Any", send))
    await connection.send(start)
    assert (sent, connection.answering) == (["http.response.start"], True)
    connection.open = False
    await connection.send(body)
    assert sent == ["http.response.start"]
    async with asyncio.timeout(PATIENCE):
        assert (await connection.receive())["type"] == "http.disconnect"
