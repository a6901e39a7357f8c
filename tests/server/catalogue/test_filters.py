"""What a search may be narrowed by, from JSON to PostgreSQL's jsonpath."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from server.catalogue.filters import AttributeType, Conditions, Filter, Types, kept, kept_filters
from server.errors import BadParameter

SHOE = {
    "category": "shoes",
    "price": 49.9,
    "new": True,
    "tags": ["red", "sale"],
    'a "b" \\c': "x",
    "größe": 42,
    "ean": 2**53 + 1,
    "gone": None,
    "none": [],
    "added": "2026-03-01",
    "seen": ["2026-03-01T09:30:00+02:00", "never"],
    "sold": "2026-02-31",
    "size": {"width": 3},
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
    assert evaluated(postgres_url, SHOE, attributes) is passes


@pytest.mark.parametrize(
    ("attributes", "passes"),
    [
        ({"category": {"exists": True}}, True),
        ({"new": {"exists": True}}, True),
        ({"size": {"exists": True}}, True),
        ({"gone": {"exists": True}}, False),
        ({"none": {"exists": True}}, False),
        ({"missing": {"exists": True}}, False),
        ({"missing": {"exists": False}, "gone": {"exists": False}, "none": {"exists": False}}, True),
        ({"tags": {"exists": False}}, False),
        ({"tags": {"contains": "sale"}}, True),
        ({"tags": {"contains": "sal"}}, False),
        ({"category": {"contains": "shoes"}}, True),
        ({"tags": {"containsAny": ["blue", "sale"]}}, True),
        ({"tags": {"containsAny": ["blue", 1]}}, False),
        ({"tags": {"containsAll": ["sale", "red"]}}, True),
        ({"tags": {"containsAll": ["sale", "blue"]}}, False),
        ({"tags": {"containsAll": ["sale"], "contains": "blue"}}, False),
        ({"missing": {"containsAll": ["x"]}}, False),
        ({"price": {"gt": 10, "exists": True}}, True),
        ({"price": {"gt": 50, "exists": True}}, False),
    ],
)
def test_operators_ask_whether_an_attribute_exists_and_what_it_contains(
    postgres_url: str, attributes: dict[str, Any], passes: bool
) -> None:
    assert evaluated(postgres_url, SHOE, attributes) is passes


CONDITIONS: list[Any] = [
    "shoes", 49.9, True, ["red", 1], {"gt": 40}, {"lte": 49.9, "gte": 0}, {"exists": True}, {"exists": False},
    {"contains": "sale"}, {"containsAny": ["red", "hats"]}, {"containsAll": ["red", "sale"]}, {"gte": "2026-01-01"},
    {"lt": "2026-03-01T08:00:00Z", "exists": True},
]  # fmt: skip


@pytest.mark.parametrize("negated", [False, True], ids=["plain", "not"])
def test_what_is_declared_is_asked_for_wherever_it_matters_and_nowhere_else(negated: bool) -> None:
    plain = [*CONDITIONS, "2026-01-01", ["red", "2026-01-01T09:30:00Z"], ["red", "blue"], ["red", True], {"lt": 1.5}]
    plain += [{"containsAny": ["red", 1]}, {"containsAll": ["2026-01-01"]}, {"contains": False}, {"lt": "2026-01-01"}]
    asked = 0
    for condition in plain:
        one = Filter.of({"attributes": {"a": {"not": condition} if negated else condition}})
        types: list[AttributeType] = ["number", "text", "boolean", "date", "list"]
        differs = any(one.jsonpath({"a": declared}) != one.jsonpath() for declared in types)
        assert one.names == ({"a"} if differs else set()), condition
        asked += differs
    assert 5 < asked < len(plain) - 5


def test_not_is_the_opposite_whatever_is_stored(postgres_url: str) -> None:
    """Also where PostgreSQL cannot compare: a condition that was unknown would hold neither way."""
    names = [*SHOE, "missing"]
    for name in names:
        for condition in CONDITIONS:
            one = evaluated(postgres_url, SHOE, {name: condition})
            assert evaluated(postgres_url, SHOE, {name: {"not": condition}}) is not one, (name, condition)
    assert any(evaluated(postgres_url, SHOE, {name: condition}) for name in names for condition in CONDITIONS)
    assert evaluated(postgres_url, SHOE, {"price": {"gt": 10, "not": 49.9}}) is False
    assert evaluated(postgres_url, SHOE, {"price": {"gt": 10, "not": [1, 2]}}) is True


@pytest.mark.parametrize(
    ("stored", "within", "passes"),
    [
        ("2026-03-01", {"gt": "2026-02-28"}, True),
        ("2026-03-01", {"gte": "2026-03-01", "lte": "2026-03-01"}, True),
        ("2026-03-01", {"gt": "2026-03-01"}, False),
        ("2026-03-01", {"gte": "2026-03-01T00:00:00Z", "lt": "2026-03-01T00:00:00.000001Z"}, True),
        ("2026-03-01", {"lt": "2026-03-01T01:00:00+02:00"}, False),
        ("2026-03-01T09:30:00Z", {"gt": "2026-03-01"}, True),
        ("2026-03-01T09:30:00Z", {"lte": "2026-03-01"}, False),
        ("2026-03-01T09:30:00.5Z", {"gt": "2026-03-01T09:30:00Z", "lt": "2026-03-01T09:30:00.75Z"}, True),
        ("2026-03-01T00:30:00+02:00", {"lt": "2026-03-01"}, True),
        ("2026-03-01T09:30:00.123456-05:30", {"gte": "2026-03-01T15:00:00.123456Z"}, True),
        ("2026-03-01T09:30:00", {"gte": "2026-03-01T09:30:00Z", "lte": "2026-03-01T09:30:00Z"}, True),
        (["2025-01-01", "2026-03-01"], {"gt": "2026-01-01"}, True),
        (["2025-01-01", "2027-03-01"], {"gt": "2026-01-01", "lt": "2027-01-01"}, False),
    ],
)
def test_a_date_is_compared_with_texts_that_are_dates(
    postgres_url: str, stored: Any, within: dict[str, str], passes: bool
) -> None:
    assert evaluated(postgres_url, {"added": stored}, {"added": within}) is passes


NO_DATES: list[Any] = [
    "", "never", "2026",
    "2026-02-31", "2026-13-01", "2026-1-1", " 2026-03-01", "2026-03-01\n", "01.03.2026", "20260301",
    "2026-03-01T25:00:00Z", "2026-03-01T09:30:00+99:99", "2026-03-01 09:30:00", "2026-03-01T09:30:00 Europe/Vienna",
    "0000-00-00", "2026-00-10", "99999-01-01", "infinity", "now", 20260301, 1e300, True, None,
    [], ["x", 3], {"a": "2026-03-01"},
]  # fmt: skip


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Auckland"])
def test_what_is_no_date_is_in_no_range_of_dates_and_fails_no_search(postgres_url: str, zone: str) -> None:
    for stored in NO_DATES:
        for within in ({"gt": "0001-01-01"}, {"lt": "9999-12-31T23:59:59.999999Z"}):
            assert evaluated(postgres_url, {"added": stored}, {"added": within}, zone) is False, stored
    assert evaluated(postgres_url, {"added": "2026-03-01T00:30:00"}, {"added": {"lt": "2026-03-01"}}, zone) is False


def test_what_must_equal_a_value_is_found_by_the_index(database_url: str) -> None:
    """All that it finds passes; with nothing that must equal a value it gives every product, to be looked at."""
    products = [
        {"shade": number, "tags": [f"of {number % 7}", f"at {number % 5}"], "added": "2026-03-01"}
        for number in range(500)
    ]
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.cursor().executemany(
            """INSERT INTO products (id, "clientId", name, attributes) VALUES (%s, 'acme', 'x', %s)""",
            [(f"p{number}", Jsonb(attributes)) for number, attributes in enumerate(products)],
        )
        connection.execute("SELECT gin_clean_pending_list('products_attributes')")
        connection.execute("SET enable_seqscan = off")

        def rows_of_the_index(attributes: dict[str, Any]) -> list[float]:
            path = Filter.of({"attributes": attributes}).jsonpath()
            explained = "EXPLAIN (ANALYZE, FORMAT JSON) SELECT FROM products WHERE attributes @@ %s::jsonpath"
            row = connection.execute(explained, (path,)).fetchone()
            assert row is not None
            scans = [row[0][0]["Plan"]]
            for scan in scans:
                scans += scan.get("Plans", ())
            return [scan["Actual Rows"] for scan in scans if scan.get("Index Name") == "products_attributes"]

        for attributes, rows in (
            ({"shade": 3}, 1),
            ({"shade": [3, 4, 900]}, 2),
            ({"tags": {"contains": "of 1"}}, 72),
            ({"tags": {"containsAny": ["of 1", "of 2"]}}, 144),
            ({"tags": {"containsAll": ["of 1", "at 2"]}}, 14),
            ({"shade": 3, "tags": {"not": "of 1"}, "added": {"gt": "2026-01-01"}}, 1),
            ({"shade": {"gt": 490}}, 500),
            ({"shade": {"exists": True}}, 500),
            ({"shade": {"not": 3}}, 500),
            ({"added": {"gt": "2026-01-01"}}, 500),
        ):
            assert rows_of_the_index(attributes) == [rows], attributes


@pytest.mark.parametrize(
    ("declared", "stored", "condition", "passes"),
    [
        ("number", "39.9", 39.9, True),
        ("number", "39.90", [1, 39.9], True),
        ("number", "39.9", {"gt": 39, "lt": 40}, True),
        ("number", "39.9", {"gt": 40}, False),
        ("number", "9", {"lt": 39}, True),
        ("number", "-1.5e1", {"lt": 0, "gte": -15}, True),
        ("number", 39.9, {"gt": 39, "lt": 40}, True),
        ("number", 2**53 + 1, 2**53 + 1, True),
        ("number", ["x", "39.9", 3], {"gt": 39}, True),
        ("number", ["1", "9"], {"gt": 2, "lt": 8}, False),
        ("number", ["1", "2"], {"containsAll": [1, 2]}, True),
        ("number", "39.9", "39.9", True),
        ("number", "39.9", {"not": 39.9}, False),
        ("number", "39.9", {"not": {"gt": 40}}, True),
        ("boolean", "TRUE", True, True),
        ("boolean", "false", [False, "x"], True),
        ("boolean", "true", {"not": True}, False),
        ("boolean", "yes", True, False),
        ("boolean", True, True, True),
        ("date", "2026-03-01T00:00:00Z", "2026-03-01", True),
        ("date", "2026-03-01", "2026-03-01T02:00:00+02:00", True),
        ("date", "2026-03-01", "2026-03-02", False),
        ("date", "soon", "soon", True),
        ("text", "39.9", 39.9, False),
        ("list", "39.9", 39.9, False),
        (None, "39.9", 39.9, False),
        (None, "39.9", {"gt": 39}, False),
        (None, "true", True, False),
        (None, "2026-03-01T00:00:00Z", "2026-03-01", False),
    ],
)
def test_texts_are_compared_as_what_the_attribute_is_declared(
    postgres_url: str, declared: AttributeType | None, stored: Any, condition: Any, passes: bool
) -> None:
    types: Types = {} if declared is None else {"a": declared}
    assert evaluated(postgres_url, {"a": stored}, {"a": condition}, types=types) is passes


@pytest.mark.parametrize("declared", ["number", "boolean", "date"])
def test_what_is_not_as_it_is_declared_matches_nothing_and_fails_no_search(
    postgres_url: str, declared: AttributeType
) -> None:
    texts = ["", " ", "x", "39,9", "1 000", "0x1A", "NaN", "inf", "-", ".", "1e999", "1e", "12px", "\u0661", "9" * 400]
    types: Types = {"a": declared}
    others: list[Any] = [None, {}, {"b": 1}, []]
    for stored in [*texts, *others]:
        for condition in (1, {"gt": -1e300}, {"lt": 1e300}, True, False, "2026-03-01", {"gt": "0001-01-01"}):
            assert evaluated(postgres_url, {"a": stored}, {"a": condition}, types=types) is False, (stored, condition)
            assert evaluated(postgres_url, {"a": stored}, {"a": {"not": condition}}, types=types) is True


def evaluated(
    url: str, stored: dict[str, Any], attributes: dict[str, Any], zone: str = "UTC", types: Types | None = None
) -> Any:
    """What PostgreSQL says of a product with what is stored; None where it cannot say."""
    where = Filter.of({"attributes": attributes})
    with psycopg.connect(url, options=f"-c TimeZone={zone}") as connection:
        row = connection.execute("SELECT %s @@ %s::jsonpath", (Jsonb(stored), where.jsonpath(types or {}))).fetchone()
    assert row is not None
    return row[0]


def test_a_filter_goes_through_json_and_back() -> None:
    plain = {
        "productIds": ["a"],
        "kind": "image",
        "attributes": {
            "price": {"gte": 1.5},
            "tags": ["x", 2],
            "colours": {"containsAll": ["red"], "containsAny": ["blue", 1], "contains": True, "exists": False},
            "added": {"gt": "2026-01-01", "not": {"lt": "2026-05-01T00:00:00Z", "exists": True}},
        },
    }
    where = Filter.of(plain)
    assert json.loads(json.dumps(where.plain)) == plain
    assert Filter.of(where.plain) == where
    assert Filter.of(None) == Filter()
    assert (Filter().plain, Filter().jsonpath()) == (None, None)


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "null", "{", '{"colour": "red"}', '{"productIds": []}', '{"kind": "audio"}',
        '{"attributes": {"price": {}}}', '{"attributes": {"price": {"min": 3}}}', '{"attributes": {"": 1}}',
        '{"attributes": {"price": {"gte": "3"}}}', '{"attributes": {"a": {"b": {"c": 1}}}}',
        '{"attributes": {"a": []}}', json.dumps({"attributes": {f"a{number}": 1 for number in range(101)}}),
        '{"attributes": {"price": {"gte": NaN}}}', '{"attributes": {"price": {"gte": 1e999}}}',
        '{"isActive": "none"}', '{"isActive": true}',
        '{"attributes": {"a": {"not": {}}}}', '{"attributes": {"a": {"not": {"not": 1}}}}',
        '{"attributes": {"a": {"not": []}}}', '{"attributes": {"a": {"contains": ["b"]}}}',
        '{"attributes": {"a": {"containsAll": []}}}', '{"attributes": {"a": {"exists": "yes"}}}',
        '{"attributes": {"a": {"gte": "2026-01-01", "lt": 3}}}', '{"attributes": {"a": {"gte": "2026-02-31"}}}',
        '{"attributes": {"a": {"gte": "2026-01-01T09:30:00"}}}',
        '{"attributes": {"a": {"gte": "0001-01-01T00:00:00+09:00"}}}',
        json.dumps({"attributes": {"a": {"containsAny": ["x"] * 101}}}),
    ],
)  # fmt: skip
def test_a_filter_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(BadParameter, match="filter"):
        Filter.read(text)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"price": {"gte": "3"}}, "attributes.price: a bound is a number, a date such as"),
        ({"price": {"min": 3}}, "attributes.price: object contains unknown field min."),
        ({"price": {"not": {"gte": True}}}, "attributes.price.not.gte: expected"),
        ({"price": {}}, "attributes.price: a condition needs at least one of gt, gte, lt, lte, exists, contains"),
        ({"price": {"gte": 1, "lt": "2026-01-01"}}, "attributes.price: the bounds of a range are all numbers or all"),
        ({"price": None}, "attributes.price: expected"),
        ({"price": [1, None]}, "attributes.price[1]: expected"),
    ],
)
def test_an_error_names_the_attribute(wrong: dict[str, Any], said: str) -> None:
    right: dict[str, Any] = {f"a{number}": {"gt": 1} for number in range(20)}
    for attributes in (wrong, {**right, **wrong}, {**wrong, **right}):
        with pytest.raises(BadParameter) as caught:
            Filter.of({"attributes": attributes, "productIds": ["p"]})
        assert said in caught.value.sentence


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
    assert not conditions({}, {"isActive": "any"}).any
    assert conditions({"isActive": "any"}, {}).inactive
    assert not conditions({"kind": "image"}, {}).inactive
    assert Filter.of({"isActive": "any"}).without_conditions
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
