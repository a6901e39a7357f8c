"""The table of who may call what: it has every route, and no other."""

from __future__ import annotations

from typing import Any, cast

import pytest
from litestar.routes import HTTPRoute

from server.app import create_app
from server.http.rules import ADMIN, OPEN, RULES, rule_of
from server.settings import Settings


def test_every_route_stands_in_the_table_and_the_table_holds_no_other() -> None:
    routes = {
        (method, route.path_format)
        for route in create_app(Settings()).routes
        if isinstance(route, HTTPRoute)
        for handler in route.route_handlers
        for method in handler.http_methods - {"OPTIONS"}
    }
    assert routes == set(RULES)


def test_a_key_is_needed_for_all_but_health_the_pages_and_the_description() -> None:
    needless = {path for (_, path), rule in RULES.items() if rule.open}
    assert {"/health/live", "/health/ready", "/", "/operator", "/schema"} <= needless
    assert all(path in ("/", "/operator") or path.startswith(("/health/", "/web/", "/schema")) for path in needless)
    assert {method for (method, _), rule in RULES.items() if rule.open} == {"GET"}


def test_what_changes_something_needs_write_and_what_reads_a_catalogue_needs_read() -> None:
    for (method, path), rule in RULES.items():
        if method in ("PUT", "PATCH", "DELETE") or (method, path) == ("POST", "/v1/products/{product_id}/media"):
            assert rule.scopes == ("write",), path
        elif method == "GET" and path.startswith("/v1/"):
            assert ("admin" if path == "/v1/operator" else "read") in rule.scopes, path


@pytest.mark.parametrize(
    ("scope", "rule"),
    [
        ({"type": "http", "method": "GET", "path_template": "/v1/news"}, ADMIN),
        ({"type": "http", "method": "PATCH", "path_template": "/health/live"}, ADMIN),
        ({"type": "http", "method": "GET"}, ADMIN),
        ({"type": "websocket", "path_template": "/health/live"}, ADMIN),
        ({"type": "http", "method": "OPTIONS", "path_template": "/v1/news"}, OPEN),
        ({"type": "http", "method": "GET", "path_template": "/health/live"}, OPEN),
    ],
)
def test_what_the_table_does_not_hold_is_open_to_admin_alone(scope: dict[str, Any], rule: object) -> None:
    assert rule_of(cast("Any", scope)) is rule


def test_search_keys_open_searches_thumbnails_and_regions_and_nothing_else() -> None:
    assert {path for (_, path), rule in RULES.items() if rule.derived} == {
        "/v1/search",
        "/api/search/by-image",
        "/v1/media/{media_id}/thumbnail",
        "/v1/media/{media_id}/regions",
    }
    assert all("search" in rule.scopes for rule in RULES.values() if rule.derived)
