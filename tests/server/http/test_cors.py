"""Pages of other origins: preflights, what they may read of answers and errors, and a real browser at it."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, NamedTuple

import httpx
import pytest
from playwright.sync_api import Browser, Page

from server.errors import BadSetting
from server.http.cors import EXPOSED, HEADERS, METHODS, allowed_origin
from server.settings import Settings
from tests.support.access import fill, picture
from tests.support.browsers import launched, needs_chromium
from tests.support.databases import fresh_database
from tests.support.keys import new_key
from tests.support.process import Process
from tests.support.serving import Client, serving
from twinlens import derive_search_key

SHOP, ADMIN, OTHER = "https://shop.example", "https://admin.example", "https://other.example"


class Keyed(NamedTuple):
    client: Client
    key: str


@pytest.fixture(scope="module")
def keyed(postgres_url: str, template_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    """A server with keys, that pages of ADMIN may call, and any page with a search key."""
    with fresh_database(postgres_url, template_database) as url:
        key = new_key(url, "search,write").key
        with serving(url, tmp_path_factory.mktemp("cors"), cors_origins=("*", ADMIN), max_upload=100_000) as client:
            yield Keyed(client, key)


@pytest.fixture(scope="module")
def keyless(postgres_url: str, template_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """The same without keys."""
    with (
        fresh_database(postgres_url, template_database) as url,
        serving(url, tmp_path_factory.mktemp("cors"), cors_origins=("*", ADMIN)) as client,
    ):
        yield client


def allowed(answer: httpx.Response) -> str | None:
    said: str | None = answer.headers.get("Access-Control-Allow-Origin")
    return said


def preflight(client: Client, origin: str, method: str, path: str) -> httpx.Response:
    asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": "authorization,content-type"}
    return client.options(path, headers={"Origin": origin, **asked})


@pytest.mark.parametrize(
    ("given", "origins"),
    [
        ("https://shop.example", (SHOP,)),
        (" https://shop.example, http://localhost:3000,https://shop.example ", (SHOP, "http://localhost:3000")),
        ("*", ("*",)),
        ("*,https://shop.example", ("*", SHOP)),
        ("http://[::1]:8080,capacitor://localhost", ("http://[::1]:8080", "capacitor://localhost")),
    ],
)
def test_the_setting_names_exact_origins(given: str, origins: tuple[str, ...]) -> None:
    assert Settings.read({"TWINLENS_CORS_ORIGINS": given}).cors_origins == origins


@pytest.mark.parametrize(
    "given",
    [
        "https://shop.example/",
        "https://*.shop.example",
        "shop.example",
        "https://Shop.example",
        "https://shop.example:443",
        "http://shop.example:80",
        "null",
        "https://shop.example https://other.example",
        "https://user@shop.example",
    ],
)
def test_what_no_browser_sends_as_an_origin_stops_the_start(given: str) -> None:
    with pytest.raises(BadSetting, match="TWINLENS_CORS_ORIGINS must be"):
        Settings.read({"TWINLENS_CORS_ORIGINS": given})


def test_only_origins_that_are_named_are_the_operators() -> None:
    settings = Settings(cors_origins=("*", SHOP))
    assert allowed_origin(settings, SHOP)
    assert not allowed_origin(settings, OTHER)
    assert not allowed_origin(settings, "*")
    assert not allowed_origin(Settings(), SHOP)


def test_without_the_setting_nothing_is_said_to_other_origins(api: Client) -> None:
    for answer in (api.get("/health/live", headers={"Origin": SHOP}), preflight(api, SHOP, "POST", "/v1/search")):
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert "origin" not in answer.headers.get("Vary", "").lower()


def test_a_preflight_says_what_may_be_sent(keyed: Keyed) -> None:
    for path, method in (("/v1/products/x", "PUT"), ("/v1/search", "POST"), ("/nothing", "GET")):
        answer = preflight(keyed.client, ADMIN, method, path)
        assert (answer.status_code, answer.content, allowed(answer)) == (204, b"", ADMIN)
        assert answer.headers["Access-Control-Allow-Methods"] == ", ".join(METHODS)
        assert answer.headers["Access-Control-Allow-Headers"] == ", ".join(HEADERS)
        assert int(answer.headers["Access-Control-Max-Age"]) > 0
        assert "Access-Control-Allow-Credentials" not in answer.headers
        assert {"Origin", "Access-Control-Request-Headers"} <= set(answer.headers["Vary"].split(", "))
        assert answer.headers["X-Request-Id"]
    assert {"Authorization", "X-API-Key", "Content-Type", "Twinlens-Deadline", "Twinlens-Lane"} <= set(HEADERS)


def test_any_page_may_call_what_a_search_key_opens_and_nothing_else(keyed: Keyed) -> None:
    opened = [
        ("POST", "/v1/search"),
        ("POST", "/api/search/by-image"),
        ("GET", "/v1/media/x/thumbnail"),
        ("POST", "/v1/search/"),
    ]
    for method, path in opened:
        assert allowed(preflight(keyed.client, OTHER, method, path)) == "*", path
    closed = [
        ("GET", "/v1/products/x"),
        ("PUT", "/v1/products/x"),
        ("DELETE", "/v1/media/x"),
        ("GET", "/metrics"),
        ("GET", "/schema"),
        ("GET", "/v1/search"),
        ("POST", "/nothing"),
        ("BREW", "/v1/search"),
    ]
    for method, path in closed:
        answer = preflight(keyed.client, OTHER, method, path)
        assert allowed(answer) is None, path
        assert "Origin" in answer.headers["Vary"]


def test_pages_read_answers_and_errors_with_the_headers_that_matter(keyed: Keyed) -> None:
    good = {"Authorization": f"Bearer {keyed.key}"}
    search = ("POST", "/v1/search")
    calls: list[tuple[int, tuple[str, str], dict[str, Any]]] = [
        (200, search, {"json": {"text": "x"}, "headers": good}),
        (401, search, {"json": {"text": "x"}}),
        (401, search, {"json": {"text": "x"}, "headers": {"X-API-Key": "wrong"}}),
        (413, search, {"files": {"file": b"x" * 200_000}, "headers": good}),
        (422, search, {"json": {}, "headers": good}),
        (404, ("GET", "/v1/media/none/thumbnail"), {"headers": good}),
        (503, search, {"json": {"text": "y"}, "headers": {**good, "Twinlens-Deadline": "0.0000001"}}),
    ]
    for origin, expected in ((ADMIN, ADMIN), (OTHER, "*")):
        for status, (method, path), sent in calls:
            headers = {**sent.get("headers", {}), "Origin": origin}
            answer = keyed.client.request(method, path, **{**sent, "headers": headers})
            assert (answer.status_code, allowed(answer)) == (status, expected), path
            assert answer.headers["Access-Control-Expose-Headers"] == ", ".join(EXPOSED)
            assert "Origin" in answer.headers["Vary"].split(", ")
            assert "Access-Control-Allow-Credentials" not in answer.headers
    assert {"Server-Timing", "Retry-After", "X-Request-Id"} <= set(EXPOSED)


def test_a_fault_and_what_no_route_answers_can_be_read_too(keyed: Keyed) -> None:
    for method, path, status in (("GET", "/nothing", 404), ("DELETE", "/v1/search", 405)):
        assert allowed(keyed.client.request(method, path, headers={"Origin": ADMIN})) == ADMIN
        assert keyed.client.request(method, path, headers={"Origin": OTHER}).status_code == status
    services = keyed.client.app.state.services
    keyed.client.app.state.services = None  # anything unforeseen
    try:
        answer = keyed.client.get("/health/ready", headers={"Origin": ADMIN})
    finally:
        keyed.client.app.state.services = services
    assert (answer.status_code, allowed(answer)) == (500, ADMIN)


def test_without_keys_the_star_opens_nothing(keyless: Client) -> None:
    assert allowed(keyless.post("/v1/search", json={"text": "x"}, headers={"Origin": OTHER})) is None
    assert allowed(preflight(keyless, OTHER, "POST", "/v1/search")) is None
    assert allowed(keyless.post("/v1/search", json={"text": "x"}, headers={"Origin": ADMIN})) == ADMIN


def test_vary_keeps_what_an_answer_varies_by_already(keyed: Keyed) -> None:
    for headers in ({}, {"Origin": ADMIN}, {"Origin": OTHER}):
        assert keyed.client.get("/schema", headers=headers).headers["Vary"] == "X-Forwarded-Prefix, Origin"


# --- in a browser ----------------------------------------------------------------------------------------------------


@contextmanager
def page_elsewhere() -> Iterator[str]:
    """The origin of an empty page on another host and port."""

    class Empty(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>A shop</title><img id=picture>")

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Empty)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://localhost:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as browser:
        yield browser


CALL = """async ([address, key, picture, body]) => {
    const headers = key ? { Authorization: `Bearer ${key}` } : {};
    let sent;
    if (picture) {
        sent = new FormData();
        sent.append("file", new Blob([Uint8Array.from(atob(picture), (one) => one.charCodeAt(0))]), "a.webp");
    } else {
        sent = JSON.stringify(body);
        headers["Content-Type"] = "application/json";
    }
    try {
        const answer = await fetch(address, { method: "POST", headers, body: sent });
        const said = await answer.json();
        return [answer.status, said.code ?? said.results.length, Boolean(answer.headers.get("X-Request-Id")),
            (answer.headers.get("Server-Timing") ?? "").includes("total"), answer.headers.get("Retry-After")];
    } catch (error) {
        return String(error);
    }
}"""

SHOWN = """address => new Promise((done) => {
    const image = document.getElementById("picture");
    image.onload = () => done(image.naturalWidth);
    image.onerror = () => done("error");
    image.src = address;
})"""

BLOCKED = "TypeError: Failed to fetch"


@needs_chromium
def test_a_page_of_another_origin_searches_by_form_and_json_and_reads_errors(
    postgres_url: str, template_database: str, tmp_path_factory: pytest.TempPathFactory, browser: Browser
) -> None:
    with fresh_database(postgres_url, template_database) as url, page_elsewhere() as listed, page_elsewhere() as other:
        parent, write = new_key(url, "search").key, new_key(url, "read,write").key
        flags = ("--database-url", url, "--cors-origins", f"*,{listed}", "--max-upload", "1MB")
        process = Process(tmp_path_factory.mktemp("cors"), *flags)
        try:
            process.ready()
            with process.client() as client:
                media = fill(client, write)
            with browser.new_context() as context:
                page = context.new_page()
                _use_from(page, listed, process.url, parent, write, media)
                _use_from_another(page, other, listed, process.url, parent, write, media)
        finally:
            process.stop()


def _call(page: Page, address: str, key: str | None, data: bytes | None = None, body: Any = None) -> Any:
    sent = base64.b64encode(data).decode() if data is not None else None
    return page.evaluate(CALL, [address, key, sent, body])


def _use_from(page: Page, origin: str, server: str, parent: str, write: str, media: dict[str, str]) -> None:
    """From the page that the operator has named: all that the key opens."""
    page.goto(origin)
    search = f"{server}/v1/search"
    own = derive_search_key(parent, origins=[origin], limit=3)
    assert _call(page, search, own, picture("violin")) == [200, 3, True, True, None]
    assert _call(page, search, own, body={"mediaId": media["violin"]}) == [200, 3, True, True, None]
    assert _call(page, search, None, body={"text": "x"})[:3] == [401, "key_missing", True]
    assert _call(page, search, "wrong", picture("violin"))[:3] == [401, "key_invalid", True]
    assert _call(page, search, own, body={"mediaId": "none"})[:3] == [404, "media_not_found", True]
    assert _call(page, search, own, b"\x89PNG" + bytes(1_500_000))[:3] == [413, "upload_too_large", True]
    assert _call(page, f"{server}/v1/products/x/media", write, picture("violin"))[:2] == [404, "product_not_found"]
    assert _call(page, f"{server}/nothing", own, body={})[:2] == [404, "not_found"]


def _use_from_another(
    page: Page, origin: str, listed: str, server: str, parent: str, write: str, media: dict[str, str]
) -> None:
    """From any other page: what a search key opens, and nothing else."""
    page.goto(origin)
    search = f"{server}/v1/search"
    mine, anyones = derive_search_key(parent, origins=[listed]), derive_search_key(parent)
    assert _call(page, search, anyones, picture("violin"))[:2] == [200, 6]
    assert _call(page, search, anyones, body={"text": "x"})[:2] == [200, 6]
    assert _call(page, search, mine, body={"text": "x"})[:3] == [403, "origin_refused", True]
    assert _call(page, search, None, picture("violin"))[:2] == [401, "key_missing"]
    assert _call(page, f"{server}/v1/products/x/media", write, picture("violin")) == BLOCKED
    # A shop's page shows pictures, but cannot take in anything else.
    assert page.evaluate(SHOWN, f"{server}/web/icon.svg") == "error"
    assert "acme" not in page.url
