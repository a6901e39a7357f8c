"""Ids as platforms have them, in the paths of all calls: whatever stands in an id, it is one segment."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import quote

import pytest

from server.access.clients import check_id, check_item_id
from server.errors import BadParameter
from server.http.paths import escaped, resolved
from tests import DEMO_PICTURES
from tests.support.databases import run_sql
from tests.support.serving import Client, NewShop, serving

KEYBOARD = (DEMO_PICTURES / "keyboard.webp").read_bytes()

IDS = (
    "gid://shopify/Product/1",
    "/a/",
    "a/media",
    "100 %",
    "%2F",
    "%252F",
    "a%",
    "what?",
    "#1",
    "a b",
    "a+b",
    "a&b=c;d,e",
    "größe ⌨",
    "Ⅻ/鍵盤",
    "a..b/.c",
    "...",
    "~x",
    "\\a\"'<b>",
    "-1",
    "x" * 128,
)


@pytest.mark.parametrize("item", IDS)
def test_an_id_works_on_every_route_that_has_one(api: Client, client_id: str, item: str) -> None:
    of = {"clientId": client_id}
    product = f"/v1/products/{quote(item, safe='')}"
    made = api.put(product, params=of, json={"name": "A thing"})
    assert (made.status_code, made.json()["id"]) == (201, item)
    assert api.get(product, params=of).json()["id"] == item
    added = api.post(f"{product}/media", params=of, files={"file": KEYBOARD})
    assert (added.status_code, added.json()["productId"]) == (201, item)
    (found,) = api.post("/v1/search", params=of, files={"file": KEYBOARD}).json()["results"]
    assert found["productId"] == item
    narrowed = {"mediaId": added.json()["id"], "filter": {"productIds": [item]}}
    assert len(api.post("/v1/search", params=of, json=narrowed).json()["results"]) == 1
    assert api.delete(product, params=of).json()["id"] == item
    assert api.get(product, params=of).json()["code"] == "product_not_found"


@pytest.mark.parametrize("item", IDS)
def test_a_media_under_such_an_id_is_read_shown_and_deleted(own: Own, client_id: str, item: str) -> None:
    api, of = own.api, {"clientId": client_id}
    api.put("/v1/products/p", params=of, json={"name": "A thing"})
    added = api.post("/v1/products/p/media", params=of, files={"file": KEYBOARD}).json()["id"]
    # As the older application would have named it.
    run_sql(own.database_url, "UPDATE media SET id = %s WHERE id = %s", (item, added))
    path = f"/v1/media/{quote(item, safe='')}"
    media = api.get(path, params=of).json()
    assert media["id"] == item
    assert media["thumbnailUrl"].startswith(f"{path}/thumbnail?")
    # The signed addresses, without a client: the signature says whose they are.
    for address in (media["thumbnailUrl"], media["fileUrl"]):
        assert api.get(address).status_code == 200, address
        assert api.get(address.replace("signature=", "signature=0")).json()["code"] == "signature_invalid"
    assert api.get(f"{path}/duplicates", params=of).status_code == 200
    found = api.post("/v1/search", params=of, json={"mediaId": item}).json()["results"]
    assert [match["mediaId"] for match in found] == [item]
    assert api.delete(path, params=of).json()["id"] == item
    assert api.get(path, params=of).json()["code"] == "media_not_found"


def test_each_segment_is_resolved_once_and_by_itself(api: Client, client_id: str) -> None:
    """A slash of an id is none between segments, and what was encoded twice is decoded once."""
    of = {"clientId": client_id}
    for item in ("a/b", "a%2Fb", "a%252Fb"):
        assert api.put(f"/v1/products/{quote(item, safe='')}", params=of, json={"name": item}).status_code == 201
    for item in ("a/b", "a%2Fb", "a%252Fb"):
        assert api.get(f"/v1/products/{quote(item, safe='')}", params=of).json()["name"] == item
    # Lower case is the same, and so is what need not have been encoded.
    assert api.get("/v1/products/%61%2fb", params=of).json()["name"] == "a/b"
    assert api.get("/v1/%70roducts/a%2Fb", params=of).json()["name"] == "a/b"
    # One that was not encoded is a segment's end.
    answer = api.get("/v1/products/a/b", params=of)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_two_ids_never_share_a_path() -> None:
    for item in IDS:
        assert "/" not in escaped(item)
        assert resolved(escaped(item)) == item
    assert len({escaped(item) for item in IDS}) == len(IDS)


def test_what_was_routed_before_does_not_change_what_comes_after(api: Client, client_id: str) -> None:
    """The router keeps what it found for a path."""
    of = {"clientId": client_id}
    api.put("/v1/products/a%2Fb", params=of, json={"name": "x"})
    for _ in range(3):
        assert api.get("/v1/products/a%2Fb", params=of).json()["id"] == "a/b"


@pytest.mark.parametrize("path", ["/v1/products/%FF", "/v1/products/a%C3", "/v1/media/%FF/thumbnail"])
def test_an_address_that_is_not_utf_8_is_422(api: Client, path: str) -> None:
    answer = api.get(path)
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_parameter")
    assert "not UTF-8" in answer.json()["error"]


def test_an_address_without_a_route_is_404_whatever_it_holds(api: Client) -> None:
    assert api.get("/health/live%FF").status_code == 404


@pytest.mark.parametrize(
    "item",
    [
        *("", " a", "a ", "\u00a0", "a\tb", "a\nb", "a\0b", "a\x7fb", "\ud800", "\u200b", "x" * 129),
        *(".", "..", "../a", "a/..", "a/./b", "gid://../x"),
        "a~0123456789abcdef0123456789abcdef",
    ],
)
def test_an_id_that_nobody_could_see_or_send_is_refused(item: str) -> None:
    with pytest.raises(BadParameter, match="The id must"):
        check_item_id("The id", item)


@pytest.mark.parametrize("item", ["%2E%2E%2Fa", "a%00b", "%20a", "a%0Ab", "x" * 129])
def test_a_refused_id_makes_nothing(api: Client, client_id: str, item: str) -> None:
    path, of = f"/v1/products/{item}", {"clientId": client_id}
    answer = api.put(path, params=of, json={"name": "x"})
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_parameter")
    assert api.get(path, params=of).status_code in (404, 422)


@pytest.mark.parametrize("item", ["gid://shopify/Product/1", "a b", "größe"])
def test_a_client_is_named_as_before(item: str) -> None:
    with pytest.raises(BadParameter, match="clientId must be 1 to 128 letters"):
        check_id("clientId", item)


def test_the_log_the_audit_and_the_metrics_name_the_template_and_one_id(
    own: Own, client_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    of = {"clientId": client_id}
    with caplog.at_level(logging.INFO):
        own.api.put("/v1/products/gid%3A%2F%2Fshop%2F100%25", params=of, json={"name": "x"})
        made = own.api.post("/v1/products/gid%3A%2F%2Fshop%2F100%25/media", params=of, files={"file": KEYBOARD})
    entries = [getattr(record, "fields", {}) for record in caplog.records]
    audited = {entry["object"] for entry in entries if entry.get("event") == "audit"}
    assert audited == {"gid:%2F%2Fshop%2F100%25", f"gid:%2F%2Fshop%2F100%25/{made.json()['id']}"}
    metrics = own.api.get("/metrics").text
    assert 'route="/v1/products/{product_id}"' in metrics
    assert "gid" not in metrics


class Own(NamedTuple):
    api: Client
    database_url: str


@pytest.fixture(scope="module")
def own(new_shop: NewShop) -> Iterator[Own]:
    """A server whose database a test may write into."""
    with new_shop() as shop, serving(*shop, demo=False) as api:
        yield Own(api, shop.database_url)
