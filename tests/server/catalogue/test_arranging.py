"""Lists that are more than the nearest pictures: products, pages, diversity and boosts, against plain reckoning."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from server.catalogue.boosts import Boost
from server.catalogue.catalogue import Catalogue
from server.catalogue.filters import Filter
from server.catalogue.rows import Found, IndexAnswer, Query
from server.database.isolation import SERVING_ROLE
from server.database.pool import open_pool
from server.errors import BadParameter
from tests.support.catalogue import D, fill_products, open_test_space
from tests.support.databases import run_sql
from tests.support.vectors import UnitVectors

pytestmark = pytest.mark.anyio

MEDIA, COPIES = 900, 300
PRODUCTS = [f"p-{number % 230:03}" for number in range(MEDIA)] + [f"p-{number % 230:03}" for number in range(COPIES)]
ATTRIBUTES: dict[str, dict[str, Any]] = {
    f"p-{number:03}": {
        "shade": number % 5,
        "new": number % 7 == 0,
        "price": number if number % 3 else str(number),
        "margins": [number / 230, 0.5],
        "added": f"2026-01-{number % 28 + 1:02}" if number % 2 else f"2026-01-{number % 28 + 1:02}T12:00:00Z",
    }
    for number in range(230)
}


class Shop(NamedTuple):
    catalogue: Catalogue
    query: NDArray[np.float32]
    cosines: dict[str, float]
    """By the media's id, as the database has them."""
    vectors: NDArray[np.float64]


@pytest.fixture(params=["exact", "index"])
def plan(request: pytest.FixtureRequest) -> str:
    named: str = request.param
    return named


@pytest.fixture
async def shop(database_url: str, unit_vectors: UnitVectors, plan: str) -> AsyncIterator[Shop]:
    """900 pictures and, among the nearest, 300 copies of one of them, of 230 products; served as the role that serves.

    For exact searches half of the copies are longer by a little, as vectors of halves are: nearly equal cosines, and
    inner products in another order. An index would overlook half of them, as it does among hundreds of near-copies.
    """
    space = open_test_space(database_url)
    query = unit_vectors(1, D, 9)[0]
    spread = unit_vectors(MEDIA, D, 4)
    best = spread[np.argsort(-(spread @ query))[5]]
    copies = np.repeat(best[None], COPIES, axis=0)
    if plan == "exact":
        copies[::2] *= 1.0005
    vectors = np.concatenate([spread, copies])
    fill_products(database_url, space, "shop", vectors, PRODUCTS, ATTRIBUTES)
    fill_products(database_url, space, "other", spread[:50], [f"o-{number}" for number in range(50)])
    run_sql(database_url, "ANALYZE")
    async with (
        open_pool(database_url, min_size=1, max_size=4, timeout=30, role=SERVING_ROLE) as pool,
        open_pool(database_url, min_size=1, max_size=2, timeout=30) as owners,
    ):
        catalogue = Catalogue(pool, space, background=owners)
        everything = (await catalogue.search(Query("shop", query, limit=1000))).matches
        rest = run_sql(
            database_url,
            f'SELECT "mediaId", round((1 - (embedding <=> %s::halfvec))::numeric, 6)::float8 FROM {space.table}'
            """ WHERE "clientId" = 'shop'""",
            (str(query.astype(np.float16).astype(float).tolist()),),
        )
        cosines = {str(media): float(cosine) for media, cosine in rest}
        assert [one.media_id for one in everything] == order(cosines)[:1000]
        if plan == "index":
            await catalogue.maintain_indexes(threshold=500)
        stored = vectors.astype(np.float16).astype(np.float64)
        yield Shop(catalogue, query, cosines, stored / np.linalg.norm(stored, axis=1, keepdims=True))


def order(ranks: dict[str, float]) -> list[str]:
    return sorted(ranks, key=lambda media: (-round(ranks[media], 6), media))


def product_of(media: str) -> str:
    return PRODUCTS[int(media[-6:])]


