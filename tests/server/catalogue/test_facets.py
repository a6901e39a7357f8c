"""Counts beside a search, compared with a count in plain Python."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec
import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray
from pgvector import HalfVector
from pgvector.psycopg import register_vector
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from server.catalogue import facets
from server.catalogue.catalogue import Catalogue
from server.catalogue.facets import Asked, Counts, Facet, Range, RangeCount, Stats, ValueCount
from server.catalogue.filters import AttributeType, Conditions, Filter
from server.catalogue.rows import Query, SpaceRow
from server.catalogue.similarity import similarity
from server.database.isolation import SERVING_ROLE
from server.database.pool import open_pool
from server.errors import BadParameter, CatalogueUnavailable
from tests.support.catalogue import D, open_test_space
from tests.support.databases import run_sql
from tests.support.vectors import unit_vectors

pytestmark = pytest.mark.anyio

VALUES: list[Any] = [
    "red", "Red", "blue", "größe", "", "20", "39.9", "39.90", "1e3", "true", "FALSE", "2026-03-01",
    "2026-03-01T02:00:00+02:00", "2026-03-01T09:30:00.5Z", "2026-02-31", 20, 20.0, 39.9, -5, 0, 1000, 2**53 + 1,
    True, False, None, [], ["red", "red", "blue"], ["red", 20, "20", True, None], [39.9, "39.90", 20], ["red"],
    ["2026-03-01", "2026-04-01"],
]  # fmt: skip
DECLARED: dict[str, AttributeType] = {"amount": "number", "day": "date", "flag": "boolean", "plain": "text"}
NAMES = [*DECLARED, "free"]


class Item(NamedTuple):
    """A media of the test's catalogue, and its product."""

    product: str
    client: str
    attributes: Mapping[str, Any]
    vector: NDArray[np.float32]
    shown: bool
    blank: bool
    key: str


def random_catalogue(seed: int) -> list[Item]:
    """Two clients with the same ids of products: some not active, some without pictures that count, some blank."""
    draw = random.Random(seed)
    vectors = unit_vectors(2_000, D, seed)
    items: list[Item] = []
    for client in ("acme", "other"):
        for number in range(120):
            attributes = {name: draw.choice(VALUES) for name in NAMES if draw.random() < 0.8}
            shown = draw.random() < 0.9
            for _ in range(draw.choice([0, 1, 1, 2, 4])):
                items.append(
                    Item(
                        f"p-{number}", client, attributes, vectors[len(items)], shown,
                        draw.random() < 0.2, f"{client}-{len(items)}",
                    )
                )  # fmt: skip
    return items


def store(url: str, space: SpaceRow, items: Sequence[Item]) -> None:
    with psycopg.connect(url) as connection:
        register_vector(connection)
        products = {(one.client, one.product): one for one in items}
        for one in products.values():
            connection.execute(
                'INSERT INTO products (id, "apiId", "clientId", name, attributes, "isActive") '
                "VALUES (%s, %s, %s, %s, %s, %s)",
                (f"{one.client}/{one.product}", one.product, one.client, "x", Jsonb(one.attributes), one.shown),
            )
        for one in items:
            connection.execute(
                'INSERT INTO media (id, "productId", "clientId", "s3Key") VALUES (%s, %s, %s, %s)',
                (one.key, f"{one.client}/{one.product}", one.client, "x"),
            )
            connection.execute(
                f'INSERT INTO {space.table} (space, "mediaId", embedding, blank) VALUES (%s, %s, %s, %s)',
                (space.number, one.key, HalfVector(one.vector), one.blank),
            )


# --- the same in plain Python ----------------------------------------------------------------------------------------


