"""Lines for requests, and requests for lines, by a tiny app on no database."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
from litestar import Litestar, Request, get
from litestar.params import FromPath
from litestar.testing import TestClient

from server.app import assemble
from server.errors import ProductNotFound
from server.http import access_log as module
from server.http.access_log import REFUSED_AT_ONCE, REFUSED_EACH_SECOND, AccessLog
from server.http.request import CLIENT, CODE
from server.http.timing import note
from server.operations.lines import OneLine
from server.settings import Settings

ID = {"X-Request-Id": "one"}
_log = logging.getLogger("tests.elsewhere")


@get("/products/{product_id:str}")
async def product(request: Request[Any, Any, Any], product_id: FromPath[str]) -> str:
    request.scope["state"][CLIENT] = f"client-{product_id}"
    note(request.scope, {"search": 0.0042})
    _log.warning("from elsewhere")
    await asyncio.to_thread(_log.warning, "from a thread")
    await asyncio.sleep(0)
    return product_id


@get("/missing")
async def missing() -> None:
    raise ProductNotFound


@get("/fails")
async def fails() -> None:
    raise RuntimeError("of two\nlines")


@get("/health/live")
async def live() -> str:
    return "alive"


@asynccontextmanager
async def nothing(_: Litestar) -> AsyncIterator[None]:
    yield


class Lines(logging.Handler):
    """The log as a server writes it, in JSON."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(OneLine(form="json"))
        self.events: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.events.append(json.loads(self.format(record)))


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler, root = Lines(), logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield handler
    root.removeHandler(handler)
    root.setLevel(before)


@contextmanager
def answering(**settings: Any) -> Iterator[TestClient[Litestar]]:
    app = assemble(Settings(**settings), [product, missing, fails, live], nothing)
    app.state.services = None
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def requests(lines: Lines) -> list[dict[str, Any]]:
    return [event for event in lines.events if event.get("event") == "request"]


def test_each_request_is_a_line_with_id_client_route_status_and_timings(lines: Lines) -> None:
    with answering() as client:
        assert client.get("/products/shoe?secret=1", headers=ID).text == "shoe"
    (event,) = requests(lines)
    assert event["level"] == "info"
    assert event["requestId"] == "one"
    assert event["client"] == "client-shoe"
    assert (event["method"], event["route"], event["path"]) == ("GET", "/products/{product_id}", "/products/shoe")
    assert event["status"] == 200
    assert event["timings"]["search"] == 4.2
    assert event["timings"]["total"] > 0
    assert event["message"].startswith("GET '/products/shoe' 200: search 4.2, total ")
    assert "code" not in event
    assert "secret" not in json.dumps(event)


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/missing", 404, "product_not_found"),
        ("/nowhere", 404, "not_found"),
        ("/fails", 500, "internal_error"),
    ],
)
def test_a_refusal_has_its_code(lines: Lines, path: str, status: int, code: str) -> None:
    with answering() as client:
        assert client.get(path).status_code == status
    (event,) = requests(lines)
    assert (event["status"], event["code"]) == (status, code)
    assert event["route"] == ("(none)" if path == "/nowhere" else path)


def test_what_is_written_elsewhere_during_a_request_says_which_one(lines: Lines) -> None:
    with answering() as client:
        client.get("/products/shoe", headers=ID)
    said = {event["message"]: event for event in lines.events if event["logger"] == _log.name}
    assert set(said) == {"from elsewhere", "from a thread"}
    for event in said.values():
        assert (event["requestId"], event["client"], event["route"]) == (
            "one",
            "client-shoe",
            "/products/{product_id}",
        )


def test_an_error_that_nobody_expected_is_one_event_with_its_traceback(lines: Lines) -> None:
    with answering() as client:
        client.get("/fails", headers=ID)
    (event,) = [event for event in lines.events if "traceback" in event]
    assert (event["event"], event["exception"], event["requestId"]) == ("request_failed", "RuntimeError", "one")
    assert event["traceback"].endswith("RuntimeError: of two\nlines")


def test_probes_that_are_answered_are_no_lines_unless_all_are_asked_for(lines: Lines) -> None:
    with answering() as client:
        client.get("/health/live")
        assert not requests(lines)
        logging.getLogger(module.__name__).setLevel(logging.DEBUG)
        client.get("/health/live")
        logging.getLogger(module.__name__).setLevel(logging.NOTSET)
    assert [event["level"] for event in requests(lines)] == ["debug"]


def test_without_an_access_log_other_lines_still_say_which_request_they_are_about(lines: Lines) -> None:
    with answering(access_log=False) as client:
        client.get("/products/shoe", headers=ID)
        client.get("/missing")
    assert not requests(lines)
    assert [event["requestId"] for event in lines.events if event["message"] == "from elsewhere"] == ["one"]


def test_a_path_makes_no_line_of_its_own_and_no_long_one(lines: Lines) -> None:
    with answering() as client:
        client.get("/nowhere%0d%0a%7B%22level%22:%22error%22%7D" + "x" * 5000)
    (event,) = requests(lines)
    assert len(event["path"]) == 420
    assert event["level"] == "info"
    assert event["message"].isprintable()


def test_a_flood_of_refused_requests_is_summed_up_and_loses_nothing(lines: Lines) -> None:
    now = 0.0
    log = AccessLog(clock=lambda: now)
    scope: Any = {"type": "http", "method": "GET", "path": "/x", "state": {CODE: "rate_limited"}}
    good: Any = {**scope, "state": {}}
    for _ in range(10_000):
        log.add(scope, 429)
    log.add(good, 200)
    now = 1.0
    log.add(good, 200)
    events = [event for event in lines.events if event["logger"] == module.__name__]
    refused = [event for event in events if event.get("status") == 429]
    written = [event for event in refused if event["event"] == "request"]
    assert len(written) == REFUSED_AT_ONCE
    (rest,) = [event for event in refused if event["event"] == "requests_refused"]
    assert (rest["code"], rest["count"]) == ("rate_limited", 10_000 - REFUSED_AT_ONCE)
    assert len([event for event in events if event.get("status") == 200]) == 2
    for _ in range(1000):
        log.add(scope, 429)
    again = [event for event in lines.events if event.get("status") == 429 and event["event"] == "request"]
    assert len(again) == REFUSED_AT_ONCE + REFUSED_EACH_SECOND
