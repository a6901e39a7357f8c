"""Searches whose matches are arranged: by product, in pages, without near-duplicates, by boosts; and why."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests import DEMO_PICTURES
from tests.support.pictures import unseen
from tests.support.serving import Client

KEYBOARD, TEAPOT, VIOLIN = ((DEMO_PICTURES / f"{name}.webp").read_bytes() for name in ("keyboard", "teapot", "violin"))


def by_json(api: Client, **body: Any) -> httpx.Response:
    return api.post("/v1/search", json=body)


def by_form(api: Client, data: bytes = KEYBOARD, **fields: Any) -> httpx.Response:
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in fields.items()}
    return api.post("/v1/search", files={"file": data}, data=texts)


def results(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()["results"]
    return found


def ids(response: httpx.Response) -> list[str]:
    return [match["mediaId"] for match in results(response)]


def refusal(response: httpx.Response) -> str:
    assert (response.status_code, response.json()["code"]) == (422, "bad_parameter"), response.text
    said: str = response.json()["error"]
    return said


@pytest.fixture
def shop(api: Client, client_id: str) -> str:
    """A client with the products a, b and c: two keyboards and a teapot; a violin; a keyboard."""
    query = {"clientId": client_id}
    products: dict[str, tuple[list[bytes], dict[str, Any]]] = {
        "a": ([KEYBOARD, unseen(KEYBOARD), TEAPOT], {"price": "30", "new": False}),
        "b": ([VIOLIN], {"price": "20", "new": True}),
        "c": ([unseen(KEYBOARD)], {"price": "10", "new": False}),
    }
    for name, (pictures, attributes) in products.items():
        path = f"/v1/products/{client_id}-{name}"
        assert api.put(path, params=query, json={"name": name, "attributes": attributes}).status_code == 201
        for picture in pictures:
            assert api.post(f"{path}/media", params=query, files={"file": picture}).status_code == 201
    return client_id


def test_one_row_a_product_with_what_else_it_has(api: Client, shop: str) -> None:
    for response in (
        by_form(api, clientId=shop, groupBy="product"),
        by_form(api, query=[{"file": 0}], clientId=shop, groupBy="product"),
    ):
        found = results(response)
        assert [(one["productName"], len(one["media"])) for one in found] == [("a", 2), ("c", 0), ("b", 0)]
        assert found[0]["cosine"] == 1.0
        others = found[0]["media"]
        assert {one["productId"] for one in others} == {found[0]["productId"]}
        assert found[0]["cosine"] >= others[0]["cosine"] >= others[1]["cosine"]
        assert {*others[0]} == {*found[0]} - {"media"}
        assert response.json()["next"] is None
    one = results(by_form(api, clientId=shop, groupBy="product", groupSize=1, minSimilarity=90))
    assert [(row["productName"], len(row["media"])) for row in one] == [("a", 1), ("c", 0)]
    assert "media" not in results(by_form(api, clientId=shop))[0]


def test_at_most_so_many_of_a_product(api: Client, shop: str) -> None:
    found = results(by_form(api, clientId=shop, maxPerProduct=2))
    assert [one["productName"] for one in found].count("a") == 2
    assert len(found) == 4


def test_near_duplicates_are_left_out(api: Client, shop: str) -> None:
    found = by_form(api, clientId=shop, distinct=0.99)
    assert [one["productName"] for one in results(found)].count("c") == 0
    assert len(results(found)) == 3
    assert found.json()["next"] is None


def test_boosts_change_the_order_and_not_the_likeness(api: Client, shop: str) -> None:
    declared = {"clientId": shop, "attributes": {"price": "number"}}
    assert api.put("/v1/attributes", json=declared).status_code == 200
    plain = {one["mediaId"]: one for one in results(by_form(api, clientId=shop))}
    boosts = [
        {"attribute": "new", "equals": True, "weight": 3},
        {"attribute": "price", "from": 30, "to": 10, "weight": 0.5},
    ]
    media = next(one["mediaId"] for one in plain.values() if one["cosine"] == 1)
    for response in (
        by_form(api, clientId=shop, boosts=boosts, explain="true"),
        by_json(api, mediaId=media, clientId=shop, boosts=boosts, explain=True),
    ):
        found = results(response)
        assert [one["productName"] for one in found][:2] == ["b", "c"]
        for one in found:
            same = plain[one["mediaId"]]
            assert {name: one[name] for name in ("cosine", "similarity", "grade")} == {
                name: same[name] for name in ("cosine", "similarity", "grade")
            }
            assert one["explain"]["ranking"] == pytest.approx(one["cosine"] + one["explain"]["boosts"])
        assert [one["explain"]["boosts"] for one in found[:2]] == [3.25, 0.5]


@pytest.mark.parametrize(
    ("boosts", "says"),
    [
        ([{"attribute": "price", "weight": 1}], "the boost of 'price' takes equals, or from and to"),
        ([{"attribute": "price", "weight": 1, "from": 1}], "the boost of 'price' takes from and to together"),
        ([{"attribute": "price", "weight": 1, "from": 1, "to": 1.0}], "the boost of 'price'"),
        ([{"attribute": "price", "weight": 1, "from": 1, "to": "2026-01-01"}], "the boost of 'price'"),
        ([{"attribute": "added", "weight": 1, "from": "2026-02-31", "to": "2026-03-01"}], "the boost of 'added'"),
        ([{"attribute": "price", "weight": 11, "equals": 1}], "boosts[0].weight"),
        ([{"attribute": "price", "weight": 1, "equals": [1]}], "boosts[0].equals"),
        ([{"attribute": "x", "weight": 1, "equals": 1}] * 9, "boosts"),
    ],
)
def test_a_boost_that_makes_no_sense_is_refused_by_its_name(api: Client, boosts: Any, says: str) -> None:
    for response in (by_json(api, embedding=[1.0], space="x", boosts=boosts), by_form(api, boosts=boosts)):
        assert says in refusal(response)


# --- pages -----------------------------------------------------------------------------------------------------------


def test_pages_give_the_whole_list_once(api: Client) -> None:
    whole = ids(by_form(api, limit=280))
    assert len(whole) == 280
    listed: list[str] = []
    cursor: dict[str, Any] = {}
    for limit, left in ((100, True), (100, True), (50, True), (30, False)):
        page = by_form(api, limit=limit, **cursor)
        listed += ids(page)
        assert (page.json()["next"] is not None) == left
        cursor = {"cursor": page.json()["next"]}
    assert listed == whole
    assert by_form(api, limit=280).json()["next"] is None
    assert by_form(api, limit=280, minSimilarity=99).json()["next"] is None


def test_pages_of_products_and_of_several_parts(api: Client, shop: str) -> None:
    for body in (
        {"clientId": shop, "groupBy": "product", "query": [{"file": 0}]},
        {"clientId": shop, "query": [{"file": 0, "weight": 2}, {"mediaId": ids(by_form(api, clientId=shop))[1]}]},
        {"clientId": shop, "boosts": [{"attribute": "new", "equals": True, "weight": 0.3}]},
    ):
        whole = ids(by_form(api, **body))
        listed: list[str] = []
        cursor: dict[str, Any] = {}
        while cursor.get("cursor", "first") is not None:
            page = by_form(api, limit=1, **body, **cursor)
            listed += ids(page)
            cursor = {"cursor": page.json()["next"]}
        assert listed == whole


def test_a_cursor_of_another_list_is_refused(api: Client, shop: str) -> None:
    first = by_form(api, clientId=shop, limit=1, maxPerProduct=2).json()
    cursor, media = first["next"], first["results"][0]["mediaId"]
    same = {"clientId": shop, "limit": 2, "maxPerProduct": 2, "cursor": cursor}
    assert len(ids(by_form(api, **same))) == 2
    others: list[dict[str, Any]] = [
        {"clientId": "demo"},
        {"maxPerProduct": 1},
        {"minSimilarity": 10},
        {"minGrade": "similar"},
        {"filter": {"kind": "image"}},
        {"boosts": [{"attribute": "new", "equals": True, "weight": 1}]},
        {"query": [{"file": 0}, {"mediaId": media}]},
        {"cursor": cursor[:-4] + "AAAA"},
        {"cursor": "nothing"},
    ]
    for other in others:
        assert "cursor" in refusal(by_form(api, **{**same, **other})), other
    assert "cursor" in refusal(by_form(api, TEAPOT, **same))
    assert "cursor" in refusal(by_json(api, mediaId=media, **same))
    assert "cursor" in refusal(by_form(api, clientId=shop, distinct=0.9, cursor=cursor))


@pytest.mark.parametrize(
    "body",
    [
        {"groupBy": "category"},
        {"groupSize": 2},
        {"groupBy": "product", "groupSize": 21},
        {"groupBy": "product", "maxPerProduct": 2},
        {"maxPerProduct": 0},
        {"distinct": 0.4},
        {"explain": "perhaps"},
    ],
)
def test_what_makes_no_sense_is_refused(api: Client, body: dict[str, Any]) -> None:
    refusal(by_form(api, **body))
    refusal(by_json(api, embedding=[1.0], space="x", **body))


def test_the_legacy_call_takes_none_of_it(api: Client) -> None:
    for name in ("groupBy", "cursor", "explain"):
        answer = api.post("/api/search/by-image", files={"file": KEYBOARD}, data={name: "product"})
        assert answer.status_code == 422
    assert api.post("/api/search/by-image", files={"file": KEYBOARD}).json()["next"] is None


# --- why -------------------------------------------------------------------------------------------------------------


def test_each_part_of_a_query_says_what_it_gave(api: Client, shop: str) -> None:
    media = {one["productName"]: one["mediaId"] for one in results(by_form(api, VIOLIN, clientId=shop))}
    parts = [{"mediaId": media["b"]}, {"mediaId": media["c"], "weight": 0}, {"file": 0, "weight": 0.5}]
    response = by_form(api, clientId=shop, query=parts, explain="true")
    for one in results(response):
        violin, nothing, keyboard = one["explain"]["cosines"]
        assert nothing is None
        for data, cosine in ((VIOLIN, violin), (KEYBOARD, keyboard)):
            alone = {row["mediaId"]: row["cosine"] for row in results(by_form(api, data, clientId=shop))}
            assert cosine == pytest.approx(alone[one["mediaId"]], abs=1e-5)
        assert (one["explain"]["ranking"], one["explain"]["boosts"]) == (one["cosine"], 0)
    said = response.json()["explain"]
    assert (said["plan"], said["limit"]) == ("exact", 24)
    assert said["candidates"] >= len(results(response))
    assert {"search", "explain"} <= {*said["timings"]}
    grouped = results(by_form(api, clientId=shop, groupBy="product", explain="true"))
    assert grouped[0]["explain"]["cosines"] == [1.0]
    assert "explain" not in by_form(api, clientId=shop).json()
