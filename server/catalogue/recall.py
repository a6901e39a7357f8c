"""Recall that is known: searches that an index answered, answered again exactly and compared.

The server draws one such search every few seconds, whatever the traffic, tells the metrics and keeps it in the
database. `python -m server doctor --recall` asks those again, and each client that nobody has searched yet with vectors
near its own.
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
from psycopg.rows import class_row

from server.catalogue.catalogue import Catalogue
from server.catalogue.filters import Filter
from server.catalogue.indexes import blurred, mean_recall
from server.catalogue.rows import IndexAnswer, SpaceRow
from server.database.connections import Pool, open_pool
from server.database.queries import Queries
from server.errors import DatabaseUnusable
from server.settings import Settings

EVERY = 10.0
"""Seconds between two searches that are answered twice: what it costs does not grow with the traffic."""

_QUERIES = 50  # of each client, when the doctor asks
_LIMIT = 24
_LONGEST = 120.0  # seconds for one exact search of the doctor's

_log = logging.getLogger(__name__)


class Sampler:
    """Draws one of the searches that came since it last looked, each as likely as the others."""

    def __init__(self, catalogue: Catalogue, tell: Callable[[float], None]) -> None:
        """`tell` is called with the recall of each search that was drawn."""
        self._catalogue = catalogue
        self._tell = tell
        self._drawn: IndexAnswer | None = None
        self._offered = 0
        catalogue.on_index_answer = self._offer

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
            except Exception:
                _log.exception("A search could not be compared with the exact one; another try follows.")

    async def compare(self) -> float | None:
        """The recall of the search that was drawn; None where there was none. Raises CatalogueUnavailable."""
        answer, self._drawn, self._offered = self._drawn, None, 0
        if answer is None:
            return None
        recall = await self._catalogue.compare(answer)
        self._tell(recall)
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
    embedding: HalfVector
    limit: int
    where: dict[str, Any] | None
    recall: float


@dataclass(frozen=True)
class ClientRecall:
    """What a client's searches find through its index of what they find exactly."""

    client: str
    index: str
    vectors: int
    ef_search: int
    live_queries: int
    """Searches of its customers that were asked again."""
    drawn_queries: int
    """Vectors near its own, where its customers have not searched enough."""
    by_index: int
    """How many of all these an index answered; the others were answered exactly, and so are right."""
    short: int
    """Answers with less than there is."""
    recall: float
    lowest: float


async def measure(settings: Settings, url: str) -> list[ClientRecall]:
    async with open_pool(url, min_size=1, max_size=2, timeout=10.0, longest=_LONGEST) as pool:
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


async def _measure_client(pool: Pool, catalogue: Catalogue, queries: Queries, one: _Indexed) -> ClientRecall:
    about = {"space": catalogue.space.number, "client_id": one.client_id, "count": _QUERIES}
    async with pool.connection() as connection:
        cursor = connection.cursor(row_factory=class_row(_Kept))
        kept = await (await cursor.execute(queries["kept"], about)).fetchall()
        rows = await (
            await connection.execute(
                queries.of(catalogue.space.table)["drawn"], {**about, "count": _QUERIES - len(kept)}
            )
        ).fetchall()
    asked = [(query.embedding, query.limit, Filter.of(query.where)) for query in kept]
    asked += [(blurred(stored, seed), _LIMIT, Filter()) for seed, (stored,) in enumerate(rows)]
    shares, by_index, short = [], 0, 0
    for embedding, limit, where in asked:
        found = await catalogue.search(one.client_id, embedding.to_numpy(), limit=limit, where=where)
        answer = IndexAnswer(one.client_id, embedding, limit, where, tuple(match.cosine for match in found.matches))
        exact = await catalogue.search_again(answer)
        shares.append(mean_recall([exact], [list(answer.cosines)]))
        by_index += found.plan == "index"
        short += len(answer.cosines) < len(exact)
    return ClientRecall(
        client=one.client_id,
        index=one.name,
        vectors=one.vectors,
        ef_search=one.ef_search,
        live_queries=len(kept),
        drawn_queries=len(rows),
        by_index=by_index,
        short=short,
        recall=float(np.mean(shares)) if shares else 1.0,
        lowest=min(shares, default=1.0),
    )