def at_most(media: list[str], most: int) -> list[str]:
    seen: Counter[str] = Counter()
    kept = []
    for one in media:
        seen[product_of(one)] += 1
        if seen[product_of(one)] <= most:
            kept.append(one)
    return kept


def ids(matches: Any) -> list[str]:
    return [match.media_id for match in matches]


async def pages(shop: Shop, query: Query, most: int = 100) -> list[Found]:
    found = [await shop.catalogue.search(query)]
    while (end := found[-1].end) is not None and len(found) < most:
        depth = sum(len(page.matches) for page in found)
        found.append(await shop.catalogue.search(replace(query, after=end, depth=depth)))
    return found


def same(found: list[str], expected: list[str], plan: str) -> None:
    """Exactly the same where nothing is left to an index, and else all but a few."""
    assert len(found) == len(expected)
    assert len(set(found)) == len(found)
    if plan == "exact":
        assert found == expected
    else:
        assert len(set(found) & set(expected)) >= 0.95 * len(expected)


async def test_a_product_comes_once_by_its_best_media_with_its_others_beside_it(shop: Shop, plan: str) -> None:
    everything = order(shop.cosines)
    heads = at_most(everything, 1)
    for limit, size in ((1, 4), (24, 2), (24, 0), (230, 20), (500, 1)):
        found = await shop.catalogue.search(Query("shop", shop.query, limit=limit, grouped=True, group_size=size))
        same(ids(found.matches), heads[:limit], plan)
        assert (found.end is None) == (limit >= 230)
        assert {*found.others} == {match.product_id for match in found.matches}
        for match in found.matches:
            of_product = [one for one in everything if product_of(one) == match.product_id]
            assert match.media_id == of_product[0]
            assert ids(found.others[match.product_id]) == of_product[1 : size + 1]
    # With a filter, and with a likeness that others must have as well.
    where = Filter.of({"attributes": {"shade": 2}})
    passing = [one for one in everything if ATTRIBUTES[product_of(one)]["shade"] == 2]
    query = Query("shop", shop.query, limit=24, grouped=True, group_size=20, filter=where, min_similarity=60)
    found = await shop.catalogue.search(query)
    near = [one for one in passing if round((1 + shop.cosines[one]) * 50, 1) >= 60]
    same(ids(found.matches), at_most(near, 1)[:24], plan)
    for match in found.matches:
        of_product = [one for one in near if product_of(one) == match.product_id]
        assert [match.media_id, *ids(found.others[match.product_id])] == of_product[:21]
    assert (found.end is None) == (len(at_most(near, 1)) <= 24)


async def test_at_most_so_many_media_of_a_product_are_listed(shop: Shop, plan: str) -> None:
    everything = order(shop.cosines)
    for most, limit in ((1, 24), (2, 24), (3, 400), (100, 24)):
        found = await shop.catalogue.search(Query("shop", shop.query, limit=limit, max_per_product=most))
        same(ids(found.matches), at_most(everything, most)[:limit], plan)
    listed = [
        one
        for page in await pages(shop, Query("shop", shop.query, limit=70, max_per_product=2))
        for one in ids(page.matches)
    ]
    same(listed, at_most(everything, 2), plan)
    with pytest.raises(BadParameter, match="maxPerProduct"):
        await shop.catalogue.search(Query("shop", shop.query, grouped=True, max_per_product=2))


