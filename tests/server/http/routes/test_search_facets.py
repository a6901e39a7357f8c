"""Counts beside a search, over HTTP."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests import DEMO_PICTURES
from tests.support.serving import Client

KEYBOARD, TEAPOT = ((DEMO_PICTURES / f"{name}.webp").read_bytes() for name in ("keyboard", "teapot"))

PRODUCTS: dict[str, dict[str, Any]] = {
    "red": {"category": "shoes", "price": 49.9, "tags": ["new", "red", "new"], "sold": True},
    "blue": {"category": "shoes", "price": "80", "added": "2026-03-01T02:00:00+02:00"},
    "hat": {"category": "hats", "price": 20, "added": "2026-03-01"},
    "bare": {},
}


@pytest.fixture
def shop(api: Client, client_id: str) -> str:
    """A client with a picture of each product, and two of the hat."""
    for name, attributes in PRODUCTS.items():
        put(api, client_id, name, attributes, KEYBOARD, *([TEAPOT] if name == "hat" else []))
    return client_id


def put(api: Client, client: str, name: str, attributes: Any, *pictures: bytes, active: bool = True) -> None:
    path, query = f"/v1/products/{name}", {"clientId": client}
    body = {"name": name, "attributes": attributes, "isActive": active}
    assert api.put(path, params=query, json=body).status_code == 201
    for data in pictures:
        assert api.post(f"{path}/media", params=query, files={"file": data}).status_code == 201


def by_form(api: Client, data: bytes = KEYBOARD, **fields: Any) -> httpx.Response:
    texts = {name: one if isinstance(one, str) else json.dumps(one) for name, one in fields.items()}
    return api.post("/v1/search", files={"file": data}, data=texts)


def by_json(api: Client, **fields: Any) -> httpx.Response:
    return api.post("/v1/search", json={"text": "a keyboard", **fields})


def counted(response: httpx.Response) -> tuple[int, Any, Any]:
    assert response.status_code == 200, response.text
    answer = response.json()
    assert {"search", "facets"} <= {*answer["timings"]}
    return answer["total"], answer["facets"], answer["facetStats"]


FACETS: list[Any] = [
    "category",
    "tags",
    {"attribute": "sold", "limit": 1},
    {"attribute": "price", "ranges": [{"lt": 20}, {"gte": 20, "lt": 80.5}], "stats": True},
]


def test_a_form_and_json_count_the_same(api: Client, shop: str) -> None:
    expected = (
        5,
        {
            "category": [{"value": "hats", "count": 2}, {"value": "shoes", "count": 2}],
            "tags": [{"value": "new", "count": 1}, {"value": "red", "count": 1}],
            "sold": [{"value": True, "count": 1}],
            "price": [{"lt": 20, "count": 0}, {"gte": 20, "lt": 80.5, "count": 3}],
        },
        {"price": {"min": 20, "max": 49.9, "count": 3}},
    )
    assert counted(by_json(api, clientId=shop, facets=FACETS)) == expected
    assert counted(by_form(api, clientId=shop, facets=FACETS)) == expected
    assert counted(by_form(api, clientId=shop, facets=FACETS, query=[{"file": 0}], limit=1)) == expected
    answer = by_form(api, clientId=shop, facets=FACETS, limit="2")
    assert len(answer.json()["results"]) == 2
    assert answer.json()["facets"] == expected[1]
    assert "facets;dur=" in answer.headers["Server-Timing"]


def test_without_facets_nothing_is_counted_and_without_names_the_total_alone(api: Client, shop: str) -> None:
    plain = by_json(api, clientId=shop).json()
    assert {*plain} == {"results", "next", "space", "plan", "timings"}
    assert counted(by_json(api, clientId=shop, facets=[])) == (5, {}, {})
    assert counted(by_form(api, clientId=shop, facets="[]")) == (5, {}, {})


def test_counts_are_of_what_passes_the_filter_and_is_active(api: Client, shop: str) -> None:
    put(api, shop, "gone", {"category": "shoes"}, TEAPOT, active=False)
    shoes = {"attributes": {"category": "shoes"}}
    total, facets, _ = counted(by_json(api, clientId=shop, facets=["category", "price"], filter=shoes))
    assert (total, facets["category"]) == (2, [{"value": "shoes", "count": 2}])
    assert facets["price"] == [{"value": 49.9, "count": 1}, {"value": "80", "count": 1}]
    everything = {**shoes, "isActive": "any"}
    assert counted(by_json(api, clientId=shop, facets=["category"], filter=everything))[0] == 3


def test_a_grouped_search_counts_products(api: Client, shop: str) -> None:
    total, facets, _ = counted(by_json(api, clientId=shop, facets=["category"], groupBy="product"))
    assert (total, facets["category"]) == (4, [{"value": "shoes", "count": 2}, {"value": "hats", "count": 1}])
    thinned = by_json(api, clientId=shop, facets=[], maxPerProduct=1)
    assert (len(thinned.json()["results"]), counted(thinned)[0]) == (4, 5)


def test_every_page_has_the_same_counts(api: Client, shop: str) -> None:
    first = by_form(api, clientId=shop, facets=FACETS, limit="2")
    second = by_form(api, clientId=shop, facets=FACETS, limit="2", cursor=first.json()["next"])
    assert counted(first) == counted(second)
    assert len(second.json()["results"]) == 2


def test_texts_are_counted_as_what_they_are_declared_as(api: Client, shop: str) -> None:
    declared = {"clientId": shop, "attributes": {"price": "number", "added": "date"}}
    assert api.put("/v1/attributes", json=declared).status_code == 200
    asked = [{"attribute": "price", "stats": True}, {"attribute": "added", "stats": True}]
    _, facets, stats = counted(by_json(api, clientId=shop, facets=asked))
    assert facets["price"] == [{"value": 20, "count": 2}, {"value": 49.9, "count": 1}, {"value": 80, "count": 1}]
    assert facets["added"] == [{"value": "2026-03-01", "count": 3}]
    assert stats == {
        "price": {"min": 20, "max": 80, "count": 4},
        "added": {"min": "2026-03-01", "max": "2026-03-01", "count": 3},
    }


def test_matches_are_counted_where_a_least_likeness_is_given(api: Client, shop: str) -> None:
    asked: dict[str, Any] = {"clientId": shop, "facets": ["category"], "facetsOver": "matches"}
    same = by_form(api, TEAPOT, **asked, minGrade="near-duplicate")
    assert counted(same)[:2] == (1, {"category": [{"value": "hats", "count": 1}]})
    assert len(same.json()["results"]) == 1
    for percentage in ("0", "60.5", "100"):
        answer = by_form(api, **asked, minSimilarity=percentage)
        assert counted(answer)[0] == len(answer.json()["results"])
    assert counted(by_form(api, **asked, minSimilarity="0"))[0] == 5


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"facets": ["a"], "facetsOver": "matches"}, "minSimilarity"),
        ({"facetsOver": "filter"}, "give facets beside it"),
        ({"facets": ["a", {"attribute": "a"}]}, "named twice"),
        ({"facets": ["a"] * 21}, "21|length|20"),
        ({"facets": [""]}, "facets"),
        ({"facets": [{"limit": 3}]}, "attribute"),
        ({"facets": [{"attribute": "a", "limit": 0}]}, "limit"),
        ({"facets": [{"attribute": "a", "limit": 101}]}, "limit"),
        ({"facets": [{"attribute": "a", "ranges": []}]}, "ranges"),
        ({"facets": [{"attribute": "a", "ranges": [{}]}]}, "gt, gte, lt, lte"),
        ({"facets": [{"attribute": "a", "ranges": [{"lt": 1, "gt": "2026-01-01"}]}]}, "all numbers or all dates"),
        ({"facets": [{"attribute": "a", "ranges": [{"lt": "soon"}]}]}, "2026-01-31"),
        ({"facets": [{"attribute": "a", "ranges": [{"lt": 1}] * 21}]}, "ranges"),
        ({"facets": [{"attribute": "a", "sort": "value"}]}, "sort"),
        ({"facets": ["a\x00b"]}, "cannot hold"),
        ({"facets": ["a"], "facetsOver": "all"}, "facetsOver"),
    ],
)
def test_what_cannot_be_counted_is_refused_in_a_sentence(api: Client, fields: dict[str, Any], said: str) -> None:
    for response in (by_json(api, **fields), by_form(api, **fields)):
        assert (response.status_code, response.json()["code"]) == (422, "bad_parameter"), response.text
        assert any(one in response.json()["error"] for one in said.split("|")), response.json()["error"]


def test_a_form_whose_facets_are_no_json_is_refused(api: Client) -> None:
    response = by_form(api, facets="category")
    assert (response.status_code, response.json()["code"]) == (422, "bad_parameter")
    assert "facets" in response.json()["error"]


def test_the_older_call_knows_no_facets(api: Client) -> None:
    response = api.post("/api/search/by-image", files={"file": KEYBOARD}, data={"facets": '["category"]'})
    assert response.status_code == 422
