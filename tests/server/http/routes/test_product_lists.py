"""Lists over HTTP: pages and their cursors, what they are asked to hold, and a product with its media."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import pytest
from PIL import Image

from server.http.routes.products import MOST_MEDIA
from tests import ROOT
from tests.support.pictures import in_format
from tests.support.serving import Client

IDS = ["10", "9", "gid://shopify/Product/1", "größe", "x"]


class Shop:
    def __init__(self, api: Client, client_id: str) -> None:
        self.api, self.client_id = api, client_id

    def put(self, item: str, **fields: Any) -> dict[str, Any]:
        answer = self.api.put(
            f"/v1/products/{quote(item, safe='')}", params={"clientId": self.client_id}, json={"name": item} | fields
        )
        made: dict[str, Any] = answer.raise_for_status().json()
        return made

    def page(self, path: str = "/v1/products", **query: Any) -> httpx.Response:
        return self.api.get(path, params={"clientId": self.client_id} | query)

    def all(self, path: str = "/v1/products", **query: Any) -> list[dict[str, Any]]:
        name = "media" if path.endswith("/media") else "products"
        found: list[dict[str, Any]] = []
        while True:
            body = self.page(path, **query).raise_for_status().json()
            assert set(body) == {name, "next"}
            found += body[name]
            if body["next"] is None:
                return found
            query["cursor"] = body["next"]


@pytest.fixture
def shop(api: Client, client_id: str) -> Shop:
    made = Shop(api, client_id)
    for number, item in enumerate(IDS):
        made.put(item, sku=f"S{number}", isActive=number != 2, attributes={"even": number % 2 == 0, "price": number})
    return made


def picture(seed: int) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    return in_format(Image.fromarray(noise), "PNG")


@pytest.mark.parametrize("limit", [1, 2, 5, 100])
def test_all_pages_together_are_the_catalogue(shop: Shop, limit: int) -> None:
    found = shop.all(limit=limit)
    assert sorted(one["id"] for one in found) == sorted(IDS)
    assert found == shop.all(), "in one order"
    one = shop.page("/v1/products/10").json()
    assert one == next(product for product in found if product["id"] == "10") | {"media": [], "mediaNext": None}


def test_changes_come_in_their_order_and_from_a_time_on(shop: Shop) -> None:
    ever = "2000-01-01T00:00:00Z"
    found = shop.all(updatedSince=ever, limit=2)
    assert [one["id"] for one in found] == IDS
    shop.put("9", sku="new")
    again = shop.all(updatedSince=found[-1]["updatedAt"], limit=1)
    assert [one["id"] for one in again] == [IDS[-1], "9"], "the last one once more, since it is of that very time"
    # The same moment, otherwise written.
    assert shop.all(updatedSince=found[-1]["updatedAt"].replace("Z", "+00:00")) == again


def test_the_reader_of_the_documentation_keeps_in_step(shop: Shop) -> None:
    text = (ROOT / "docs" / "api.md").read_text("utf-8").partition("**In step.**")[2]
    shown: dict[str, Any] = {"httpx": httpx, "Iterator": Iterator}
    exec(text.partition("```python\n")[2].partition("```")[0], shown)

    class Named:
        """A client whose key would say whose products these are."""

        def get(self, path: str, params: dict[str, Any]) -> httpx.Response:
            return shop.page(path, **params)

    copy: dict[str, Any] = {}
    since = "2000-01-01T00:00:00Z"
    writes: list[dict[str, Any]] = [{"name": "first"}, {"sku": "another"}, {"attributes": {}}]
    for write in writes:
        shop.put("9", **write)
        for product in shown["changes"](Named(), since):
            copy[product["id"]] = product
            since = max(since, product["updatedAt"])
        assert sorted(copy.values(), key=lambda one: one["id"]) == sorted(shop.all(), key=lambda one: one["id"])


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        ({"isActive": "true"}, [0, 1, 3, 4]),
        ({"isActive": "false"}, [2]),
        ({"sku": "S3"}, [3]),
        ({"sku": "s3"}, []),
        ({"attributes": '{"even": true}'}, [0, 2, 4]),
        ({"attributes": '{"price": {"gte": 1, "lt": 4}, "even": [true]}'}, [2]),
        ({"attributes": "{}"}, [0, 1, 2, 3, 4]),
        ({"attributes": '{"even": true}', "isActive": "true", "updatedSince": "2000-01-01T00:00:00Z"}, [0, 4]),
    ],
)
def test_a_list_holds_what_was_asked_for(shop: Shop, query: dict[str, str], numbers: list[int]) -> None:
    assert sorted(one["id"] for one in shop.all(limit=2, **query)) == sorted(IDS[number] for number in numbers)


@pytest.mark.parametrize(
    "query",
    [
        {"limit": "0"}, {"limit": "1001"}, {"limit": "ten"}, {"isActive": "perhaps"}, {"isactive": "true"}, {"sku": ""},
        {"updatedSince": "yesterday"}, {"updatedSince": "2026-01-01T00:00:00"}, {"updatedSince": "1767225600"},
        {"attributes": "red"}, {"attributes": "[]"}, {"attributes": '{"a": {"b": 1}}'}, {"attributes": '{"a": NaN}'},
        {"attributes": '{"a": 1}, "kind": "image"'}, {"attributes": "[" * 9999}, {"sku": "a\0b"}, {"sku": ["a", "b"]},
        {"cursor": ""}, {"cursor": "null"}, {"cursor": "x" * 3000}, {"offset": "3"},
    ],
)  # fmt: skip
def test_a_parameter_that_makes_no_sense_is_422_with_a_sentence(shop: Shop, query: dict[str, Any]) -> None:
    answer = shop.page(**query)
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_parameter")
    assert answer.json()["error"].endswith(".")


def test_a_cursor_goes_on_in_its_own_list_and_nowhere_else(api: Client, shop: Shop, client_id: str) -> None:
    cursor = shop.page(limit=2).json()["next"]
    assert shop.page(limit=3, cursor=cursor).status_code == 200, "another limit is no other list"
    changes = shop.page(limit=2, updatedSince="2000-01-01T00:00:00Z").json()["next"]
    stranger = Shop(api, f"{client_id}-b")
    for item in IDS:
        stranger.put(item)
    refused = [
        shop.page(cursor=cursor, isActive="true"),
        shop.page(cursor=cursor, updatedSince="2000-01-01T00:00:00Z"),
        shop.page(cursor=changes),
        shop.page(cursor=changes, updatedSince="2000-01-01T00:00:01Z"),
        shop.page("/v1/products/10/media", cursor=cursor),
        shop.page(cursor=cursor[:-1]),
        shop.page(cursor=cursor.swapcase()),
        stranger.page(cursor=cursor),
    ]
    for answer in refused:
        assert (answer.status_code, answer.json()["code"]) == (422, "bad_parameter")
        assert "begin again without a cursor" in answer.json()["error"]


def test_a_product_comes_with_its_first_media_and_says_where_the_others_are(shop: Shop) -> None:
    of = {"clientId": shop.client_id}
    media = "/v1/products/gid%3A%2F%2Fshopify%2FProduct%2F1/media"

    def add(seed: int) -> dict[str, Any]:
        made: dict[str, Any] = shop.api.post(media, params=of, files={"file": picture(seed)}).raise_for_status().json()
        return made

    added = [add(seed) for seed in range(3)]
    product = shop.api.get(media.removesuffix("/media"), params=of).json()
    assert product["media"] == added
    assert product["mediaNext"] is None
    assert shop.all(media) == shop.all(media, limit=1) == added
    assert shop.api.get(product["media"][0]["thumbnailUrl"]).status_code == 200

    # As many as it comes with, and two more.
    added += [add(seed) for seed in range(3, MOST_MEDIA + 2)]
    product = shop.api.get(media.removesuffix("/media"), params=of).json()
    assert product["media"] == added[:MOST_MEDIA]
    rest = shop.page(media, cursor=product["mediaNext"]).json()
    assert rest == {"media": added[MOST_MEDIA:], "next": None}


def test_media_of_a_product_that_is_not_there_are_404(shop: Shop) -> None:
    for path in ("/v1/products/none/media", "/v1/products/none"):
        answer = shop.page(path)
        assert (answer.status_code, answer.json()["code"]) == (404, "product_not_found")
    assert shop.page("/v1/products/10/media", updatedSince="2000-01-01T00:00:00Z").status_code == 422
