"""What matches show of their products: what may be named, what is read, and how much of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from server.catalogue.cards import MOST_BYTES_OF_ATTRIBUTES, NOTHING, Shown, address_of
from server.catalogue.catalogue import Catalogue
from server.catalogue.filters import Filter
from server.catalogue.rows import Match, Query, SpaceRow
from server.database.isolation import SERVING_ROLE
from server.database.pool import open_pool
from server.errors import BadParameter, FieldHidden
from tests.support.catalogue import D, fill, open_test_space
from tests.support.databases import run_sql
from tests.support.vectors import UnitVectors


def test_fields_say_what_is_shown() -> None:
    assert Shown.read([]) == NOTHING
    assert NOTHING.nothing
    shown = Shown.read(["sku", "attributes.a.b", "isActive", "url", "attributes.price", "sku"])
    assert shown == Shown(sku=True, url=True, is_active=True, attributes=("a.b", "price"))
    assert (shown.any_attributes, shown.nothing) == (True, False)
    assert Shown.read(["attributes"]) == Shown(all_attributes=True)
    assert Shown.read([f"attributes.{'n' * 100}", "attributes.two\nlines"]).shows("two\nlines")


@pytest.mark.parametrize(
    "field", ["name", "SKU", "sku ", "", "attributes.", "attribute.price", "attributes.a\0b", f"attributes.{'n' * 101}"]
)
def test_what_is_no_field_is_refused_by_its_name(field: str) -> None:
    with pytest.raises(BadParameter, match="fields: each is sku, url, isActive") as caught:
        Shown.read(["sku", field])
    assert repr(field[:120]) in caught.value.sentence


def test_there_are_not_more_fields_than_fifty() -> None:
    many = [f"attributes.{number}" for number in range(51)]
    assert len(Shown.read(many[:50]).attributes) == 50
    assert len(Shown.read([*many[:50], *many[:50]]).attributes) == 50
    with pytest.raises(BadParameter, match="at most 50"):
        Shown.read(many)


@pytest.mark.parametrize(
    ("asked", "allowed", "shown"),
    [
        (["sku"], ["sku", "url"], ["sku"]),
        (["attributes"], ["attributes"], ["attributes"]),
        (["attributes.price"], ["attributes"], ["attributes.price"]),
        (["attributes.price"], ["attributes.price", "attributes.brand"], ["attributes.price"]),
        (["attributes", "sku"], ["attributes.a", "attributes.b", "sku"], ["attributes.a", "attributes.b", "sku"]),
        (["isActive", "url"], ["isActive", "url"], ["isActive", "url"]),
    ],
)  # fmt: skip
def test_all_attributes_are_those_that_are_allowed(asked: list[str], allowed: list[str], shown: list[str]) -> None:
    assert Shown.read(asked).within(Shown.read(allowed)) == Shown.read(shown)


@pytest.mark.parametrize(
    ("asked", "allowed", "hidden"),
    [
        (["sku", "url"], ["sku"], "url"),
        (["sku"], ["attributes"], "sku"),
        (["isActive"], [], "isActive"),
        (["attributes"], ["sku"], "attributes"),
        (["attributes.cost"], ["attributes.price"], "attributes.cost"),
        (["attributes", "attributes.cost"], ["attributes.price"], "attributes.cost"),
    ],
)
def test_what_is_not_allowed_is_refused_by_its_name(asked: list[str], allowed: list[str], hidden: str) -> None:
    with pytest.raises(FieldHidden, match=f"does not show {hidden}: "):
        Shown.read(asked).within(Shown.read(allowed))


@pytest.mark.parametrize(
    "url",
    [
        "https://shop.example/p/1",
        "http://shop.example",
        "HTTPS://shop.example:8443/p?a=b&c=%20#d",
        "https://[2001:db8::1]/p",
        "https://läden.example/schuhe/größe",
        "https://shop.example?to=a@b.example",
    ],
)
def test_an_http_address_is_one(url: str) -> None:
    assert address_of(url) == url


@pytest.mark.parametrize(
    "url",
    [
        None,
        "",
        "javascript:alert(1)",
        " javascript:alert(1)",
        "java\nscript:alert(1)",
        "JavaScript://shop.example/%0aalert(1)",
        "data:text/html,x",
        "//shop.example/p",
        "/p/1",
        "shop.example/p",
        "https:shop.example",
        "https://",
        "https:///p",
        "https:\\\\shop.example",
        "https://shop.example\\@evil.example",
        "https://user@evil.example/",
        "https://shop.example:pass@evil.example/",
        " https://shop.example",
        "https://shop.example/a b",
        "https://shop.example/\n",
        "https://shop.example/\x00",
        "https://[no-address/p",
        "ftp://shop.example/p",
        f"https://shop.example/{'p' * 2048}",
    ],
)
def test_anything_else_is_no_address_that_a_page_may_link_to(url: str | None) -> None:
    assert address_of(url) is None


# --- in the database -------------------------------------------------------------------------------------------------


@pytest.fixture
def space(database_url: str) -> SpaceRow:
    return open_test_space(database_url)


@pytest.fixture(params=[None, SERVING_ROLE], ids=["owner", "row-security"])
async def catalogue(database_url: str, space: SpaceRow, request: pytest.FixtureRequest) -> AsyncIterator[Catalogue]:
    async with (
        open_pool(database_url, min_size=1, max_size=4, timeout=30, role=request.param) as pool,
        open_pool(database_url, min_size=1, max_size=2, timeout=30) as background,
    ):
        yield Catalogue(pool, space, background=background)


def describe(url: str, product: str, attributes: dict[str, Any], **more: Any) -> None:
    run_sql(
        url,
        'UPDATE products SET attributes = %s, sku = %s, "isActive" = %s WHERE id = %s',
        (Jsonb(attributes), more.get("sku"), more.get("is_active", True), product),
    )


async def best(catalogue: Catalogue, vector: Any, *fields: str, **more: Any) -> Match:
    found = await catalogue.search(Query("acme", vector, limit=3, shown=Shown.read(fields), **more))
    return found.matches[0]


@pytest.mark.anyio
@pytest.mark.parametrize("indexed", [False, True], ids=["exactly", "by-index"])
async def test_a_match_has_what_is_shown_however_it_was_found(
    catalogue: Catalogue, database_url: str, space: SpaceRow, unit_vectors: UnitVectors, indexed: bool
) -> None:
    vectors = unit_vectors(400, D, 3)
    fill(database_url, space, "acme", vectors)
    facts = {"price": 49.9, "tags": ["new", None], "url": "https://shop.example/7", "none": None, "a.b": True}
    describe(database_url, "acme-000007", facts, sku="S-7")
    if indexed:
        assert (await catalogue.maintain_indexes(threshold=200)).built == ("acme",)
    plain = await best(catalogue, vectors[7])
    assert (plain.product_id, plain.attributes, plain.url) == ("acme-000007", None, None)
    shown = await best(
        catalogue, vectors[7], "sku", "url", "isActive", "attributes.price", "attributes.a.b", "attributes.x"
    )
    assert (shown.sku, shown.url, shown.is_active) == ("S-7", "https://shop.example/7", True)
    assert shown.attributes == {"price": 49.9, "a.b": True}
    assert (await best(catalogue, vectors[7], "attributes.none")).attributes == {"none": None}
    assert (await best(catalogue, vectors[7], "attributes")).attributes == facts
    assert (await best(catalogue, vectors[8], "attributes", "url")).attributes == {}
    narrowed = Filter.of({"attributes": {"price": {"gte": 40}}})
    assert (await best(catalogue, vectors[0], "attributes.price", filter=narrowed)).attributes == {"price": 49.9}
    found = await catalogue.search(Query("acme", vectors[7], limit=3, shown=Shown.read(["attributes"])))
    assert found.plan == ("index" if indexed else "exact")


@pytest.mark.anyio
async def test_what_is_shown_of_a_product_is_bounded_and_the_shortest_comes_first(
    catalogue: Catalogue, database_url: str, space: SpaceRow, unit_vectors: UnitVectors
) -> None:
    vectors = unit_vectors(3, D, 3)
    fill(database_url, space, "acme", vectors)
    short = {f"fact {number:02}": "x" * number for number in range(40)}
    long = {"description": "é" * 6000, "manual": "y" * (MOST_BYTES_OF_ATTRIBUTES + 1)}
    describe(database_url, "acme-000000", {**short, **long})
    shown = (await best(catalogue, vectors[0], "attributes")).attributes
    assert shown == {**short, "description": long["description"]}  # what is counted is bytes in UTF-8
    assert (await best(catalogue, vectors[0], "attributes.manual", "attributes.fact 03")).attributes == {
        "fact 03": "xxx"
    }
    describe(database_url, "acme-000000", {"long": "z" * 4000, "longer": "z" * 8000, "longest": "z" * 8001})
    shown = (await best(catalogue, vectors[0], "attributes")).attributes
    assert {*(shown or {})} == {"long", "longer"}


@pytest.mark.anyio
async def test_an_operator_sees_which_matches_are_not_active(
    catalogue: Catalogue, database_url: str, space: SpaceRow, unit_vectors: UnitVectors
) -> None:
    vectors = unit_vectors(5, D, 3)
    fill(database_url, space, "acme", vectors)
    describe(database_url, "acme-000002", {}, is_active=False)
    found = await catalogue.search(
        Query("acme", vectors[2], filter=Filter.of({"isActive": "any"}), shown=Shown.read(["isActive"]))
    )
    assert {match.product_id: match.is_active for match in found.matches} == {
        f"acme-{number:06}": number != 2 for number in range(5)
    }
