"""What a client's attributes are declared as, over HTTP."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.process import KEYBOARD
from tests.support.serving import Client


def types(api: Client, client_id: str) -> Any:
    return api.get("/v1/attributes", params={"clientId": client_id}).json()["attributes"]


def test_a_price_that_came_as_a_text_is_a_number_once_it_is_declared(api: Client, client_id: str) -> None:
    query = {"clientId": client_id}
    for name, price in (("cheap", "9.90"), ("dear", "39.9"), ("number", 5)):
        path = f"/v1/products/{client_id}-{name}"
        assert api.put(path, params=query, json={"name": name, "attributes": {"price": price}}).status_code == 201
        assert api.post(f"{path}/media", params=query, files={"file": KEYBOARD}).status_code == 201
    where = {"price": {"lt": 10}}

    def found() -> set[str]:
        asked = {**query, "text": "a keyboard", "filter": {"attributes": where}}
        by_text = {match["productName"] for match in api.post("/v1/search", json=asked).json()["results"]}
        listed = api.get("/v1/products", params={**query, "attributes": json.dumps(where)}).json()["products"]
        assert by_text == {product["name"] for product in listed}
        return by_text

    assert types(api, client_id) == {}
    assert found() == {"number"}
    put = api.put("/v1/attributes", params=query, json={"attributes": {"price": "number", "added": "date"}})
    assert (put.status_code, put.json()["attributes"]) == (200, {"added": "date", "price": "number"})
    assert api.get("/v1/attributes", params=query).json() == put.json()
    assert found() == {"number", "cheap"}
    stored = api.get(f"/v1/products/{client_id}-cheap", params=query).json()
    assert stored["attributes"] == {"price": "9.90"}
    assert api.put("/v1/attributes", params=query, json={"attributes": {}}).json()["attributes"] == {}
    assert found() == {"number"}


def test_the_same_declaration_with_the_same_key_is_made_once(api: Client, client_id: str) -> None:
    query, once = {"clientId": client_id}, {"Idempotency-Key": "declared"}
    body = {"attributes": {"price": "number"}}
    first = api.put("/v1/attributes", params=query, json=body, headers=once)
    api.put("/v1/attributes", params=query, json={"attributes": {}})
    again = api.put("/v1/attributes", params=query, json=body, headers=once)
    assert first.json()["attributes"] == body["attributes"]
    assert again.json() == first.json()
    assert types(api, client_id) == {}


@pytest.mark.parametrize(
    "attributes",
    [None, [], {"": "number"}, {"x" * 101: "number"}, {"price": "money"}, {"price": None}, {"a\0": "date"},
     {f"a{number}": "text" for number in range(1001)}],
    ids=["null", "list", "no name", "long", "unknown", "no type", "nul", "too many"],
)  # fmt: skip
def test_a_declaration_that_makes_no_sense_is_422(api: Client, client_id: str, attributes: Any) -> None:
    answer = api.put("/v1/attributes", params={"clientId": client_id}, json={"attributes": attributes})
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_parameter")
    if attributes == {"price": "money"}:
        assert answer.json()["error"].startswith("attributes.price: ")
    assert types(api, client_id) == {}
