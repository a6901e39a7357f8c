"""What of the requests gets into the audit, by the whole app on a real database."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from server.access import stored_keys
from server.access.stored_keys import Wanted
from server.http.rules import RULES
from tests import DEMO_PICTURES
from tests.support.databases import run_sql
from tests.support.serving import Client, NewShop, serving

KEYBOARD = (DEMO_PICTURES / "keyboard.webp").read_bytes()
COLUMNS = '"keyId", "clientId", action, object, status, code, "requestId", host(address)'


@pytest.fixture(scope="module")
def audited(new_shop: NewShop) -> Iterator[tuple[Client, str]]:
    with new_shop() as shop, serving(*shop) as client:
        yield client, shop.database_url


def entries(url: str, client_id: str, least: int) -> list[tuple[Any, ...]]:
    """Those of a client, once there are so many: they come within a second or so."""
    deadline = time.monotonic() + 20
    while True:
        found = run_sql(url, f'SELECT {COLUMNS} FROM twinlens_audit WHERE "clientId" = %s ORDER BY id', [client_id])
        if len(found) >= least:
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


def test_every_write_is_audited_and_nothing_that_only_reads() -> None:
    reading = {("POST", "/embed-image"), ("POST", "/api/search/by-image"), ("POST", "/v1/embeddings")}
    reading |= {("POST", "/v1/search")}
    for (method, path), rule in RULES.items():
        assert rule.audited is (method != "GET" and (method, path) not in reading), (method, path)


def test_writes_are_kept_with_the_ids_of_what_they_made_and_what_came_of_them(
    audited: tuple[Client, str], client_id: str
) -> None:
    api, url = audited
    about = {"clientId": client_id}
    body = {"name": "Shoe", **about}
    assert api.put("/v1/products/shoe", json=body, headers={"X-Request-Id": "one"}).status_code == 201
    media = api.post("/v1/products/shoe/media", files={"file": KEYBOARD}, params=about).json()["id"]
    api.get("/v1/products/shoe", params=about)
    api.post("/v1/search", json={"mediaId": media, **about})
    assert api.delete(f"/v1/media/{media}", params=about).status_code == 200
    assert api.delete(f"/v1/media/{media}", params=about).status_code == 404
    assert api.put("/v1/products/no%2Fid%20", json=body).status_code == 422
    found = entries(url, client_id, 5)
    assert [row[:6] for row in found] == [
        (None, client_id, "PUT /v1/products/{product_id}", "shoe", 201, None),
        (None, client_id, "POST /v1/products/{product_id}/media", f"shoe/{media}", 201, None),
        (None, client_id, "DELETE /v1/media/{media_id}", media, 200, None),
        (None, client_id, "DELETE /v1/media/{media_id}", media, 404, "media_not_found"),
        (None, client_id, "PUT /v1/products/{product_id}", "no%2Fid ", 422, "bad_parameter"),
    ]
    assert found[0][6] == "one"


def test_with_keys_the_audit_has_the_keys_id_also_where_it_was_refused(new_shop: NewShop, client_id: str) -> None:
    with new_shop() as shop:
        with serving(*shop) as api:
            with psycopg.connect(shop.database_url) as connection:
                made = stored_keys.create(connection, Wanted(client_id, ("read",)))
            id_, key = made.stored.id, made.key
            deadline = time.monotonic() + 20
            while api.get("/v1/products/x").status_code != 401:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert api.delete("/v1/products/a").status_code == 401
            assert api.delete("/v1/products/b", headers={"X-API-Key": key[:-4] + "AAAA"}).status_code == 401
            assert api.delete("/v1/products/c", headers={"X-API-Key": key}).status_code == 403
            twice = [("Authorization", f"Bearer {key}"), ("Authorization", "Bearer other")]
            assert api.delete("/v1/products/d", headers=twice).status_code == 401
        # The stop has written what waited.
        found = run_sql(shop.database_url, f"SELECT {COLUMNS} FROM twinlens_audit WHERE operator IS NULL ORDER BY id")
    delete = "DELETE /v1/products/{product_id}"
    assert [row[:6] for row in found] == [
        (None, None, delete, "a", 401, "key_missing"),
        (id_, None, delete, "b", 401, "key_invalid"),
        (id_, client_id, delete, "c", 403, "scope_missing"),
        (None, None, delete, "d", 401, "key_invalid"),
    ]


def test_nothing_that_a_caller_sends_keeps_an_entry_out(audited: tuple[Client, str], client_id: str) -> None:
    api, url = audited
    for id_ in ("%00", "%ED%A0%80", "x" * 3000, "a%0Ab", "%E2%80%AE"):
        assert api.delete(f"/v1/media/{id_}", params={"clientId": client_id}).status_code in (404, 422)
    assert len(entries(url, client_id, 5)) == 5
