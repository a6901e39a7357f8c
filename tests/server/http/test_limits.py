"""Limits over HTTP: who is refused, when they may go on, and what the answers say. The clock is the test's own."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from litestar import Litestar, get, post
from litestar.testing import TestClient
from litestar.types import ASGIApp, Receive, Scope, Send

from server.access.limits import LocalLimiter
from server.access.scopes import ANYBODY, SCOPES, Narrowing, Principal
from server.access.terms import Terms
from server.app import assemble
from server.http.account import account_of
from server.http.bodies import read_form, read_json
from server.http.limiting import limited
from server.http.request import PRINCIPAL, Request, call_of
from server.http.wire import SearchRequest
from server.limits import Limits, limits_in
from server.settings import Settings
from tests.support.databases import run_sql
from tests.support.process import Serve, until
from tests.support.serving import serving

Client = TestClient[Litestar]


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@get(["/quick", "/v1/quick"])
async def quick(request: Request) -> str:
    return call_of(request).client_id


@post("/form")
async def form(request: Request) -> str:
    read = await read_form(request)
    return call_of(request, read.fields.get("clientId")).client_id


@post("/json")
async def json(request: Request) -> str:
    return call_of(request, (await read_json(request, SearchRequest)).client_id).client_id


@post("/parts")
async def parts(request: Request) -> None:
    asked = await read_json(request, SearchRequest)
    call_of(request, asked.client_id)
    account = account_of(request.scope)
    assert account is not None
    account.owe_requests(len(asked.query or ()) - 1)


@get("/waits")
async def waits() -> None:
    await asyncio.sleep(3600)


KEY = Principal(frozenset(SCOPES), "acme", "key000000001")
PRINCIPALS = {
    "first": KEY,
    "second": replace(KEY, key_id="key000000002"),
    "stranger": replace(KEY, client_id="other", key_id="key000000003"),
    "own": replace(KEY, key_id="key000000004", limits={"requestsPerSecond": 1, "requestsBurst": 1}),
    "admin": replace(KEY, client_id=None, key_id="key000000005"),
    "derived": replace(KEY, narrowing=Narrowing(rate=1, id="aa")),
    "other derived": replace(KEY, narrowing=Narrowing(rate=1, id="bb")),
}


def known(app: ASGIApp) -> ASGIApp:
    """In place of `authorised`: the key is the name of a principal."""

    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        name = dict(scope["headers"]).get(b"x-api-key", b"").decode()
        scope["state"][PRINCIPAL] = PRINCIPALS.get(name, ANYBODY)
        await app(scope, receive, send)

    return middleware


@contextmanager
def limiting(
    keys: str = "", clients: str = "", own: Mapping[str, str] | None = None, **settings: Any
) -> Iterator[tuple[Client, Clock, Terms]]:
    """A small app with these limits for each key and each client; `own`: of some clients."""
    clock = Clock()
    of_clients = {name: limits_in(text) for name, text in (own or {}).items()}
    terms = Terms(
        SimpleNamespace(client_limits=of_clients),  # type: ignore[arg-type]
        LocalLimiter(clock),
        Limits.of(limits_in(keys)) if keys else Limits(),
        Limits.of(limits_in(clients)) if clients else Limits(),
    )

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        yield

    app = assemble(Settings(**settings), [quick, form, json, parts, waits], lifespan, door=[known, limited])
    # What is observed is of no matter here, and takes the rest of the services.
    app.state.services = SimpleNamespace(terms=terms, metrics=_Metrics(), tracer=None)
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client, clock, terms


class _Metrics:
    """Counts nothing."""

    def __getattr__(self, name: str) -> Any:
        return self

    def __call__(self, *_: object) -> Any:
        return self


def status(client: Client, key: str = "", path: str = "/quick") -> int:
    return client.get(path, headers={"X-API-Key": key}).status_code


def test_a_burst_is_answered_then_429_and_after_retry_after_it_is_answered_again() -> None:
    with limiting(keys="requests=0.5/3") as (client, clock, _):
        assert [status(client, "first") for _ in range(5)] == [200, 200, 200, 429, 429]
        refused = client.get("/quick", headers={"X-API-Key": "first"})
        assert refused.json()["code"] == "rate_limited"
        assert "This key has used up its limit of requests" in refused.json()["error"]
        assert refused.headers["Retry-After"] == "2"
        clock.now += int(refused.headers["Retry-After"])
        assert [status(client, "first") for _ in range(2)] == [200, 429]


def test_keys_have_their_own_limits_and_share_those_of_their_client() -> None:
    with limiting(keys="requests=0.1/3", clients="requests=0.1/5") as (client, _, _):
        assert [status(client, "first") for _ in range(4)] == [200, 200, 200, 429]
        assert [status(client, "second") for _ in range(4)] == [200, 200, 429, 429]
        assert [status(client, "stranger") for _ in range(4)] == [200, 200, 200, 429]
        refused = client.get("/quick", headers={"X-API-Key": "second"})
        assert "This client has used up" in refused.json()["error"]


def test_limits_of_one_key_or_one_client_go_before_the_usual_ones() -> None:
    with limiting(keys="requests=0.1/3", clients="requests=0.1/9", own={"other": "requests=0.1/1"}) as (client, _, _):
        assert [status(client, "own") for _ in range(2)] == [200, 429]
        assert [status(client, "stranger") for _ in range(2)] == [200, 429]
        assert [status(client, "first") for _ in range(4)] == [200, 200, 200, 429]


def test_a_search_keys_rate_is_its_own_beside_its_parents() -> None:
    with limiting(keys="requests=0.1/3") as (client, clock, _):
        assert [status(client, "derived") for _ in range(3)] == [200, 429, 429]
        assert [status(client, "other derived") for _ in range(2)] == [200, 429]
        clock.now += 1
        assert status(client, "derived") == 200
        clock.now += 1
        assert status(client, "derived") == 429  # the parent has had three


def test_an_admin_key_has_its_own_limits_and_no_clients() -> None:
    with limiting(keys="requests=0.1/3", clients="requests=0.1/1") as (client, _, _):
        assert [status(client, "admin", "/quick?clientId=acme") for _ in range(4)] == [200, 200, 200, 429]


def test_what_a_gateway_sends_for_everybody_confuses_nobody() -> None:
    """Where no key is needed, whoever shares a header with a client that is refused is answered."""
    with limiting(clients="requests=0.1/1") as (client, _, _):
        assert [status(client, "gateway", "/v1/quick?clientId=acme") for _ in range(3)] == [200, 429, 429]
        assert status(client, "gateway", "/v1/quick?clientId=other") == 200


def test_without_keys_the_client_that_is_named_is_limited_wherever_it_is_named() -> None:
    with limiting(clients="requests=0.1/2") as (client, _, _):
        picture, named = {"file": b"x"}, {"clientId": "acme"}
        assert client.post("/form", files=picture, data=named).status_code == 201
        assert client.post("/json", json=named).status_code == 201
        assert client.post("/json", json=named).status_code == 429
        assert client.post("/form", files=picture, data=named).status_code == 429
        assert status(client, path="/quick?clientId=acme") == 429
        assert status(client, path="/quick?clientId=other") == 200
        assert [status(client) for _ in range(3)] == [200, 200, 429]  # demo, which nobody named


def test_without_limits_nothing_is_kept_and_nothing_is_said() -> None:
    with limiting() as (client, _, terms):
        answer = client.get("/quick?clientId=acme")
        assert not [name for name in answer.headers if name.lower().startswith("ratelimit")]
        assert isinstance(terms.limiter, LocalLimiter)
        assert len(terms.limiter) == 0


def test_answers_say_what_may_be_asked_for_and_what_is_left() -> None:
    with limiting(keys="requests=2/4,concurrent=3,bytes=86400") as (client, clock, _):
        answer = client.get("/quick", headers={"X-API-Key": "first"})
        assert answer.headers["RateLimit-Policy"] == (
            '"requests";q=4;w=2, "bytes";q=86400;w=86400;qu="content-bytes", "concurrent";q=3;qu="concurrent-requests"'
        )
        assert answer.headers["RateLimit"] == '"requests";r=3;t=1, "bytes";r=86400;t=0, "concurrent";r=2'
        for _ in range(3):
            answer = client.get("/quick", headers={"X-API-Key": "first"})
        assert answer.headers["RateLimit"].startswith('"requests";r=0;t=1, ')
        answer = client.get("/quick", headers={"X-API-Key": "first"})
        assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1")
        assert answer.headers["RateLimit"].startswith('"requests";r=0;t=1, ')
        clock.now += 10
        assert client.get("/nothing", headers={"X-API-Key": "first"}).status_code == 404


def test_of_two_limits_the_tighter_is_named() -> None:
    with limiting(keys="requests=1/9", clients="requests=2/4") as (client, _, _):
        answer = client.get("/quick", headers={"X-API-Key": "first"})
        assert (answer.headers["RateLimit-Policy"], answer.headers["RateLimit"]) == (
            '"requests";q=4;w=2',
            '"requests";r=3;t=1',
        )


def test_each_picture_of_a_form_counts_and_the_next_form_is_refused_before_it_is_read() -> None:
    def send(count: int) -> Any:
        files = [("file", (f"{number}", b"x" * 1000)) for number in range(count)]
        return client.post("/form", files=files, headers={"X-API-Key": "first"})

    with limiting(keys="pictures=1/4,bytes=1MB") as (client, clock, _terms):
        assert send(3).status_code == 201
        whole = send(10)  # one is left, and so it is let in whole
        assert whole.status_code == 201
        assert '"pictures";r=0;t=10' in whole.headers["RateLimit"]
        assert '"pictures";q=4;w=4;qu="pictures"' in whole.headers["RateLimit-Policy"]
        left = re.findall(r'"bytes";r=([0-9]+)', send(1).headers["RateLimit"])
        refused = send(1)
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "10")
        assert re.findall(r'"bytes";r=([0-9]+)', refused.headers["RateLimit"]) == left, "nothing of it was read"
        assert status(client, "first") == 200  # what brings no picture goes on
        clock.now += 10
        assert send(1).status_code == 201


def test_a_query_counts_a_request_for_each_of_its_parts_which_the_next_requests_pay_for() -> None:
    def send(count: int, **more: Any) -> Any:
        body = {"query": [{"text": "red"}] * count, **more}
        return client.post("/parts", json=body, headers={"X-API-Key": key})

    key = "first"
    with limiting(keys="requests=1/4", own={"named": "requests=1/2"}) as (client, clock, _):
        assert '"requests";r=1' in send(3).headers["RateLimit"]
        whole = send(16)  # one is left, and so it is let in whole
        assert whole.status_code == 201
        assert '"requests";r=0;t=16' in whole.headers["RateLimit"]
        refused = send(1)
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "16")
        clock.now += 16
        assert [send(1).status_code for _ in range(2)] == [201, 429]
        key = ""  # where none is needed, the client that the body names pays
        assert [send(3, clientId="named").status_code for _ in range(2)] == [201, 429]


def test_bytes_count_as_they_come_over_a_day() -> None:
    def send(size: int) -> Any:
        return client.post("/form", files={"file": b"x" * size}, headers={"X-API-Key": "first"})

    with limiting(keys="bytes=86400") as (client, clock, _):
        assert send(50_000).status_code == 201
        assert send(50_000).status_code == 201  # the last one may go beyond
        refused = send(1)
        assert refused.status_code == 429
        assert 13_601 < int(refused.headers["Retry-After"]) < 15_000
        assert status(client, "first") == 429
        clock.now += int(refused.headers["Retry-After"])
        assert status(client, "first") == 200


def test_requests_at_once_are_counted_while_they_are_answered() -> None:
    with limiting(keys="concurrent=2", deadline=0.5) as (client, _, terms):
        inside = terms.limiter.inside
        inside.enter(["key key000000001"])  # another one
        assert status(client, "first") == 200
        assert inside["key key000000001"] == 1
        inside.enter(["key key000000001"])
        refused = client.get("/quick", headers={"X-API-Key": "first"})
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
        assert '"concurrent";r=0' in refused.headers["RateLimit"]
        assert status(client, "second") == 200
        inside.leave(["key key000000001"] * 2)
        assert status(client, "first", "/waits") == 503  # its deadline
        until(lambda: len(inside) == 0)


@pytest.mark.anyio
async def test_a_caller_who_leaves_is_inside_no_more() -> None:
    with limiting(keys="concurrent=1") as (client, _, terms):
        seen: list[int] = []
        chunks = iter([{"type": "http.request", "body": b"--b\r\n", "more_body": True}, {"type": "http.disconnect"}])

        async def receive() -> Any:
            seen.append(terms.limiter.inside["key key000000001"])
            return next(chunks)

        async def send(message: Any) -> None:
            seen.append(message.get("status", 0))

        headers = {"content-type": "multipart/form-data; boundary=b", "content-length": "500", "x-api-key": "first"}
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "path": "/form",
            "raw_path": b"/form",
            "query_string": b"",
            "root_path": "",
            "scheme": "http",
            "client": None,
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            "server": ("testserver", 80),
        }
        await client.app(scope, receive, send)
        assert seen[:3] == [1, 1, 499]
        assert len(terms.limiter.inside) == 0


# --- the whole server -------------------------------------------------------------------------------------------------


def test_open_routes_are_not_counted_and_a_refusal_is_documented(database_url: str, tmp_path: Path) -> None:
    with serving(database_url, tmp_path, client_limits="requests=0.001/2") as client:
        for _ in range(4):
            assert client.get("/health/live").status_code == 200
        statuses = [client.get("/v1/products/none?clientId=acme").status_code for _ in range(3)]
        assert statuses == [404, 404, 429]
        document = client.get("/schema/openapi.json").json()
        for path in ("/v1/search", "/embed-image", "/v1/products/{productId}"):
            for operation in document["paths"][path].values():
                answer = operation["responses"]["429"]
                assert {"Retry-After", "RateLimit", "RateLimit-Policy"} <= set(answer["headers"])
                assert {"RateLimit", "RateLimit-Policy"} <= set(operation["responses"]["200"]["headers"])


def test_a_limit_that_is_set_while_the_server_runs_is_heeded(database_url: str, tmp_path: Path) -> None:
    def limited_now() -> bool:
        return "RateLimit" in client.get("/v1/products/none?clientId=acme").headers

    with serving(database_url, tmp_path) as client:
        assert not limited_now()
        run_sql(database_url, """INSERT INTO twinlens_limits VALUES ('acme', '{"requestsPerSecond": 100}')""")
        until(limited_now)
        run_sql(database_url, "DELETE FROM twinlens_limits")
        until(lambda: not limited_now())


def test_two_servers_of_one_database_enforce_one_exact_limit(database_url: str, tmp_path: Path) -> None:
    def ask(client: Client, name: str) -> int:
        return client.get(f"/v1/products/none?clientId={name}").status_code

    settings = {"limits": "exact", "client_limits": "requests=0.001/4"}
    with serving(database_url, tmp_path, **settings) as one, serving(database_url, tmp_path, **settings) as two:
        assert [ask(one, "acme"), ask(two, "acme"), ask(one, "acme"), ask(two, "acme")] == [404] * 4
        assert [ask(one, "acme"), ask(two, "acme")] == [429, 429]
        assert ask(two, "other") == 404


# --- limits that are settings -----------------------------------------------------------------------------------------


def test_parts_and_json_have_limits_that_can_be_set() -> None:
    with limiting(max_parts=3, max_json=100) as (client, _, _):
        files = [("file", ("x", b"x"))] * 4
        assert client.post("/form", files=files[:3]).status_code == 201
        refused = client.post("/form", files=files)
        assert (refused.status_code, "at most 3 parts" in refused.json()["error"]) == (422, True)
        assert client.post("/json", json={"clientId": "a"}).status_code == 201
        refused = client.post("/json", json={"clientId": "a" * 100})
        assert (refused.status_code, "at most 100 bytes" in refused.json()["error"]) == (413, True)


def test_json_that_is_nested_too_deeply_is_refused() -> None:
    with limiting() as (client, _, _):
        for depth in (2_000, 100_000):
            sent = f'{{"filter": {{"attributes": {"[" * depth}{"]" * depth}}}}}'
            answer = client.post("/json", content=sent, headers={"Content-Type": "application/json"})
            assert answer.status_code in (400, 422)


def test_heads_have_a_size_and_a_time(serve: Serve, database_url: str) -> None:
    server = serve("--database-url", database_url, "--max-head", "8KiB", "--head-seconds", "1").ready()
    with server.client() as client:
        assert client.get("/health/live", headers={"X-Long": "x" * 4_000}).status_code == 200
        assert client.get("/health/live", headers={"X-Long": "x" * 40_000}).status_code == 431
    with server.connect() as connection:
        connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n")
        assert connection.recv(100).split(b"\r\n")[0] in (b"", b"HTTP/1.1 408 Request Timeout")
