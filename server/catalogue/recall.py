"""Measured recall: searches that an index answered are answered again exactly and compared.

The server draws one such search every few seconds, whatever the traffic, reports its recall to the metrics and keeps it
in the database. `python -m server doctor --recall` repeats the searches that were kept. For clients with too few of
them it adds queries near their own vectors.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from pgvector import HalfVector
from psycopg.rows import class_row, scalar_row

from server.catalogue.catalogue import Catalogue
from server.catalogue.filters import kept_filters
from server.catalogue.indexes import blurred, mean_recall
from server.catalogue.rows import IndexAnswer, Query, SpaceRow
from server.database.pool import Pool, open_pool
from server.database.queries import Queries
from server.errors import DatabaseUnusable, TwinlensError
from server.settings import Settings

EVERY = 10.0
"""Seconds between two searches that are answered twice: the cost does not grow with the traffic."""

_QUERIES = 50  # of each client, for the doctor
_LONGEST = 120.0  # seconds for one exact search of the doctor's

_log = logging.getLogger(__name__)


class Sampler:
    """Draws one of the searches since the last draw, each with the same probability."""

    def __init__(self, catalogue: Catalogue, report: Callable[[float], None]) -> None:
        """`report` is called with the recall of each search that was drawn."""
        self._searcher = catalogue.searcher
        self._report = report
        self._drawn: IndexAnswer | None = None
        self._offered = 0
        self._searcher.on_index_answer = self._offer

    def _offer(self, answer: IndexAnswer) -> None:
        self._offered += 1
        if random.randrange(self._offered) == 0:  # noqa: S311 - a draw, no secret
            self._drawn = answer

    async def run(self) -> None:
        """Compare for as long as the server runs."""
        while True:
            await asyncio.sleep(EVERY)
            try:
                await self.compare()
            except TwinlensError as exc:
                _log.warning("A search could not be compared with the exact one; another try follows: %s", exc.line)
            except Exception:
                _log.exception("A search could not be compared with the exact one; another try follows.")

    async def compare(self) -> float | None:
        """The recall of the search that was drawn; None where there was none. Raises CatalogueUnavailable."""
        answer, self._drawn, self._offered = self._drawn, None, 0
        if answer is None:
            return None
        recall = await self._searcher.compare(answer)
        self._report(recall)
        return recall


@dataclass(frozen=True)
class _Indexed:
    name: str
    client_id: str
    vectors: int
    ef_search: int
    recall: float


@dataclass(frozen=True)
class _Kept:
    """A search that was compared while the server ran."""

    embedding: HalfVector
    limit: int
    where: dict[str, Any] | None


@dataclass(frozen=True)
class ClientRecall:
    """How much of what a client's exact searches find its index finds, too."""

    client: str
    index: str
    vectors: int
    ef_search: int
    live_queries: int
    """Searches of its customers that were repeated."""
    drawn_queries: int
    """Searches with vectors near its own, where its customers have not searched enough."""
    by_index: int
    """How many of all these an index answered; the others were answered exactly."""
    short: int
    """How many answers have fewer matches than there are to find."""
    recall: float
    """The mean of all these searches."""
    lowest: float
    """The lowest recall of one of them."""


async def measure(settings: Settings, url: str) -> list[ClientRecall]:
    """The recall of each client that has an index, the largest client first. Raises DatabaseUnusable."""
    async with open_pool(url, min_size=1, max_size=2, timeout=10.0, longest=_LONGEST, pooling=settings.pooling) as pool:
        queries = Queries.read("recall.sql")
        async with pool.connection() as connection:
            cursor = connection.cursor(row_factory=class_row(SpaceRow))
            space = await (await cursor.execute(queries["live_space"])).fetchone()
            if space is None:
                raise DatabaseUnusable("The database has no live embedding space yet: there is nothing to measure.")
            clients = connection.cursor(row_factory=class_row(_Indexed))
            await clients.execute(queries["indexed_clients"], {"space": space.number})
            indexed = await clients.fetchall()
        catalogue = Catalogue(pool, space, recall=settings.target_recall)
        return [await _measure_client(pool, catalogue, queries, one) for one in indexed]


def _query(client_id: str, search: _Kept) -> Query:
    asked, within = kept_filters(search.where)
    return Query(client_id, search.embedding.to_numpy(), limit=search.limit, filter=asked, within=within)


async def _measure_client(pool: Pool, catalogue: Catalogue, queries: Queries, one: _Indexed) -> ClientRecall:
    about = {"space": catalogue.space.number, "client_id": one.client_id}
    async with pool.connection() as connection:
        cursor = connection.cursor(row_factory=class_row(_Kept))
        kept = await (await cursor.execute(queries["kept"], {**about, "count": _QUERIES})).fetchall()
        vectors = connection.cursor(row_factory=scalar_row)
        of_space = queries.of(catalogue.space.table)
        drawn = await (await vectors.execute(of_space["drawn"], {**about, "count": _QUERIES - len(kept)})).fetchall()
    asked = [_query(one.client_id, search) for search in kept]
    asked += [Query(one.client_id, blurred(stored, seed).to_numpy()) for seed, stored in enumerate(drawn)]
    shares, by_index, short = [], 0, 0
    for query in asked:
        found = await catalogue.search(query)
        cosines = [match.cosine for match in found.matches]
        exact = await catalogue.searcher.search_again(query)
        shares.append(mean_recall([exact], [cosines]))
        by_index += found.plan == "index"
        short += len(cosines) < len(exact)
    return ClientRecall(
        client=one.client_id,
        index=one.name,
        vectors=one.vectors,
        ef_search=one.ef_search,
        live_queries=len(kept),
        drawn_queries=len(drawn),
        by_index=by_index,
        short=short,
        recall=float(np.mean(shares)) if shares else 1.0,
        lowest=min(shares, default=1.0),
    )