async def test_pages_list_each_media_once_and_in_order_also_among_hundreds_of_copies(shop: Shop, plan: str) -> None:
    everything = order(shop.cosines)
    copies = [one for one in everything if int(one[-6:]) >= MEDIA]
    assert len({shop.cosines[one] for one in copies}) <= 2, "they are equal, or next to it"
    for limit in (100, 97):
        found = await pages(shop, Query("shop", shop.query, limit=limit))
        same([one for page in found for one in ids(page.matches)], everything, plan)
        assert [len(page.matches) for page in found[:-1]] == [limit] * (len(found) - 1)
        assert found[-1].matches
    whole = await shop.catalogue.search(Query("shop", shop.query, limit=1000))
    ten = (await pages(shop, Query("shop", shop.query, limit=100), most=10))[:10]
    assert whole.plan == "exact"
    same([one for page in ten for one in ids(page.matches)], ids(whole.matches), plan)
    grouped = await pages(shop, Query("shop", shop.query, limit=50, grouped=True))
    same([one for page in grouped for one in ids(page.matches)], at_most(everything, 1), plan)
    # The list ends where what follows is too far, and no page is empty.
    near = [one for one in everything if round((1 + shop.cosines[one]) * 50, 1) >= 70]
    found = await pages(shop, Query("shop", shop.query, limit=50, min_similarity=70))
    same([one for page in found for one in ids(page.matches)], near, plan)
    assert found[-1].matches


async def test_what_is_written_between_two_pages_neither_repeats_nor_hides_a_match(
    shop: Shop, plan: str, database_url: str
) -> None:
    everything = order(shop.cosines)
    first = await shop.catalogue.search(Query("shop", shop.query, limit=100))
    # The last one of the page goes, and so do some before it and some that were still to come.
    gone = [*ids(first.matches)[90:], *everything[110:120]]
    run_sql(database_url, "DELETE FROM media WHERE id = ANY(%s)", (gone,))
    second = await shop.catalogue.search(Query("shop", shop.query, limit=100, after=first.end, depth=100))
    left = [one for one in everything if one not in {*gone, *ids(first.matches)}]
    same(ids(second.matches), left[:100], plan)


async def test_the_own_media_and_file_come_first_among_equals_on_whatever_page(shop: Shop) -> None:
    copies = [one for one in order(shop.cosines) if int(one[-6:]) >= MEDIA]
    own = copies[250]
    vector = shop.vectors[int(own[-6:])]
    found = await pages(shop, Query("shop", vector, limit=60, media_id=own), most=5)
    listed = [one for page in found for one in ids(page.matches)]
    equals = {one.media_id for page in found for one in page.matches if one.cosine == 1.0}
    assert listed[0] == own
    assert len({*listed}) == len(listed) == 300
    assert listed[1 : len(equals)] == sorted(equals - {own})


async def test_near_duplicates_are_left_out_and_the_list_stays_full(shop: Shop, plan: str) -> None:
    def greedy(media: list[str], least: float, limit: int, most: int = 10**6) -> list[str]:
        listed: list[str] = []
        for one in media:
            if sum(product_of(other) == product_of(one) for other in listed) == most:
                continue
            cosines = [round(float(shop.vectors[int(one[-6:])] @ shop.vectors[int(other[-6:])]), 6) for other in listed]
            if max(cosines, default=-1) < least:
                listed.append(one)
            if len(listed) == limit:
                break
        return listed

    everything = order(shop.cosines)
    for least, limit in ((0.99, 24), (0.7, 24), (1.0, 100)):
        found = await shop.catalogue.search(Query("shop", shop.query, limit=limit, distinct=least))
        same(ids(found.matches), greedy(everything, least, limit), plan)
        assert found.end is None
    # Less alike than this, there are only so many in the whole catalogue.
    found = await shop.catalogue.search(Query("shop", shop.query, limit=500, distinct=0.5))
    assert (found.plan, ids(found.matches)) == ("exact", greedy(everything, 0.5, 500))
    found = await shop.catalogue.search(Query("shop", shop.query, limit=24, distinct=0.8, max_per_product=1))
    same(ids(found.matches), greedy(everything, 0.8, 24, most=1), plan)
    found = await shop.catalogue.search(Query("shop", shop.query, limit=24, distinct=0.8, grouped=True))
    same(ids(found.matches), greedy(at_most(everything, 1), 0.8, 24), plan)
    page = await shop.catalogue.search(Query("shop", shop.query))
    with pytest.raises(BadParameter, match="distinct"):
        await shop.catalogue.search(Query("shop", shop.query, distinct=0.9, after=page.end))


