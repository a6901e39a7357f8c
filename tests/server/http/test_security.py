"""Headers by which browsers keep apart what does not belong together."""

from __future__ import annotations

import pytest

from tests.support.serving import Client

PAGES = ["/", "/web/app.js", "/web/key.js", "/web/style.css", "/schema/swagger", "/web/swagger-ui/swagger-ui.css"]
OTHERS = ["/health/live", "/schema", "/metrics", "/nothing", "/v1/media/none/thumbnail", "/v1/products/none"]


@pytest.mark.parametrize("path", PAGES + OTHERS)
def test_every_answer_says_how_it_may_be_used(api: Client, path: str) -> None:
    headers = api.get(path).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    policy = headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert len(headers.get_list("Content-Security-Policy")) == 1
    assert ("form-action 'none'" in policy) == (path in PAGES)
    assert ("default-src 'none'" in policy) == (path in OTHERS)


@pytest.mark.parametrize("path", ["/", "/schema/swagger"])
def test_a_page_shares_no_window_and_asks_for_no_device(api: Client, path: str) -> None:
    headers = api.get(path).headers
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert "camera=()" in headers["Permissions-Policy"]


def test_a_shops_page_may_show_thumbnails(api: Client) -> None:
    match = api.post("/v1/search", json={"text": "a teapot", "limit": 1}).json()["results"][0]
    headers = api.get(match["thumbnailUrl"]).headers
    assert headers["Cross-Origin-Resource-Policy"] == "cross-origin"
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_without_keys_the_page_asks_for_none(api: Client) -> None:
    assert 'data-keys="off"' in api.get("/").text
