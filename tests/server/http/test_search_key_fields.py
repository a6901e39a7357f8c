"""Who sees what of products in searches: who may read them, all; a search key, what it was derived to show."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import pytest

from server.access.keys import id_of
from tests.support.access import CATALOGUE, fill, signed
from tests.support.databases import fresh_database
from tests.support.keys import new_key
from tests.support.serving import Client, serving
from twinlens import derive_search_key


class Keyed(NamedTuple):
    client: Client
    search: str
    shop: str
    write: str
    admin: str


@pytest.fixture(scope="module")
def keyed(postgres_url: str, template_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    """A server with keys of the client acme, and a small catalogue."""
    with fresh_database(postgres_url, template_database) as url:
        search, shop, write = (new_key(url, scopes).key for scopes in ("search", "search,read", "write"))
        admin = new_key(url, "admin", None).key
        with serving(url, tmp_path_factory.mktemp("keyed")) as client:
            fill(client, write)
            yield Keyed(client, search, shop, write, admin)


def ask(keyed: Keyed, key: str, *fields: str) -> httpx.Response:
    body = {"text": "thing", "clientId": "acme", "fields": fields}
    return keyed.client.post("/v1/search", json=body, headers={"X-API-Key": key})


def refusal(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def shown(answer: httpx.Response) -> dict[str, Any]:
    """What each product has of attributes."""
    return {match["productId"]: match["attributes"] for match in answer.raise_for_status().json()["results"]}


def test_whoever_may_read_products_sees_all_of_them_in_searches(keyed: Keyed) -> None:
    for key in (keyed.shop, keyed.write, keyed.admin):
        assert shown(ask(keyed, key, "attributes", "sku", "url", "isActive")) == CATALOGUE


def test_a_key_that_may_only_search_sees_what_it_always_did(keyed: Keyed) -> None:
    assert ask(keyed, keyed.search).status_code == 200
    for field in ("sku", "url", "isActive", "attributes", "attributes.price"):
        answer = ask(keyed, keyed.search, field)
        assert refusal(answer) == (403, "scope_missing")
        assert "read" in answer.json()["error"]


def test_a_search_key_shows_what_it_was_derived_to_show(keyed: Keyed) -> None:
    key = derive_search_key(keyed.shop, fields=["url", "attributes.price"])
    prices = {name: {"price": of["price"]} for name, of in CATALOGUE.items()}
    assert shown(ask(keyed, key, "url", "attributes.price")) == prices
    assert shown(ask(keyed, key, "attributes")) == prices  # all that it shows
    for field in ("sku", "isActive", "attributes.category"):
        answer = ask(keyed, key, "url", field)
        assert refusal(answer) == (403, "scope_missing")
        assert f"does not show {field}:" in answer.json()["error"]
    assert shown(ask(keyed, derive_search_key(keyed.shop, fields=["attributes"]), "attributes")) == CATALOGUE


def test_without_fields_a_search_key_shows_none(keyed: Keyed) -> None:
    for parent in (keyed.search, keyed.shop, keyed.write, keyed.admin):
        client = "acme" if parent == keyed.admin else None
        if parent != keyed.write:  # none is derived from a key without the scope search
            key = derive_search_key(parent, client=client)
            assert ask(keyed, key).status_code == 200
            assert refusal(ask(keyed, key, "attributes.price")) == (403, "scope_missing")


def test_a_search_key_shows_nothing_that_its_parent_may_not_read(keyed: Keyed) -> None:
    key = derive_search_key(keyed.search, fields=["attributes"])
    for fields in ((), ("attributes",)):
        answer = ask(keyed, key, *fields)
        assert refusal(answer) == (401, "key_invalid")
        assert "may not read products" in answer.json()["error"]


@pytest.mark.parametrize("fields", [["cost"], ["attributes."], [], ["sku"] * 51, "sku", [1]])
def test_a_search_key_whose_fields_make_no_sense_is_invalid(keyed: Keyed, fields: Any) -> None:
    by_hand = signed(keyed.shop, {"version": 1, "key": id_of(keyed.shop), "fields": fields})
    assert refusal(ask(keyed, by_hand)) == (401, "key_invalid")
    with pytest.raises(ValueError, match=r"[Ff]ield"):
        derive_search_key(keyed.shop, fields=["cost"] if fields == "sku" else fields)
