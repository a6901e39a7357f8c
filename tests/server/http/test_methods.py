"""HEAD and OPTIONS, and which methods an address says that it takes."""

from __future__ import annotations

import pytest

from tests.support.serving import Client

ADDRESSES = ["/", "/web/app.js", "/web/nothing.js", "/health/live", "/health/ready", "/schema", "/v1/products/none"]


@pytest.mark.parametrize("path", [*ADDRESSES, "/schema/openapi.json", "/v1/media/none/thumbnail"])
def test_head_has_the_headers_of_get_and_no_body(api: Client, path: str) -> None:
    got, head = (api.request(method, path, headers={"X-Request-Id": "one"}) for method in ("GET", "HEAD"))
    assert head.status_code == got.status_code
    assert head.content == b""
    assert dict(head.headers) == dict(got.headers)
    assert int(head.headers["content-length"]) == len(got.content) > 0


def test_head_of_a_picture_that_is_there(api: Client, client_id: str) -> None:
    found = api.post("/v1/search", json={"text": "a teapot"}).json()["results"][0]
    path = f"/v1/media/{found['mediaId']}/thumbnail"
    got, head = api.get(path), api.head(path)
    assert head.status_code == 200
    assert head.content == b""
    assert head.headers["content-type"] == "image/webp"
    assert int(head.headers["content-length"]) == len(got.content)


def test_the_metrics_keep_head_apart_and_no_word_of_a_caller_becomes_a_series(api: Client) -> None:
    api.head("/health/live")
    api.request("BREW", "/health/live")
    api.get("/nothing/here")
    text = api.get("/metrics").text
    assert 'method="HEAD",route="/health/live",status="200"' in text
    assert 'method="other",route="(none)",status="405"' in text
    assert 'method="GET",route="(none)",status="404"' in text
    assert "BREW" not in text
    assert "/nothing/here" not in text


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/", {"GET", "HEAD", "OPTIONS"}),
        ("/health/live", {"GET", "HEAD", "OPTIONS"}),
        ("/v1/search", {"POST", "OPTIONS"}),
        ("/v1/products", {"GET", "HEAD", "OPTIONS"}),
        ("/v1/products/x", {"GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"}),
        ("/v1/products/x/", {"GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"}),
        ("/v1/products/a%2Fmedia", {"GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"}),
        ("/v1/products:batch", {"POST", "OPTIONS"}),
        ("/v1/media/x", {"GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"}),
    ],
)
def test_an_address_says_which_methods_it_takes(api: Client, path: str, methods: set[str]) -> None:
    options, wrong = api.options(path), api.request("POST" if "PATCH" in methods else "PATCH", path)
    assert (options.status_code, wrong.status_code) == (204, 405)
    for answer in (options, wrong):
        assert set(answer.headers["Allow"].split(", ")) == methods


def test_head_of_what_has_no_get_is_refused_as_get_would_be(api: Client) -> None:
    answer = api.head("/v1/search")
    assert (answer.status_code, answer.content) == (405, b"")
    assert "GET" not in answer.headers["Allow"]


def test_an_address_that_does_not_exist_keeps_the_callers_id(api: Client) -> None:
    answer = api.get("/nothing/here", headers={"X-Request-Id": "shop-42"})
    assert (answer.headers["X-Request-Id"], answer.json()["requestId"]) == ("shop-42", "shop-42")
