"""Floods of one key: what was refused is refused at once until it is due, and nobody else is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from litestar import Litestar, get
from litestar.testing import TestClient
from litestar.types import ASGIApp, Receive, Scope, Send

from server.app import assemble
from server.errors import RateLimited
from server.http.shedding import SHED_SECONDS, Refusals
from server.settings import Settings

REFUSED = RateLimited(retry_after=0.5)


def scope(key: bytes = b"Bearer a", path: str = "/v1/search", method: str = "POST", *more: Any) -> Any:
    headers = [(b"authorization", key), *more]
    return {"type": "http", "method": method, "path": path, "query_string": b"", "headers": headers}


def test_it_holds_until_it_is_due_and_for_a_second_at_most() -> None:
    now = [100.0]
    refusals = Refusals(lambda: now[0])
    refusals.note(scope(), REFUSED, [])
    refusals.note(scope(b"Bearer b"), RateLimited(retry_after=3600), [])
    assert refusals.of(scope())
    assert not refusals.of(scope(b"Bearer c"))
    now[0] += 0.5
    assert not refusals.of(scope())
    assert refusals.of(scope(b"Bearer b"))
    now[0] += SHED_SECONDS
    assert not refusals.of(scope(b"Bearer b"))


def test_what_needs_no_key_is_never_refused_here() -> None:
    refusals = Refusals(lambda: 0.0)
    others: list[Any] = [
        scope(path="/health/live"),
        scope(method="OPTIONS"),
        scope(b"Bearer a", "/v1/search", "POST", (b"x-api-key", b"b")),
        scope() | {"headers": []},
        scope(path="/v1/media/x/thumbnail") | {"query_string": b"expires=1&clientId=a&signature=b"},
    ]
    for other in others:
        refusals.note(scope(), REFUSED, [])
        refusals.note(other, REFUSED, [])
        assert not refusals.of(other)


def test_made_up_keys_fill_no_memory() -> None:
    refusals = Refusals(lambda: 0.0)
    for number in range(20_000):
        refusals.note(scope(f"Bearer {number}".encode()), REFUSED, [])
    assert len(refusals._known) <= 10_000


reached: list[str] = []


@get("/v1/refuses")
async def refuses() -> None:
    """As `limited` does it, which other tests look at."""


def refusing(app: ASGIApp) -> ASGIApp:
    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        reached.append(scope["path"])
        scope["state"]["refusals"].note(scope, RateLimited(retry_after=0.9), [(b"ratelimit", b'"requests";r=0;t=1')])
        raise RateLimited(retry_after=0.9)

    return middleware


def test_the_answer_is_the_same_and_nothing_is_made_of_the_request() -> None:
    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        yield

    app = assemble(Settings(), [refuses], lifespan, door=[refusing])
    app.state.services = None
    reached.clear()
    with TestClient(app, raise_server_exceptions=False) as client:
        first, second = (client.get("/v1/refuses", headers={"Authorization": "Bearer a"}) for _ in range(2))
        assert reached == ["/v1/refuses"]
        assert first.status_code == second.status_code == 429
        assert first.json() | {"requestId": ""} == second.json() | {"requestId": ""}
        assert second.json()["requestId"] == second.headers["X-Request-Id"] != first.json()["requestId"]
        for name in ("Retry-After", "Content-Type", "Cache-Control"):
            assert first.headers[name] == second.headers[name]
        assert second.headers["RateLimit"] == '"requests";r=0;t=1'
        assert client.get("/v1/refuses", headers={"Authorization": "Bearer b"}).status_code == 429
        assert len(reached) == 2