def read(value: Any, declared: AttributeType | None) -> Any:
    """A value as what it is declared as, written as a facet has it."""
    if isinstance(value, str):
        if declared == "number":
            try:
                return read(float(value), None)
            except ValueError:
                return value
        if declared == "boolean" and value.lower() in ("true", "false"):
            return value.lower() == "true"
        if declared == "date":
            try:
                moment = datetime.fromisoformat(value)
            except ValueError:
                return value
            moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
            midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0) == moment
            return moment.strftime("%Y-%m-%d") if midnight else moment.replace(tzinfo=None).isoformat() + "Z"
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def values_of(attributes: Mapping[str, Any], name: str, declared: AttributeType | None) -> list[Any]:
    """Those that are counted, each once. A dictionary would take 1 and True for the same."""
    held = attributes.get(name)
    given = [read(one, declared) for one in (held if isinstance(held, list) else [held]) if one is not None]
    return [one for place, one in enumerate(given) if (type(one), one) not in [(type(b), b) for b in given[:place]]]


def weights(items: Sequence[Item], products: bool) -> Iterator[tuple[Mapping[str, Any], int]]:
    counted = Counter(one.product for one in items)
    attributes = {one.product: one.attributes for one in items}
    yield from ((attributes[name], 1 if products else count) for name, count in counted.items())


def expected_values(
    items: Sequence[Item], name: str, declared: AttributeType | None, products: bool
) -> list[tuple[Any, int]]:
    """In their order: by count, then true and false, numbers, texts."""
    counted: dict[tuple[str, Any], int] = {}
    for attributes, weight in weights(items, products):
        for value in values_of(attributes, name, declared):
            kind = "boolean" if isinstance(value, bool) else "number" if isinstance(value, int | float) else "text"
            counted[kind, value] = counted.get((kind, value), 0) + weight
    order = sorted(counted.items(), key=lambda one: (-one[1], one[0][0], measure(one[0][1], declared), str(one[0][1])))
    return [(value, count) for (_, value), count in order]


