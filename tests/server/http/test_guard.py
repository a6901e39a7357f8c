"""Without keys, on loopback: which names the server answers to, and which pages may send it something."""

from __future__ import annotations

from typing import Any

import pytest
from litestar import Litestar

from server.http.guard import guard
from server.settings import Settings
from tests.support.serving import Client

OWN = "http://127.0.0.1"


def put(api: Client, client_id: str, **headers: str) -> tuple[int, str | None]:
    """Status and code of a change that these headers come with."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = api.put(f"/v1/products/of-{client_id}", params={"clientId": client_id}, headers=named, json={"name": "x"})
    return answer.status_code, answer.json().get("code")


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:80", "127.0.0.1", "127.0.0.1:8000", "[::1]", "[::1]:8000", "localhost:65535"]
)
def test_it_answers_to_the_names_of_this_machine(api: Client, host: str) -> None:
    assert api.get("/health/live", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil.example@127.0.0.1",
        "127.0.0.1:80@evil.example",
        "127.0.0.2",
        "0.0.0.0",
        "[::2]",
        "::1",
        "localhost:port",
        "",
    ],
)
@pytest.mark.parametrize("path", ["/", "/health/live", "/v1/media/x", "/nowhere", "/metrics"])
def test_it_answers_to_no_other_name(api: Client, host: str, path: str) -> None:
    answer = api.get(path, headers={"host": host, "X-Request-Id": "mine"})
    assert (answer.status_code, answer.json()["code"]) == (403, "host_refused")
    assert answer.json()["requestId"] == answer.headers["x-request-id"] == "mine"


def test_two_hosts_of_which_one_is_another_are_refused(api: Client) -> None:
    for hosts in (["localhost", "evil.example"], ["evil.example", "localhost"]):
        assert api.get("/", headers=[("Host", one) for one in hosts]).status_code == 403


@pytest.mark.anyio
async def test_the_address_that_is_listened_on_and_pages_that_are_named_are_let_in() -> None:
    reached: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        reached.append(scope)

    async def nothing(*_: Any) -> Any:
        raise AssertionError("nothing is refused, and nobody reads")

    headers = [(b"host", b"127.0.0.2:8000"), (b"origin", b"https://shop.example"), (b"sec-fetch-site", b"cross-site")]
    scope: Any = {"type": "http", "method": "POST", "scheme": "http", "headers": headers, "litestar_app": Litestar()}
    await guard(Settings(host="127.0.0.2"), {"https://shop.example"})(app)(scope, nothing, nothing)
    assert reached == [scope]


@pytest.mark.parametrize("settings", [Settings(trust_network=True), Settings(host="0.0.0.0")])
def test_beyond_loopback_a_key_or_a_gateway_decides(settings: Settings) -> None:
    async def app(*_: Any) -> None:
        raise AssertionError

    assert guard(settings)(app) is app


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec_Fetch_Site": "none"},
        {"Origin": OWN, "Sec_Fetch_Site": "same-origin"},
        {"Origin": OWN},
        {"Origin": f"{OWN}:80"},
        {"Origin": "http://localhost:8000", "Host": "localhost:8000"},
        {"Origin": "http://[::1]:8000", "Host": "[::1]:8000"},
        # A proxy on this machine, with a port of its own, that puts our port into Host.
        {"Origin": "https://localhost:8443", "Sec_Fetch_Site": "same-origin", "Host": "127.0.0.1:8000"},
    ],
)
def test_its_own_page_and_programs_may_change_things(api: Client, client_id: str, headers: dict[str, str]) -> None:
    assert put(api, client_id, **headers)[0] in (200, 201)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example", "Sec_Fetch_Site": "cross-site"},
        {"Origin": "https://evil.example"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": "anything"},
        {"Origin": "null"},
        {"Origin": "null", "Sec_Fetch_Site": "same-origin"},
        {"Origin": ""},
        {"Origin": "http://127.0.0.1:3000", "Sec_Fetch_Site": "same-site"},
        {"Origin": "http://127.0.0.1:3000"},
        {"Origin": "https://127.0.0.1"},
        {"Origin": "http://localhost"},
        {"Origin": "http://127.0.0.1.evil.example"},
        {"Origin": "http://127.0.0.1@evil.example", "Sec_Fetch_Site": "same-origin"},
        {"Origin": "http://[", "Sec_Fetch_Site": "same-origin"},
        {"Origin": "https://shop.example", "Sec_Fetch_Site": "same-origin"},
    ],
)
def test_pages_of_other_sites_may_not(api: Client, client_id: str, headers: dict[str, str]) -> None:
    assert put(api, client_id, **headers) == (403, "origin_refused")
    found = api.get(f"/v1/products/of-{client_id}", params={"clientId": client_id})
    assert found.status_code == 404


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/search"),
        ("POST", "/embed-image"),
        ("DELETE", "/v1/media/x"),
        ("PATCH", "/v1/media/x"),
        ("TRACE", "/"),
    ],
)
def test_a_form_of_another_site_is_refused_whatever_it_is_for(api: Client, method: str, path: str) -> None:
    form: dict[str, Any] = {"files": {"file": b"x"}} if method == "POST" else {}
    answer = api.request(method, path, headers={"Origin": "https://evil.example"}, **form)
    assert (answer.status_code, answer.json()["code"]) == (403, "origin_refused")
    assert answer.headers["x-request-id"]


def test_reading_is_left_to_the_browser_which_shows_other_pages_nothing(api: Client) -> None:
    headers = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    answer = api.get("/v1/products/demo-keyboard", headers=headers)
    assert (answer.status_code, "access-control-allow-origin" in answer.headers) == (200, False)


def test_a_head_is_refused_without_a_body(api: Client) -> None:
    answer = api.head("/", headers={"host": "evil.example"})
    assert (answer.status_code, answer.content) == (403, b"")


def test_refusals_are_counted(api: Client) -> None:
    def refused() -> float:
        (line,) = [
            one
            for one in api.get("/metrics").text.splitlines()
            if one.startswith("twinlens_requests_total{") and 'status="403"' in one and 'method="GET"' in one
        ] or ["x 0"]
        return float(line.rpartition(" ")[2])

    api.get("/", headers={"host": "evil.example"})
    before = refused()
    assert before >= 1
    api.get("/", headers={"host": "evil.example"})
    assert refused() == before + 1
