"""Search keys as a shop's own server derives them."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from server.access.keys import new_key
from server.catalogue.filters import Filter
from twinlens import derive_search_key

KEY_ID, KEY = new_key()


def said(search_key: str) -> dict[str, Any]:
    document = search_key.split(".")[1]
    read: dict[str, Any] = json.loads(base64.urlsafe_b64decode(document + "=="))
    return read


def test_a_search_key_says_what_it_allows_and_nothing_else() -> None:
    assert said(derive_search_key(KEY)) == {"version": 1, "key": KEY_ID}
    narrow = derive_search_key(
        KEY,
        client="acme",
        filter={"attributes": {"category": ["shoes", "boots"], "price": {"lt": 50, "gt": None}}, "kind": None},
        limit=24,
        origins=("https://shop.example", "http://localhost:3000"),
        expires=datetime(2099, 1, 1, tzinfo=UTC),
        rate=2.5,
        fields=("url", "attributes.price"),
    )
    assert said(narrow) == {
        "version": 1,
        "key": KEY_ID,
        "client": "acme",
        "filter": {"attributes": {"category": ["shoes", "boots"], "price": {"lt": 50}}},
        "limit": 24,
        "origins": ["https://shop.example", "http://localhost:3000"],
        "expires": 4070908800,
        "rate": 2.5,
        "fields": ["url", "attributes.price"],
    }
    assert "=" not in narrow


def test_a_search_keys_filter_has_all_operators() -> None:
    attributes = {
        "tags": {"containsAll": ("new", "sale"), "containsAny": ["red"], "contains": "new", "exists": True},
        "added": {"gte": "2026-01-01", "lt": None, "not": {"gt": "2026-05-01T00:00:00Z"}},
        "brand": {"not": ["Acme", 1]},
        "price": {"not": 3},
    }
    narrow = said(derive_search_key(KEY, filter={"attributes": attributes}))["filter"]["attributes"]
    assert narrow == {
        "tags": {"containsAll": ["new", "sale"], "containsAny": ["red"], "contains": "new", "exists": True},
        "added": {"gte": "2026-01-01", "not": {"gt": "2026-05-01T00:00:00Z"}},
        "brand": {"not": ["Acme", 1]},
        "price": {"not": 3},
    }
    assert json.loads(json.dumps(Filter.of({"attributes": narrow}).plain)) == {"attributes": narrow}
    assert KEY not in narrow
    assert derive_search_key(KEY, limit=3) == derive_search_key(KEY, limit=3)


def test_an_expiry_may_be_a_time_from_now() -> None:
    before = datetime.now(UTC)
    expires = said(derive_search_key(KEY, expires=timedelta(hours=1)))["expires"]
    assert int(before.timestamp()) + 3600 <= expires <= datetime.now(UTC).timestamp() + 3600


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"client": "a b"}, "client"),
        ({"client": ""}, "client"),
        ({"limit": 0}, "limit"),
        ({"limit": 1001}, "limit"),
        ({"limit": True}, "limit"),
        ({"limit": 2.0}, "limit"),
        ({"rate": 0}, "rate"),
        ({"rate": float("inf")}, "rate"),
        ({"rate": 5e-324}, "rate"),
        ({"rate": 1e308}, "rate"),
        ({"rate": "5"}, "rate"),
        ({"fields": []}, "fields"),
        ({"fields": ["cost"]}, "field"),
        ({"fields": ["attributes."]}, "field"),
        ({"fields": "price"}, "field"),
        ({"fields": [1]}, "field"),
        ({"fields": ["sku"] * 51}, "fields"),
        ({"origins": []}, "origins"),
        ({"origins": ["https://shop.example/"]}, "origin"),
        ({"origins": ["https://Shop.example"]}, "origin"),
        ({"origins": ["https://shop.example:443"]}, "origin"),
        ({"origins": ["shop.example"]}, "origin"),
        ({"origins": ["*"]}, "origin"),
        ({"origins": ["null"]}, "origin"),
        ({"origins": "https://*.shop.example"}, "origin"),
        ({"expires": datetime(2099, 1, 1)}, "time zone"),
        ({"expires": 3600}, "time zone"),
        ({"expires": timedelta(0)}, "over"),
        ({"expires": datetime(2020, 1, 1, tzinfo=UTC)}, "over"),
        ({"filter": {}}, "without conditions"),
        ({"filter": {"attributes": {}}}, "without conditions"),
        ({"filter": {"colour": "red"}}, "no 'colour'"),
        ({"filter": {"kind": "audio"}}, "kind"),
        ({"filter": {"productIds": []}}, "productIds"),
        ({"filter": {"productIds": "p-1"}}, "productIds"),
        ({"filter": {"attributes": {"": 1}}}, "name of an attribute"),
        ({"filter": {"attributes": {f"a{number}": 1 for number in range(101)}}}, "100 attributes"),
        ({"filter": {"attributes": {"price": {"above": 1}}}}, "at least one of"),
        ({"filter": {"attributes": {"price": {}}}}, "at least one of"),
        ({"filter": {"attributes": {"price": {"gt": True}}}}, "range"),
        ({"filter": {"attributes": {"price": {"gt": 1, "lt": "2026-01-01"}}}}, "range"),
        ({"filter": {"attributes": {"price": {"exists": "yes"}}}}, "exists"),
        ({"filter": {"attributes": {"tags": {"contains": ["a"]}}}}, "contains"),
        ({"filter": {"attributes": {"tags": {"containsAll": "a"}}}}, "contains"),
        ({"filter": {"attributes": {"tags": {"containsAny": []}}}}, "list"),
        ({"filter": {"attributes": {"tags": {"not": {"not": "a"}}}}}, "at least one of"),
        ({"filter": {"attributes": {"tags": {"not": {}}}}}, "at least one of"),
        ({"filter": {"attributes": {"tags": {"not": []}}}}, "list"),
        ({"filter": {"attributes": {"price": []}}}, "list"),
        ({"filter": {"attributes": {"price": None}}}, "price"),
        ({"filter": {"attributes": {"price": float("nan")}}}, "price"),
        ({"filter": {"productIds": [f"product-{number:05}" for number in range(1000)]}}, "4,096 bytes"),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_sentence(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        derive_search_key(KEY, **wrong)


@pytest.mark.parametrize(
    "key",
    ["", "twinlens_short_x", KEY + " ", derive_search_key(KEY)],
    ids=["none", "too short", "with a blank", "derived"],
)
def test_only_from_a_key_can_a_search_key_be_derived(key: str) -> None:
    with pytest.raises(ValueError, match="derived from a key") as refused:
        derive_search_key(key)
    assert KEY[-20:] not in str(refused.value)