def measure(value: Any, declared: AttributeType | None) -> tuple[bool, Any]:
    """What values of a kind are ordered by before their letters: numbers, and dates, which come before other texts."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return False, value
    if declared == "date" and isinstance(value, str):
        try:
            return False, datetime.fromisoformat(value).replace(tzinfo=UTC).timestamp()
        except ValueError:
            pass
    return True, 0


def total_of(items: Sequence[Item], products: bool) -> int:
    return sum(weight for _, weight in weights(items, products))


def plainly(counts: Counts) -> dict[str, list[tuple[Any, int]]]:
    """What was counted of values. 20 and 20.0 are one number, and True is not 1: the types are compared as well."""
    return {
        name: [(one.value, one.count) for one in some if isinstance(one, ValueCount)]
        for name, some in counts.facets.items()
    }


def typed(counted: list[tuple[Any, int]]) -> list[tuple[str, Any, int]]:
    return [(type(value).__name__, value, count) for value, count in counted]


# --- fixtures --------------------------------------------------------------------------------------------------------

ITEMS = random_catalogue(7)
MINE = [one for one in ITEMS if one.client == "acme"]
SHOWN = [one for one in MINE if one.shown]
VECTOR = unit_vectors(1, D, 99)[0]
ALL = [Facet(attribute=name, limit=100) for name in NAMES]


@pytest.fixture
def space(database_url: str) -> SpaceRow:
    space = open_test_space(database_url)
    store(database_url, space, ITEMS)
    return space


@pytest.fixture(params=[None, SERVING_ROLE], ids=["owner", "row-security"])
async def catalogue(database_url: str, space: SpaceRow, request: pytest.FixtureRequest) -> AsyncIterator[Catalogue]:
    async with open_pool(database_url, min_size=1, max_size=4, timeout=30, role=request.param) as pool:
        yield Catalogue(pool, space)


def asking(*facets: Facet, **asked: Any) -> Asked:
    return Asked(facets or ALL, **asked)


def cosine(item: Item) -> float:
    stored = HalfVector(item.vector).to_numpy().astype(np.float64)
    sought = HalfVector(VECTOR).to_numpy().astype(np.float64)
    return round(float(stored @ sought / np.linalg.norm(stored) / np.linalg.norm(sought)), 6)


# --- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("declared", [False, True], ids=["undeclared", "declared"])
@pytest.mark.parametrize("products", [False, True], ids=["media", "products"])
async def test_values_are_counted_as_in_python(catalogue: Catalogue, declared: bool, products: bool) -> None:
    types = DECLARED if declared else {}
    await catalogue.declarations.declare("acme", types)
    counts = await catalogue.count(Query("acme", VECTOR, grouped=products), asking())
    assert (
        counts.total == total_of(SHOWN, products) == (len({one.product for one in SHOWN}) if products else len(SHOWN))
    )
    assert [*counts.facets] == NAMES
    found = plainly(counts)
    for name in NAMES:
        expected = expected_values(SHOWN, name, types.get(name), products)
        assert typed(found[name]) == typed(expected), name
        assert len(expected) > 10


@pytest.mark.parametrize(
    "where",
    [
        {"attributes": {"free": "red"}},
        {"attributes": {"amount": {"gte": 10, "lt": 100}, "free": {"exists": True}}},
        {"attributes": {"free": {"not": "red"}}, "kind": "image"},
        {"productIds": ["p-1", "p-2", "p-3", "p-4", "p-5", "nobody"]},
        {"kind": "video"},
    ],
    ids=["value", "operators", "not", "products", "nothing"],
)
async def test_counts_are_of_what_a_search_with_the_filter_lists(catalogue: Catalogue, where: dict[str, Any]) -> None:
    await catalogue.declarations.declare("acme", DECLARED)
    query = Query("acme", VECTOR, limit=1000, filter=Filter.of(where))
    listed = {match.media_id for match in (await catalogue.search(query)).matches}
    items = [one for one in MINE if one.key in listed]
    counts = await catalogue.count(query, asking())
    assert counts.total == len(listed)
    assert bool(listed) is (where != {"kind": "video"})
    for name in NAMES:
        assert typed(plainly(counts)[name]) == typed(expected_values(items, name, DECLARED.get(name), False))


@pytest.mark.parametrize("declared", [False, True], ids=["undeclared", "declared"])
async def test_a_value_as_a_filter_passes_exactly_what_was_counted(catalogue: Catalogue, declared: bool) -> None:
    await catalogue.declarations.declare("acme", DECLARED if declared else {})
    counts = await catalogue.count(Query("acme", VECTOR), asking())
    looked = 0
    for name, values in plainly(counts).items():
        for value, count in values:
            query = Query("acme", VECTOR, limit=1000, filter=Filter.of({"attributes": {name: value}}))
            found = (await catalogue.count(query, Asked([]))).total
            assert found == count == len((await catalogue.search(query)).matches), (name, value)
            looked += 1
    assert looked > 60


async def test_at_most_so_many_values_come_those_first_that_most_have(catalogue: Catalogue) -> None:
    whole = plainly(await catalogue.count(Query("acme", VECTOR), asking()))["free"]
    for limit in (1, 3, 7):
        few = await catalogue.count(Query("acme", VECTOR), asking(Facet(attribute="free", limit=limit)))
        assert plainly(few)["free"] == whole[:limit]
    assert Facet(attribute="free").limit == facets.DEFAULT_VALUES < len(whole)


async def test_what_no_product_has_counts_nothing(catalogue: Catalogue) -> None:
    asked = asking(
        Facet(attribute="nobody's", stats=True), Facet(attribute="neither", ranges=(Range(lt=5),)),
        Facet(attribute='a "b" \\c'),
    )  # fmt: skip
    counts = await catalogue.count(Query("acme", VECTOR), asked)
    assert counts.facets == {"nobody's": [], "neither": [RangeCount(Range(lt=5), 0)], 'a "b" \\c': []}
    assert counts.stats == {"nobody's": Stats(None, None, 0)}
    contradictory = Query("acme", VECTOR, filter=Filter(kind="image"), within=Filter(kind="video"))
    assert await catalogue.count(contradictory, asked) == Counts(0, counts.facets, counts.stats)
    assert (await catalogue.count(Query("nobody", VECTOR), asked)).total == 0


# --- ranges and stats ------------------------------------------------------------------------------------------------

RANGES: dict[str, list[Range]] = {
    "amount": [Range(lt=0), Range(gte=0, lt=20), Range(gte=20, lte=39.9), Range(gt=39.9), Range(lt=1e9)],
    "day": [Range(lt="2026-03-01"), Range(gte="2026-03-01", lt="2026-03-02"), Range(gt="2026-03-01T09:30:00Z")],
    "free": [Range(gte=20), Range(gte="2026-01-01")],
}


@pytest.mark.parametrize("products", [False, True], ids=["media", "products"])
async def test_a_range_counts_what_the_same_condition_passes(catalogue: Catalogue, products: bool) -> None:
    await catalogue.declarations.declare("acme", DECLARED)
    asked = asking(*(Facet(attribute=name, ranges=tuple(some)) for name, some in RANGES.items()))
    counts = await catalogue.count(Query("acme", VECTOR, grouped=products), asked)
    for name, ranges in RANGES.items():
        for one, found in zip(ranges, counts.facets[name], strict=True):
            assert isinstance(found, RangeCount)
            assert found.range == one
            within = Filter.of({"attributes": {name: msgspec.to_builtins(one)}})
            listed = (await catalogue.search(Query("acme", VECTOR, limit=1000, filter=within))).matches
            assert found.count == (len({match.product_id for match in listed}) if products else len(listed)), one
            assert found.count > 0 or one == Range(lt="2026-03-01")


@pytest.mark.parametrize("products", [False, True], ids=["media", "products"])
async def test_stats_are_of_numbers_or_of_dates_where_they_are_declared(catalogue: Catalogue, products: bool) -> None:
    await catalogue.declarations.declare("acme", DECLARED)
    asked = asking(*(Facet(attribute=name, stats=True, limit=1) for name in NAMES))
    counts = await catalogue.count(Query("acme", VECTOR, grouped=products), asked)
    for name in NAMES:
        measured: list[Any] = []
        count = 0
        for attributes, weight in weights(SHOWN, products):
            values = values_of(attributes, name, DECLARED.get(name))
            own: list[Any]
            if DECLARED.get(name) == "date":
                own = [one for one in values if isinstance(one, str) and not measure(one, "date")[0]]
            else:
                own = [one for one in values if isinstance(one, int | float) and not isinstance(one, bool)]
            measured += own
            count += weight if own else 0
        least, most = (pick(measured, key=lambda one: measure(one, DECLARED.get(name))) for pick in (min, max))
        assert counts.stats[name] == Stats(least, most, count), name


@pytest.mark.parametrize(
    "bounds", [{}, {"gt": 1, "lt": "2026-01-01"}, {"gte": "soon"}], ids=["none", "mixed", "no date"]
)
def test_a_range_has_bounds_as_a_filter_has(bounds: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"range|bound"):
        Range(**bounds)


# --- who is counted --------------------------------------------------------------------------------------------------


async def test_what_is_not_active_counts_for_operators_alone(catalogue: Catalogue) -> None:
    query = Query("acme", VECTOR, filter=Filter(is_active="any"))
    counts = await catalogue.count(query, asking())
    assert counts.total == len(MINE) > len(SHOWN)
    assert typed(plainly(counts)["free"]) == typed(expected_values(MINE, "free", None, False))


async def test_a_searchers_own_narrowing_holds_for_counts(catalogue: Catalogue) -> None:
    within = Filter.of({"attributes": {"free": "red"}})
    counts = await catalogue.count(Query("acme", VECTOR, within=within), asking())
    allowed = [one for one in SHOWN if "red" in values_of(one.attributes, "free", None)]
    assert counts.total == len(allowed) > 0
    for name in NAMES:
        assert typed(plainly(counts)[name]) == typed(expected_values(allowed, name, None, False))


async def test_a_statement_that_names_another_client_counts_nothing_under_the_policies(
    database_url: str, space: SpaceRow
) -> None:
    async with open_pool(database_url, min_size=1, max_size=1, timeout=30, role=SERVING_ROLE) as pool:
        catalogue = Catalogue(pool, space)
        counter = catalogue.facets
        query, asked = Query("other", VECTOR), asking()
        assert (await catalogue.count(query, asked)).total > 0
        for where in (Filter(), Filter(is_active="any")):
            conditions = Conditions.of(where)
            parameters = {**counter._of_query(query, conditions, asked), **facets._of_facets(asked.facets, {})}
            rows = await catalogue._runner.fetch(counter._statement, parameters, dict_row, "facets", client="acme")
            assert [(row["what"], row["count"]) for row in rows] == [("total", 0)]


# --- over matches ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("percentage", [0.0, 40.0, 50.0, 55.5, 62.0, 99.9])
async def test_matches_are_those_that_show_at_least_the_percentage(catalogue: Catalogue, percentage: float) -> None:
    query = Query("acme", VECTOR, min_similarity=percentage, limit=1000)
    near = [one for one in SHOWN if similarity(cosine(one)) >= percentage]
    counts = await catalogue.count(query, asking(over="matches"))
    assert counts.total == len(near) == len((await catalogue.search(query)).matches)
    assert typed(plainly(counts)["free"]) == typed(expected_values(near, "free", None, False))
    assert (await catalogue.count(query, asking())).total == len(SHOWN)


async def test_a_least_cosine_and_blank_pictures_hold_over_matches(catalogue: Catalogue) -> None:
    border = sorted(map(cosine, SHOWN))[len(SHOWN) // 2]
    for least in (border, border + 0.000001):
        query = Query("acme", VECTOR, min_cosine=least, limit=1000, without_blank=True)
        near = [one for one in SHOWN if cosine(one) >= least and not one.blank]
        counts = await catalogue.count(query, asking(over="matches"))
        assert counts.total == len(near) == len((await catalogue.search(query)).matches)
        assert (await catalogue.count(query, asking())).total == len(SHOWN)


async def test_matches_without_a_least_similarity_are_refused(catalogue: Catalogue) -> None:
    with pytest.raises(BadParameter, match="minSimilarity"):
        await catalogue.count(Query("acme", VECTOR), asking(over="matches"))


def test_an_attribute_is_named_once() -> None:
    with pytest.raises(BadParameter, match="'a' is named twice"):
        Asked([Facet(attribute="a"), Facet(attribute="a", stats=True)])


# --- connections -----------------------------------------------------------------------------------------------------


async def test_many_counts_beside_searches_share_one_connection(database_url: str, space: SpaceRow) -> None:
    """With a pool of one, whoever held a connection while waiting for another would wait for ever."""
    async with open_pool(database_url, min_size=1, max_size=1, timeout=20) as pool:
        catalogue = Catalogue(pool, space)
        query = Query("acme", VECTOR)
        works = [one for _ in range(12) for one in (catalogue.count(query, asking()), catalogue.search(query))]
        found = await asyncio.wait_for(asyncio.gather(*works), 60)
    assert {one.total for one in found if isinstance(one, Counts)} == {len(SHOWN)}


async def test_counts_leave_connections_to_searches(database_url: str, space: SpaceRow) -> None:
    """However many counts wait for a table that somebody has locked, a search finds a connection."""
    most = facets.MOST_AT_ONCE
    async with open_pool(database_url, min_size=1, max_size=most + 1, timeout=2) as pool:
        catalogue = Catalogue(pool, space)
        with psycopg.connect(database_url) as locking:
            locking.execute("LOCK TABLE twinlens_attributes")
            counting = [
                asyncio.ensure_future(catalogue.count(Query("acme", VECTOR), asking())) for _ in range(3 * most)
            ]
            waiting = (
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            while run_sql(database_url, waiting) != [(most,)]:
                await asyncio.sleep(0.05)
            assert len((await catalogue.search(Query("acme", VECTOR))).matches) == 24
            locking.rollback()
        assert {one.total for one in await asyncio.gather(*counting)} == {len(SHOWN)}


async def test_a_database_that_is_away_is_said_in_our_words(database_url: str, space: SpaceRow) -> None:
    async with open_pool(database_url, min_size=0, max_size=1, timeout=1) as pool:
        catalogue = Catalogue(pool, space)
    with pytest.raises(CatalogueUnavailable):
        await catalogue.count(Query("acme", VECTOR), asking())
