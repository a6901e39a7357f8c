"""A card's data over HTTP: what a search names in its `fields`, its matches have, and nothing else."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests import DEMO_PICTURES
from tests.support.serving import Client

KEYBOARD, TEAPOT = ((DEMO_PICTURES / f"{name}.webp").read_bytes() for name in ("keyboard", "teapot"))
PLAIN = {
    "productId", "productName", "mediaId", "s3Key", "width", "height", "score", "cosine", "similarity", "grade",
    "thumbnailUrl", "fileUrl",
}  # fmt: skip
FACTS: dict[str, Any] = {
    "price": 49.9,
    "colour": ["black", "white"],
    "url": "https://shop.example/keyboard",
    "cost": 12,
}


@pytest.fixture
def of(api: Client, client_id: str) -> dict[str, str]:
    """The query of a client with two products."""
    query = {"clientId": client_id}
    for name, picture, more in (
        ("keyboard", KEYBOARD, {"sku": f"{client_id}-K", "attributes": FACTS}),
        ("teapot", TEAPOT, {"attributes": {"url": "javascript:alert(1)"}}),
    ):
        put = api.put(f"/v1/products/{client_id}-{name}", params=query, json={"name": name, **more})
        put.raise_for_status()
        added = api.post(f"/v1/products/{client_id}-{name}/media", params=query, files={"file": picture})
        added.raise_for_status()
    return query


def by_form(
    api: Client, of: dict[str, str], fields: Any = None, path: str = "/v1/search", **more: str
) -> httpx.Response:
    given = {} if fields is None else {"fields": fields if isinstance(fields, str) else json.dumps(fields)}
    return api.post(path, params=of, files={"file": KEYBOARD}, data={**given, **more})


def by_media(api: Client, of: dict[str, str], **more: Any) -> httpx.Response:
    media = by_form(api, of).json()["results"][0]["mediaId"]
    return api.post("/v1/search", json={**of, "mediaId": media, **more})


def cards(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    return [{name: one for name, one in match.items() if name not in PLAIN} for match in response.json()["results"]]


def test_without_fields_a_match_has_none(api: Client, of: dict[str, str]) -> None:
    for answer in (by_form(api, of), by_media(api, of), by_media(api, of, fields=[]), by_form(api, of, "[]")):
        assert cards(answer) == [{}, {}]


def test_a_match_has_exactly_what_is_named(api: Client, of: dict[str, str]) -> None:
    named = ["sku", "url", "isActive", "attributes.price", "attributes.size"]
    expected = [
        {"sku": f"{of['clientId']}-K", "url": FACTS["url"], "isActive": True, "attributes": {"price": 49.9}},
        {"sku": None, "url": None, "isActive": True, "attributes": {}},
    ]
    assert cards(by_form(api, of, named)) == expected
    assert cards(by_media(api, of, fields=named)) == expected
    parts = json.dumps([{"file": 0, "weight": 2}, {"text": "keyboard", "weight": 0}])
    assert cards(by_form(api, of, named, query=parts)) == expected
    assert cards(by_media(api, of, fields=["attributes"]))[0] == {"attributes": FACTS}
    assert cards(by_media(api, of, fields=["sku"]))[1] == {"sku": None}


def test_an_address_is_http_or_https_and_the_attribute_itself_is_as_it_was_put(api: Client, of: dict[str, str]) -> None:
    (_, teapot) = cards(by_form(api, of, ["url", "attributes.url"]))
    assert teapot == {"url": None, "attributes": {"url": "javascript:alert(1)"}}


def test_an_operator_sees_what_is_not_active(api: Client, of: dict[str, str]) -> None:
    api.patch(f"/v1/products/{of['clientId']}-teapot", params=of, json={"isActive": False}).raise_for_status()
    found = by_media(api, of, filter={"isActive": "any"}, fields=["isActive"])
    assert cards(found) == [{"isActive": True}, {"isActive": False}]
    assert cards(by_media(api, of, fields=["isActive"])) == [{"isActive": True}]


def test_the_legacy_form_knows_no_fields(api: Client, of: dict[str, str]) -> None:
    answer = by_form(api, of, ["sku"], path="/api/search/by-image")
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_parameter")


def test_a_media_that_is_listed_as_a_duplicate_has_none(api: Client, of: dict[str, str]) -> None:
    added = api.post(f"/v1/products/{of['clientId']}-teapot/media", params=of, files={"file": KEYBOARD}).json()
    (twin,) = api.get(f"/v1/media/{added['id']}/duplicates", params=of).raise_for_status().json()["exact"]
    assert set(twin) == PLAIN


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (["name"], "fields: each is sku, url, isActive, attributes or attributes.NAME"),
        (["attributes."], "fields: each is sku"),
        (["attributes.\0"], "fields: each is sku"),
        ("sku", "fields"),
        ([1], "fields"),
        ([f"attributes.{number}" for number in range(51)], "fields"),
    ],
    ids=["name", "attributes", "nul", "text", "number", "many"],
)
def test_fields_that_make_no_sense_are_refused(api: Client, of: dict[str, str], fields: Any, sentence: str) -> None:
    for answer in (by_form(api, of, json.dumps(fields)), by_media(api, of, fields=fields)):
        assert (answer.status_code, answer.json()["code"]) == (422, "bad_parameter")
        assert sentence in answer.json()["error"]
    assert "is not JSON" in by_form(api, of, "sku,url").json()["error"]
