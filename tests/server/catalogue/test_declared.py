"""What a client declares of its attributes, and what its searches and lists then find."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from server.catalogue.catalogue import Catalogue
from server.catalogue.declared import declared_at, types_of
from server.catalogue.filters import AttributeType, Filter
from server.catalogue.lists import ProductFilter
from server.catalogue.rows import Query, SpaceRow
from server.database.isolation import SERVING_ROLE
from server.database.pool import open_pool
from tests.support.catalogue import D, fill, open_test_space
from tests.support.databases import run_sql
from tests.support.vectors import UnitVectors

pytestmark = pytest.mark.anyio

CHEAP = Filter.of({"attributes": {"price": {"lt": 10}}})


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


async def test_what_is_declared_replaces_what_was_and_is_the_clients_alone(
    catalogue: Catalogue, database_url: str
) -> None:
    declarations = catalogue.declarations

    async def types(client_id: str) -> dict[str, AttributeType]:
        return (await declarations.of(client_id)).types

    first: dict[str, AttributeType] = {"price": "number", "added": "date", "new": "boolean"}
    assert await types("acme") == {}
    assert (await declarations.declare("acme", first)).types == first
    assert (await declarations.declare("other", {"price": "text"})).types == {"price": "text"}
    assert await types("acme") == first
    assert await types_of(catalogue._runner, "acme", ["price", "colour"]) == {"price": "number"}
    assert await types_of(catalogue._runner, "acme", []) == {}
    second = await declarations.declare("acme", {"price": "date", "tags": "list"})
    assert second.types == {"price": "date", "tags": "list"}
    assert await types("acme") == declared_at(database_url, "acme") == {"price": "date", "tags": "list"}
    assert (await declarations.declare("acme", {})).types == {}
    assert await types("acme") == {}
    assert await types("other") == {"price": "text"}


@pytest.mark.parametrize("indexed", [False, True], ids=["exactly", "by-index"])
async def test_searches_and_lists_compare_as_is_declared(
    catalogue: Catalogue, database_url: str, space: SpaceRow, unit_vectors: UnitVectors, indexed: bool
) -> None:
    vectors = unit_vectors(400, D, 3)
    fill(database_url, space, "acme", vectors)
    run_sql(
        database_url,
        """UPDATE products SET attributes = jsonb_build_object('price', CASE number % 2
            WHEN 0 THEN to_jsonb(number) ELSE to_jsonb(number || '.50') END)
        FROM (SELECT id AS key, substring(id from 6)::integer AS number FROM products) n WHERE id = n.key""",
    )
    if indexed:
        assert (await catalogue.maintain_indexes(threshold=200)).built == ("acme",)
    numbers = {f"acme-{number:06}" for number in range(0, 10, 2)}
    texts = {f"acme-{number:06}" for number in range(1, 10, 2)}
    declarations: list[tuple[dict[str, AttributeType], set[str]]] = [
        ({}, numbers),
        ({"price": "number"}, numbers | texts),
        ({"price": "text"}, numbers),
    ]
    for declared, expected in declarations:
        await catalogue.declarations.declare("acme", declared)
        for where in (Query("acme", vectors[0], filter=CHEAP), Query("acme", vectors[0], within=CHEAP)):
            assert {match.product_id for match in (await catalogue.search(where)).matches} == expected
            assert len(await catalogue.searcher.search_again(where)) == len(expected)
        page = await catalogue.lists.products("acme", ProductFilter(attributes=CHEAP))
        assert {product.id for product in page.items} == expected
        media = {name: await catalogue.could_find("acme", name, CHEAP) for name in ("acme-000001", "acme-000002")}
        assert media == {"acme-000001": "acme-000001" in expected, "acme-000002": True}
    many = Query("acme", vectors[0], limit=5, filter=Filter.of({"attributes": {"price": {"gte": 0}}}))
    await catalogue.declarations.declare("acme", {"price": "number"})
    found = await catalogue.search(many)
    assert (len(found.matches), found.plan) == (5, "index" if indexed else "exact")