def between(value: float, low: float, high: float) -> float:
    return max(0.0, min(1.0, (value - low) / (high - low)))


@pytest.mark.parametrize("weight", [0.02, 1.5])
async def test_boosts_rank_by_the_cosine_and_what_attributes_add(shop: Shop, plan: str, weight: float) -> None:
    await shop.catalogue.declarations.declare("shop", {"price": "number", "shade": "text"})
    boosts = (
        Boost(attribute="new", equals=True, weight=weight),
        Boost(attribute="shade", equals=3, weight=-weight / 2),
        Boost(attribute="price", from_=200, to=100, weight=weight / 2),
        Boost(attribute="margins", from_=0, to=1, weight=weight / 3),
        Boost(attribute="added", from_="2026-01-05", to="2026-01-25T00:00:00Z", weight=weight / 4),
        Boost(attribute="nothing", from_=0, to=1, weight=10),
        Boost(attribute="shade", from_="2026-01-05", to="2026-01-25", weight=10),
        Boost(attribute="added", from_=0, to=1, weight=10),
    )

    def added(product: str) -> float:
        facts = ATTRIBUTES[product]
        day = int(facts["added"][8:10]) + (0.5 if "T" in facts["added"] else 0)
        return float(
            weight * facts["new"]
            - weight / 2 * (facts["shade"] == 3)
            + weight / 2 * round(between(float(facts["price"]), 200, 100), 9)
            + weight / 3 * round(max(between(one, 0, 1) for one in facts["margins"]), 9)
            + weight / 4 * round(between(day, 5, 25), 9)
        )

    boosted = {one: shop.cosines[one] + round(added(product_of(one)), 6) for one in shop.cosines}
    everything = order(boosted)
    found = await shop.catalogue.search(Query("shop", shop.query, boosts=boosts))
    # Where the boosts weigh as much as the picture, only an exact search can be sure.
    same(ids(found.matches), everything[:24], "exact" if found.plan == "exact" else "index")
    for match in found.matches:
        assert match.ranking == pytest.approx(boosted[match.media_id], abs=2e-6)
        assert match.cosine == shop.cosines[match.media_id]
    small = Query("shop", shop.query, boosts=(Boost(attribute="new", equals=True, weight=weight / 20),), limit=5)
    assert (await shop.catalogue.search(small)).plan == plan
    assert weight < 1 or found.plan == "exact"
    # With all else.
    for query, expected in (
        (Query("shop", shop.query, boosts=boosts, limit=60), everything),
        (Query("shop", shop.query, boosts=boosts, limit=60, grouped=True), at_most(everything, 1)),
        (
            Query("shop", shop.query, boosts=boosts, limit=60, min_similarity=65),
            [one for one in everything if round((1 + shop.cosines[one]) * 50, 1) >= 65],
        ),
    ):
        found_pages = await pages(shop, query)
        listed = [one for page in found_pages for one in ids(page.matches)]
        same(listed, expected, plan)
    named = {product_of(everything[900]): 3.0}
    found = await shop.catalogue.search(Query("shop", shop.query, boosts=boosts, bonuses=named, grouped=True, limit=10))
    same(
        ids(found.matches),
        at_most([*[one for one in everything if product_of(one) in named], *everything], 1)[:10],
        plan,
    )


async def test_only_plain_answers_of_an_index_are_compared_with_exact_ones(shop: Shop, plan: str) -> None:
    answers: list[IndexAnswer] = []
    shop.catalogue.searcher.on_index_answer = answers.append
    first = await shop.catalogue.search(Query("shop", shop.query, limit=3))
    for more in (
        {"grouped": True},
        {"max_per_product": 2},
        {"distinct": 0.9},
        {"boosts": (Boost(attribute="new", equals=True, weight=0.001),)},
        {"bonuses": {"p-001": 1.0}},
        {"after": first.end, "depth": 3},
    ):
        await shop.catalogue.search(replace(Query("shop", shop.query, limit=3), **more))
    assert len(answers) == (1 if plan == "index" else 0)
