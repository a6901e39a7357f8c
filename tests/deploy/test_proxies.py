"""The examples for nginx and Caddy, run as Debian ships them: searches with TLS, and what must not be done."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

import httpx
import pytest

from tests.support.databases import fresh_database, run_sql
from tests.support.gateways import PREFIX, SITE, Gateway, caddy, caddy_below, needs_gateways, nginx, nginx_below
from tests.support.keys import new_key
from tests.support.process import KEYBOARD, Process, free_port, until

pytestmark = needs_gateways

Below = Callable[[Path, str], AbstractContextManager[str]]

GATEWAYS = {"nginx": nginx, "caddy": caddy}


@dataclass(frozen=True)
class Running:
    process: Process
    database_url: str
    key: str


@pytest.fixture(scope="module")
def running(postgres_url: str, template_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with keys on."""
    with fresh_database(postgres_url, template_database) as url:
        key = new_key(url, "search,write").key
        flags = ("--database-url", url, "--proxies", "127.0.0.1", "--device", "cpu")
        process = Process(tmp_path_factory.mktemp("proxies"), *flags).ready()
        try:
            yield Running(process, url, key)
        finally:
            process.stop()


@pytest.fixture(scope="module", params=GATEWAYS)
def gateway(
    request: pytest.FixtureRequest, running: Running, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    start = GATEWAYS[request.param]
    with start(tmp_path_factory.mktemp(request.param), f"127.0.0.1:{running.process.port}") as gateway:
        yield gateway


@pytest.fixture
def client(gateway: Gateway, running: Running) -> Iterator[httpx.Client]:
    with gateway.client() as client:
        client.headers["X-API-Key"] = running.key
        yield client


def test_a_picture_finds_itself_through_tls(client: httpx.Client, gateway: Gateway, running: Running) -> None:
    client.put("/v1/products/keyboard", json={"name": "Keyboard"}).raise_for_status()
    added = client.post("/v1/products/keyboard/media", files={"file": KEYBOARD}).raise_for_status()
    answer = client.post("/v1/search", files={"file": KEYBOARD}).raise_for_status()
    first = answer.json()["results"][0]
    assert (first["mediaId"], first["similarity"]) == (added.json()["id"], 100.0)
    assert answer.headers["Strict-Transport-Security"] == "max-age=63072000"

    with gateway.client() as anybody:
        assert anybody.get("/v1/media/none/thumbnail").json()["code"] == "key_missing"
        thumbnail = anybody.get(first["thumbnailUrl"]).raise_for_status()
    assert thumbnail.headers["Content-Type"] == "image/webp"

    # Neither what opens a picture nor the key is in the log, but the way to the picture is.
    path = urlsplit(first["thumbnailUrl"]).path
    until(lambda: path in gateway.log.read_text())
    logged = gateway.log.read_text()
    assert "signature=" not in logged
    assert running.key not in logged
    # One id for the request, in the answer and in both logs.
    assert answer.headers["X-Request-Id"] in logged


IDS = ("gid://shopify/Product/1", "100 %", "%2F", "what?#", "a/b//c", "größe ⌨")


@pytest.mark.parametrize("item", IDS)
def test_ids_arrive_as_they_are(client: httpx.Client, gateway: Gateway, item: str) -> None:
    path = f"/v1/products/{quote(item, safe='')}"
    assert client.put(path, json={"name": "x"}).raise_for_status().json()["id"] == item
    added = client.post(f"{path}/media", files={"file": KEYBOARD}).raise_for_status()
    assert added.json()["productId"] == item
    read = client.get(path).raise_for_status()
    assert read.json()["media"] == [added.json()]
    assert client.get(path, headers={"If-None-Match": read.headers["ETag"]}).status_code == 304
    changed = client.patch(path, json={"name": "y"}, headers={"If-Match": read.headers["ETag"]}).raise_for_status()
    assert client.delete(path, headers={"If-Match": read.headers["ETag"]}).status_code == 412
    client.delete(path, headers={"If-Match": changed.headers["ETag"]}).raise_for_status()


@pytest.mark.parametrize("below", [nginx_below, caddy_below])
def test_ids_arrive_as_they_are_below_a_prefix(below: Below, running: Running, tmp_path: Path) -> None:
    with below(tmp_path, f"127.0.0.1:{running.process.port}") as url, httpx.Client(base_url=url + PREFIX) as client:
        client.headers["X-API-Key"] = running.key
        for item in IDS:
            path = f"v1/products/{quote(item, safe='')}"
            client.put(path, json={"name": "x"}).raise_for_status()
            added = client.post(f"{path}/media", files={"file": KEYBOARD}).raise_for_status().json()
            assert added["productId"] == item
            assert httpx.get(url + added["thumbnailUrl"]).status_code == 200
            found = client.get("v1/products", params={"limit": 1000, "sku": "none"}).json()
            assert found == {"products": [], "next": None}, "and the query, too"
            client.delete(path).raise_for_status()


def test_callers_cannot_say_that_they_are_somebody_else(client: httpx.Client, running: Running) -> None:
    claimed = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Prefix": "/elsewhere", "X-Request-Id": "mine"}
    answer = client.put("/v1/products/teapot", json={"name": "Teapot"}, headers=claimed).raise_for_status()
    assert answer.headers["X-Request-Id"] != "mine"
    asked = 'SELECT address::text FROM twinlens_audit WHERE "requestId" = %s'
    until(lambda: run_sql(running.database_url, asked, (answer.headers["X-Request-Id"],)))
    ((address,),) = run_sql(running.database_url, asked, (answer.headers["X-Request-Id"],))
    assert address.startswith("127.0.0.1")
    # Nor that all addresses of the API begin with something.
    assert "/elsewhere" not in client.get("/schema/openapi.json", headers=claimed).text


def test_figures_are_not_for_everybody(client: httpx.Client, gateway: Gateway, running: Running) -> None:
    admin = new_key(running.database_url, "admin", None).key
    refused = client.get("/metrics", headers={"X-API-Key": admin})
    assert (refused.status_code, refused.json()["code"]) == (404, "not_found")
    assert refused.headers["Content-Type"].startswith("application/json")
    with running.process.client() as directly:
        directly.get("/metrics", headers={"X-API-Key": admin}).raise_for_status()


@pytest.mark.parametrize("size", [32_500_000, 36_000_000], ids=["by the server", "by the proxy"])
def test_what_is_too_large_is_refused_with_the_body_of_every_error(client: httpx.Client, size: int) -> None:
    answer = client.post("/v1/search", files={"file": bytes(size)})
    assert (answer.status_code, answer.json()["code"]) == (413, "upload_too_large")
    assert answer.headers["Content-Type"].startswith("application/json")
    assert answer.json()["requestId"]


def test_a_search_is_not_cut_off_by_the_size_that_is_allowed(client: httpx.Client) -> None:
    answer = client.post("/v1/search", files={"file": KEYBOARD + bytes(31_000_000)})
    assert answer.status_code == 200, "what stands behind a WebP is not looked at"


def test_plain_http_leads_to_tls(gateway: Gateway) -> None:
    answer = httpx.get(f"http://127.0.0.1:{gateway.plain_port}/v1/search?a=b", headers={"Host": SITE})
    assert answer.status_code in (301, 308)
    to = urlsplit(answer.headers["Location"])
    assert (to.scheme, to.hostname, to.path, to.query) == ("https", SITE, "/v1/search", "a=b")


@pytest.mark.parametrize("kind", GATEWAYS)
def test_while_the_server_is_away_callers_are_told_when_to_come_again(kind: str, tmp_path: Path) -> None:
    with GATEWAYS[kind](tmp_path, f"127.0.0.1:{free_port()}") as gateway, gateway.client() as client:
        answer = client.post("/v1/search", files={"file": KEYBOARD})
    assert (answer.status_code, json.loads(answer.text)["code"]) == (503, "not_ready")
    assert answer.headers["Retry-After"] == "5"
    assert answer.headers["Strict-Transport-Security"] == "max-age=63072000"
