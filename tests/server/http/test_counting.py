"""Who may count what beside a search."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import pytest

from tests.support.access import CATALOGUE, fill
from tests.support.databases import fresh_database
from tests.support.keys import new_key
from tests.support.serving import Client, serving
from twinlens import derive_search_key

MUSIC = {"accordion", "drum", "violin"}
AMONG_MUSIC = {"attributes": {"category": "music"}}
FACETS: list[Any] = ["category", {"attribute": "price", "ranges": [{"gt": 0}], "stats": True}]
FIELDS = ["attributes.category", "attributes.price"]


class Keyed(NamedTuple):
    client: Client
    search: str
    shop: str


@pytest.fixture(scope="module")
def keyed(postgres_url: str, template_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    """A server with keys of the client acme, and a small catalogue."""
    with fresh_database(postgres_url, template_database) as url:
        search, shop, write = (new_key(url, scopes).key for scopes in ("search", "search,read", "write"))
        with serving(url, tmp_path_factory.mktemp("keyed")) as client:
            fill(client, write)
            yield Keyed(client, search, shop)


def ask(keyed: Keyed, key: str, facets: list[Any] = FACETS, **fields: Any) -> httpx.Response:
    body = {"text": "thing", "facets": facets, **fields}
    return keyed.client.post("/v1/search", json=body, headers={"X-API-Key": key})


def counted(answer: httpx.Response) -> dict[str, Any]:
    found: dict[str, Any] = answer.raise_for_status().json()
    return found


@pytest.mark.parametrize(
    ("own", "passing"),
    [
        ({}, MUSIC),
        ({"attributes": {"price": {"lt": 600}}}, {"violin", "drum"}),
        ({"attributes": {"category": "office"}}, set()),
        ({"productIds": ["violin", "teapot"]}, {"violin"}),
    ],
    ids=["none", "within", "contradictory", "products"],
)
def test_a_search_key_counts_what_its_filter_passes_and_no_more(
    keyed: Keyed, own: dict[str, Any], passing: set[str]
) -> None:
    key = derive_search_key(keyed.shop, filter=AMONG_MUSIC, fields=FIELDS, limit=1)
    answer = counted(ask(keyed, key, filter=own))
    assert answer["total"] == len(passing)
    assert answer["facets"]["category"] == ([{"value": "music", "count": len(passing)}] if passing else [])
    assert answer["facets"]["price"] == [{"gt": 0, "count": len(passing)}]
    assert answer["facetStats"]["price"]["count"] == len(passing)
    assert len(answer["results"]) == min(1, len(passing))


def test_the_keys_filter_holds_over_matches_and_for_products(keyed: Keyed) -> None:
    key = derive_search_key(keyed.shop, filter=AMONG_MUSIC, fields=["attributes"])
    for asked in ({"facetsOver": "matches", "minSimilarity": 0}, {"groupBy": "product"}):
        assert counted(ask(keyed, key, **asked))["total"] == len(MUSIC)
        assert counted(ask(keyed, keyed.shop, **asked))["total"] == len(CATALOGUE)


def test_attributes_are_counted_for_those_who_may_see_them(keyed: Keyed) -> None:
    """Their values show in the counts."""
    whole = counted(ask(keyed, keyed.shop))
    assert (whole["total"], len(whole["facets"]["category"])) == (len(CATALOGUE), 3)
    assert counted(ask(keyed, derive_search_key(keyed.shop, fields=FIELDS)))["facets"] == whole["facets"]
    for fields in (None, ["attributes.category"], ["sku", "attributes.colour"]):
        answer = ask(keyed, derive_search_key(keyed.shop, fields=fields))
        assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing")
        assert "does not show attributes." in answer.json()["error"]
    answer = ask(keyed, keyed.search)
    assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing")


def test_the_total_is_for_whoever_may_search(keyed: Keyed) -> None:
    for key in (keyed.search, derive_search_key(keyed.search)):
        assert counted(ask(keyed, key, []))["total"] == len(CATALOGUE)
