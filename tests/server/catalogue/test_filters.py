"""What a search may be narrowed by, from JSON to PostgreSQL's jsonpath."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from server.catalogue.filters import Conditions, Filter, kept, kept_filters
from server.errors import BadParameter

SHOE = {
    "category": "shoes",
    "price": 49.9,
    "new": True,
    "tags": ["red", "sale"],
    'a "b" \\c': "x",
    "größe": 42,
    "ean": 2**53 + 1,
}


@pytest.mark.parametrize(
    ("attributes", "passes"),
    [
        ({"category": "shoes"}, True),
        ({"category": "shoe"}, False),
        ({"category": ["hats", "shoes"]}, True),
        ({"category": ["hats", "coats"]}, False),
        ({"category": {"gt": 1}}, False),
        ({"price": 49.9}, True),
        ({"price": "49.9"}, False),
        ({"price": {"gte": 49.9, "lte": 49.9}}, True),
        ({"price": {"gt": 49.9}}, False),
        ({"price": {"lt": 49.9}}, False),
        ({"price": {"gt": -1e9, "lt": 1e9}}, True),
        ({"new": True}, True),
        ({"new": 1}, False),
        ({"tags": "sale"}, True),
        ({"tags": ["blue"]}, False),
        ({'a "b" \\c': "x"}, True),
        ({"größe": {"gte": 40}}, True),
        ({"missing": "x"}, False),
        ({"category": "shoes", "price": {"lt": 10}}, False),
        ({"category": 'shoes" || "1" == "1'}, False),
        ({"ean": 9007199254740993}, True),
        ({"ean": 9007199254740992}, False),
    ],
)
def test_attributes_are_compared_as_json_has_them(postgres_url: str, attributes: dict[str, Any], passes: bool) -> None:
    where = Filter.of({"attributes": attributes})
    with psycopg.connect(postgres_url) as connection:
        row = connection.execute("SELECT coalesce(%s @@ %s::jsonpath, false)", (Jsonb(SHOE), where.jsonpath)).fetchone()
    assert row == (passes,)


def test_a_filter_goes_through_json_and_back() -> None:
    plain = {"productIds": ["a"], "kind": "image", "attributes": {"price": {"gte": 1.5}, "tags": ["x", 2]}}
    where = Filter.of(plain)
    assert json.loads(json.dumps(where.plain)) == plain
    assert Filter.of(where.plain) == where
    assert Filter.of(None) == Filter()
    assert (Filter().plain, Filter().jsonpath) == (None, None)


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "null", "{", '{"colour": "red"}', '{"productIds": []}', '{"kind": "audio"}',
        '{"attributes": {"price": {}}}', '{"attributes": {"price": {"min": 3}}}', '{"attributes": {"": 1}}',
        '{"attributes": {"price": {"gte": "3"}}}', '{"attributes": {"a": {"b": {"c": 1}}}}',
        '{"attributes": {"a": []}}', json.dumps({"attributes": {f"a{number}": 1 for number in range(101)}}),
        '{"attributes": {"price": {"gte": NaN}}}', '{"attributes": {"price": {"gte": 1e999}}}',
    ],
)  # fmt: skip
def test_a_filter_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(BadParameter, match="filter"):
        Filter.read(text)


@pytest.mark.parametrize(
    ("one", "other", "passes"),
    [
        ({"category": "shoes"}, {"price": {"lt": 50}}, True),
        ({"category": "shoes"}, {"category": ["hats", "shoes"]}, True),
        ({"category": "shoes"}, {"category": "hats"}, False),
        ({"category": ["hats", "shoes"]}, {"category": ["hats", "coats"]}, False),
        ({"tags": "red"}, {"tags": "sale"}, True),
        ({"tags": "red"}, {"tags": "blue"}, False),
        ({"price": {"gt": 10}}, {"price": {"gt": 40}}, True),
        ({"price": {"gt": 10}}, {"price": {"gt": 50}}, False),
        ({"category": 'x" || "1" == "1'}, {"category": "shoes"}, False),
    ],
)
def test_filters_on_the_same_attribute_all_hold(
    postgres_url: str, one: dict[str, Any], other: dict[str, Any], passes: bool
) -> None:
    both = Conditions.of(Filter.of({"attributes": one}), Filter.of({"attributes": other}))
    with psycopg.connect(postgres_url) as connection:
        row = connection.execute("SELECT coalesce(%s @@ %s::jsonpath, false)", (Jsonb(SHOE), both.jsonpath)).fetchone()
    assert row == (passes,)


def test_filters_with_nothing_in_common_are_a_contradiction() -> None:
    def conditions(*plain: dict[str, Any]) -> Conditions:
        return Conditions.of(*map(Filter.of, plain))

    assert conditions({}, {}).any
    assert not conditions({}, {"kind": "image"}).any
    assert conditions({"productIds": ["a", "b"]}, {}, {"productIds": ["b", "c"]}).product_ids == ["b"]
    assert not conditions({"productIds": ["a", "b"]}, {"productIds": ["b"]}).contradictory
    assert conditions({"productIds": ["a"]}, {"productIds": ["b"]}).contradictory
    assert conditions({"kind": "image"}, {"kind": "video"}).contradictory
    assert conditions({"kind": "image"}, {"kind": "image"}).kind == "image"


def test_a_querys_two_filters_are_kept_and_read_again() -> None:
    image, red = Filter(kind="image"), Filter.of({"attributes": {"colour": "red"}})
    for asked, within in ((Filter(), Filter()), (image, Filter()), (Filter(), red), (image, red), (red, red)):
        assert kept_filters(json.loads(json.dumps(kept(asked, within)))) == (asked, within)
    assert kept(image, Filter()) == {"kind": "image"}
