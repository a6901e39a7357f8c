"""Searches that an index answered, compared with the exact answer."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator

import numpy as np
import pytest
from numpy.typing import NDArray

from server.catalogue import recall
from server.catalogue.catalogue import Catalogue
from server.catalogue.filters import Filter
from server.catalogue.indexes import mean_recall
from server.catalogue.recall import Sampler
from server.catalogue.rows import IndexAnswer, Query
from server.commands import recall as command_line
from server.database.pool import open_pool
from server.errors import DatabaseUnusable
from server.settings import Settings
from tests.support.catalogue import D, fill, open_test_space
from tests.support.databases import run_sql
from tests.support.vectors import UnitVectors

pytestmark = pytest.mark.anyio

SETTINGS = Settings()


@pytest.fixture
async def catalogue(database_url: str, unit_vectors: UnitVectors) -> AsyncIterator[Catalogue]:
    """A client with an index over 600 vectors, and one without."""
    space = open_test_space(database_url)
    fill(database_url, space, "large", unit_vectors(600, D, 1))
    fill(database_url, space, "small", unit_vectors(50, D, 2))
    async with open_pool(database_url, min_size=1, max_size=2, timeout=30) as pool:
        catalogue = Catalogue(pool, space)
        await catalogue.maintain_indexes(threshold=500)
        yield catalogue


@pytest.fixture
def queries(unit_vectors: UnitVectors) -> NDArray[np.float32]:
    return unit_vectors(20, D, 3)


def test_recall_counts_whatever_is_as_near_as_the_last_true_neighbour() -> None:
    assert mean_recall([[0.9, 0.8, 0.8]], [[0.9, 0.8, 0.8]]) == 1.0
    assert mean_recall([[0.9, 0.8]], [[0.9, 0.7]]) == 0.5
    assert mean_recall([[0.9, 0.8], []], [[0.9], [0.1]]) == 0.5
    assert mean_recall([], []) == 1.0


async def test_a_search_that_an_index_answered_is_compared_and_kept(
    catalogue: Catalogue, queries: NDArray[np.float32], database_url: str
) -> None:
    reported: list[float] = []
    sampler = Sampler(catalogue, reported.append)
    assert await sampler.compare() is None
    await catalogue.search(Query("small", queries[0]))
    assert await sampler.compare() is None  # an exact search needs no comparison
    for query in queries[:5]:
        await catalogue.search(Query("large", query, limit=10))
    assert await sampler.compare() is not None
    assert await sampler.compare() is None
    await catalogue.search(Query("large", queries[0], filter=Filter(kind="image")))
    await sampler.compare()
    assert len(reported) == 2
    assert min(reported) >= 0.9
    kept = run_sql(database_url, 'SELECT "clientId", "limit", "where", expected FROM twinlens_recall ORDER BY number')
    assert kept == [("large", 10, None, 10), ("large", 24, {"kind": "image"}, 24)]


async def test_what_an_index_overlooked_is_seen(
    catalogue: Catalogue, queries: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    answers: list[IndexAnswer] = []
    catalogue.searcher.on_index_answer = answers.append
    await catalogue.search(Query("large", queries[0], limit=10))
    (answer,) = answers
    halved = dataclasses.replace(answer, cosines=(*answer.cosines[:5], *[-1.0] * 5))
    assert await catalogue.searcher.compare(halved) == 0.5
    assert run_sql(database_url, "SELECT found, expected FROM twinlens_recall") == [(5, 10)]


async def test_only_the_newest_comparisons_are_kept(
    catalogue: Catalogue, queries: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    monkeypatch.setattr("server.catalogue.search.COMPARISONS_KEPT", 3)
    sampler = Sampler(catalogue, lambda _: None)
    for limit in range(1, 7):
        await catalogue.search(Query("large", queries[0], limit=limit))
        await sampler.compare()
    assert run_sql(database_url, 'SELECT "limit" FROM twinlens_recall ORDER BY number') == [(4,), (5,), (6,)]


def ask_the_doctor(url: str, *, as_json: bool = False) -> int:
    return command_line.run(SETTINGS, argparse.Namespace(json=as_json), url)


async def test_the_doctor_repeats_live_searches_and_adds_drawn_ones(
    catalogue: Catalogue, queries: NDArray[np.float32], database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    sampler = Sampler(catalogue, lambda _: None)
    for query in queries[:4]:
        await catalogue.search(Query("large", query))
        await sampler.compare()
    found = await recall.measure(SETTINGS, database_url)
    (one,) = found
    assert (one.client, one.vectors, one.live_queries, one.drawn_queries) == ("large", 600, 4, 46)
    assert (one.by_index, one.short) == (50, 0)
    assert one.recall >= 0.99
    assert one.lowest <= one.recall


def test_the_exit_code_of_the_doctor_shows_poor_recall(
    database_url: str, unit_vectors: UnitVectors, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DatabaseUnusable, match="no live embedding space"):
        ask_the_doctor(database_url)
    space = open_test_space(database_url)
    assert ask_the_doctor(database_url) == 0
    assert "every search is exact" in capsys.readouterr().out
    fill(database_url, space, "large", unit_vectors(600, D, 1))

    async def maintain() -> None:
        async with open_pool(database_url, min_size=1, max_size=2, timeout=30) as pool:
            await Catalogue(pool, space).maintain_indexes(threshold=500)

    asyncio.run(maintain())
    assert ask_the_doctor(database_url) == 0
    assert "large" in capsys.readouterr().out
    # An index that was built with next to no links between its vectors.
    ((index,),) = run_sql(database_url, "SELECT name FROM twinlens_indexes")
    run_sql(database_url, f'DROP INDEX "{index}"')
    run_sql(
        database_url,
        f'CREATE INDEX "{index}" ON {space.table} USING hnsw (embedding halfvec_ip_ops) '
        """WITH (m = 2, ef_construction = 4) WHERE "clientId" = 'large' AND active""",
    )
    assert ask_the_doctor(database_url, as_json=True) == 1
    measured = json.loads(capsys.readouterr().out)
    assert measured[0]["recall"] < SETTINGS.target_recall
    assert ask_the_doctor(database_url) == 1
    assert f'DROP INDEX CONCURRENTLY "{index}"' in capsys.readouterr().err
