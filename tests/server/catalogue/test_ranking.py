"""What a search is ranked by: the one order, and what products have besides their pictures."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from server.catalogue.catalogue import Catalogue
from server.catalogue.filters import Filter
from server.catalogue.ranking import Given, Ranked, Row
from server.catalogue.rows import MOST_BONUSES, Key, Match, Query
from server.catalogue.similarity import least_cosine, similarity
from server.database.isolation import SERVING_ROLE
from server.database.pool import open_pool
from server.errors import BadParameter
from tests.support.catalogue import D, fill, open_test_space
from tests.support.databases import run_sql
from tests.support.vectors import UnitVectors

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[None, SERVING_ROLE], ids=["owner", "row-security"])
async def catalogue(
    database_url: str, request: pytest.FixtureRequest, unit_vectors: UnitVectors
) -> AsyncIterator[Catalogue]:
    """A client with 600 products, and one with a hundred."""
    space = open_test_space(database_url)
    fill(database_url, space, "large", unit_vectors(600, D, 1))
    fill(database_url, space, "small", unit_vectors(100, D, 2))
    run_sql(database_url, "ANALYZE")
    async with (
        open_pool(database_url, min_size=1, max_size=4, timeout=30, role=request.param) as pool,
        open_pool(database_url, min_size=1, max_size=2, timeout=30) as owners,
    ):
        yield Catalogue(pool, space, background=owners)


@pytest.fixture
def query(unit_vectors: UnitVectors) -> NDArray[np.float32]:
    found: NDArray[np.float32] = unit_vectors(1, D, 9)[0]
    return found


def ids(matches: Sequence[Match]) -> list[str]:
    return [match.media_id for match in matches]


@pytest.mark.parametrize("plan", ["exact", "index"])
async def test_products_with_a_bonus_are_candidates_however_far_they_are(
    catalogue: Catalogue, query: NDArray[np.float32], plan: str
) -> None:
    everything = (await catalogue.search(Query("large", query, limit=600))).matches
    far, farther, near = everything[550].media_id, everything[599].media_id, everything[2].media_id
    if plan == "index":
        await catalogue.maintain_indexes(threshold=500)
    # A product of nobody's and one of another client's change nothing.
    named = {far: 3.0, farther: 3.5, near: 0.0000004, "nothing": 9.0, "small-000001": 9.0}
    found = await catalogue.search(Query("large", query, bonuses=named))
    assert found.plan == plan
    assert ids(found.matches) == [farther, far, *ids(everything[:22])]
    first = found.matches[0]
    assert (first.cosine, first.ranking) == (everything[599].cosine, round(everything[599].cosine + 3.5, 6))
    # What is too far for the percentage is left out, and the others come as many as were asked for.
    least = similarity(everything[100].cosine)
    found = await catalogue.search(Query("large", query, bonuses=named, min_similarity=least, limit=20))
    assert ids(found.matches) == ids(everything[:20])
    # A bonus below 0 moves a product back, and nothing is missing for it.
    worse = {one.media_id: -2.0 for one in everything[:300]}
    found = await catalogue.search(Query("large", query, bonuses=worse, limit=310))
    assert ids(found.matches) == ids([*everything[300:], *everything[:10]])
    found = await catalogue.search(Query("large", query, bonuses=worse, limit=24))
    assert ids(found.matches) == ids(everything[300:324])
    # A filter holds for them as for others.
    found = await catalogue.search(Query("large", query, bonuses=named, filter=Filter(product_ids=(near, far))))
    assert ids(found.matches) == [far, near]


async def test_too_many_bonuses_are_a_bad_parameter(catalogue: Catalogue, query: NDArray[np.float32]) -> None:
    with pytest.raises(BadParameter):
        await catalogue.search(Query("large", query, bonuses=dict.fromkeys(map(str, range(MOST_BONUSES + 1)), 1.0)))


def test_the_order_is_sure_down_to_the_lowest_candidate() -> None:
    def row(rank: int, candidates: int, edge: int | None) -> Row:
        match = Match("p", "P", "m", "k", None, None, rank / 1e6, rank / 1e6, blank=False)
        return Row(Ranked(match, Key(rank, False, False, "m")), candidates, edge)

    rows = [row(9, 3, 7), row(8, 3, 7), row(7, 3, 7)]
    assert [one.key.rank for one in Given.of(rows, 3).sure] == [9, 8]
    assert [one.key.rank for one in Given.of(rows, 3, whole=True).sure] == [9, 8, 7]
    assert [one.key.rank for one in Given.of(rows, 3, beyond=1).sure] == [9]
    assert [one.key.rank for one in Given.of(rows, 4).sure] == [9, 8, 7]
    assert Given.of([Row(None, 0, None)], 3).all


def test_the_least_cosine_is_the_first_that_shows_the_percentage() -> None:
    assert least_cosine(None) is None
    assert least_cosine(0) == -1.0
    for percentage in (12.3, 50, 85.4, 99.9, 100):
        least = least_cosine(percentage)
        assert least is not None
        assert similarity(least) >= percentage > similarity(least - 1e-6)
    assert least_cosine(50, 0.3) == 0.3
