"""Who is asked through PostgreSQL: ours, what the legacy system did, and what one is advised to do."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol

import numpy as np
import psycopg
from pgvector import Vector
from pgvector.psycopg import register_vector_async
from psycopg.rows import dict_row

from bench.search.fill import FILTERED, LEGACY, OURS, QUERIES, client_id, row_of, space
from bench.search.workload import LIMIT, Query
from server.catalogue.catalogue import Catalogue
from server.catalogue.rows import Query as CatalogueQuery
from server.database.pool import open_pool

Ask = Callable[[Query], Awaitable[list[int]]]
"""Asks one query over one connection; gives the rows that were found, the best first."""

_CONNECT_TIMEOUT = 30.0
_LONGEST = 600.0  # seconds of a statement: the legacy system's need many, and nothing here should be cut off
_WARM_UP = 1.0  # seconds at most of each turn, not counted
_PATIENCE = 10  # times the seconds of a turn, after which a slow system is asked no more


@dataclass
class Turn:
    """What a system answered while it was its turn."""

    milliseconds: list[float]
    seconds: float
    answers: list[tuple[int, list[int]]]
    """Number of the query, rows that were found."""
    plan: str | None = None


class System(Protocol):
    """One that is measured."""

    name: str
    title: str
    about: str

    def measure(self, queries: Sequence[Query], connections: int, seconds: float, least: int) -> Turn: ...


@dataclass
class _Postgres(ABC):
    name: str
    title: str
    about: str
    url: str

    @abstractmethod
    def asking(self, connections: int) -> AbstractAsyncContextManager[list[Ask]]:
        """For as long as the block runs: as many functions, each of which asks over a connection of its own."""

    @abstractmethod
    async def plan(self, query: Query) -> str | None:
        """`exact` or `index`: how the system answers this query; None where it does not say."""

    def measure(self, queries: Sequence[Query], connections: int, seconds: float, least: int) -> Turn:
        """Ask again and again over so many connections, for that long and at least so many times."""

        async def run() -> Turn:
            async with self.asking(connections) as asks:
                await asyncio.gather(*(ask(_SMALLEST) for ask in asks))  # what a new connection loads first
                # The system before has put its own pages in place of ours. Outside a bench each is alone.
                await closed_loop(asks[:1], queries, min(_WARM_UP, seconds), 1)
                turn = await closed_loop(asks, queries, seconds, least)
            turn.plan = await self.plan(queries[0])
            return turn

        return asyncio.run(run())


_SMALLEST = Query(10**6, np.eye(1, 1, dtype=np.float32)[0], 0, 0.0)


async def closed_loop(asks: Sequence[Ask], queries: Sequence[Query], seconds: float, least: int) -> Turn:
    """Each connection asks the next query as soon as it is answered."""
    turn = Turn([], 0.0, [])
    began = perf_counter()
    asked = 0

    async def work(ask: Ask) -> None:
        nonlocal asked
        while (spent := perf_counter() - began) < seconds or (asked < least and spent < _PATIENCE * seconds):
            number = asked % len(queries)
            asked += 1
            start = perf_counter()
            rows = await ask(queries[number])
            turn.milliseconds.append((perf_counter() - start) * 1000)
            turn.answers.append((number, rows))

    await asyncio.gather(*(work(ask) for ask in asks))
    turn.seconds = perf_counter() - began
    return turn


class Twinlens(_Postgres):
    """`Catalogue.search`, through the pool that the server has."""

    def __init__(self, url: str, dimensions: int) -> None:
        super().__init__(
            "twinlens",
            "Twinlens",
            "`Catalogue.search` through the server's own pool: exact for small clients, an HNSW of its own for each "
            "large one.",
            url,
        )
        self._space = space(url, dimensions)

    @contextlib.asynccontextmanager
    async def asking(self, connections: int) -> AsyncIterator[list[Ask]]:
        async with open_pool(
            self.url, min_size=connections, max_size=connections, timeout=_CONNECT_TIMEOUT, longest=_LONGEST
        ) as pool:
            await pool.wait(_CONNECT_TIMEOUT)
            catalogue = Catalogue(pool, self._space)

            async def ask(query: Query) -> list[int]:
                if query is _SMALLEST:
                    await catalogue.ping()
                    return []
                # With a digest, as a search by picture has one: the file itself is looked for, too.
                digest = hashlib.sha256(query.vector.tobytes()).digest()
                found = await catalogue.search(
                    CatalogueQuery(client_id(query.client), query.vector, limit=LIMIT, digest=digest)
                )
                return [row_of(match.media_id) for match in found.matches]

            yield [ask] * connections

    async def plan(self, query: Query) -> str | None:
        async with open_pool(self.url, min_size=1, max_size=1, timeout=_CONNECT_TIMEOUT, longest=_LONGEST) as pool:
            asked = CatalogueQuery(client_id(query.client), query.vector, limit=LIMIT)
            found = await Catalogue(pool, self._space).search(asked)
        return found.plan


class Statement(_Postgres):
    """One statement with the parameters vector, client, limit, one of whose columns is the media's `s3Key`."""

    def __init__(
        self, name: str, title: str, about: str, *, url: str, statement: str, settings: str | None = None
    ) -> None:
        super().__init__(name, title, about, url)
        self._statement = QUERIES[statement]
        self._settings = QUERIES[settings] if settings else None

    async def _connect(self) -> psycopg.AsyncConnection[Any]:
        connection = await psycopg.AsyncConnection.connect(
            self.url,
            autocommit=True,
            prepare_threshold=None,  # or PostgreSQL would change to a generic plan
            cursor_factory=psycopg.AsyncRawCursor,
            row_factory=dict_row,
        )
        await register_vector_async(connection)
        if self._settings:
            await connection.execute(self._settings)
        return connection

    @contextlib.asynccontextmanager
    async def asking(self, connections: int) -> AsyncIterator[list[Ask]]:
        async with contextlib.AsyncExitStack() as stack:
            yield [self._asks(await stack.enter_async_context(await self._connect())) for _ in range(connections)]

    def _asks(self, connection: psycopg.AsyncConnection[Any]) -> Ask:
        async def ask(query: Query) -> list[int]:
            if query is _SMALLEST:
                await connection.execute(b"SELECT 1")
                return []
            parameters = (Vector(query.vector), client_id(query.client), LIMIT)
            cursor = await connection.execute(self._statement, parameters)
            return [row_of(row["s3Key"]) for row in await cursor.fetchall()]

        return ask

    async def plan(self, query: Query) -> str | None:
        async with await self._connect() as connection:
            parameters = (Vector(query.vector), client_id(query.client), LIMIT)
            cursor = await connection.execute(b"EXPLAIN " + self._statement, parameters)
            text = "\n".join(row["QUERY PLAN"] for row in await cursor.fetchall())
        return "index" if "image_embeddings_hnsw" in text else "exact"


def database_systems(urls: dict[str, str], dimensions: int) -> list[System]:
    """Those that ask PostgreSQL, for the databases that are there."""
    systems: list[System] = []
    if url := urls.get(LEGACY):
        systems.append(
            Statement(
                "older",
                "the older system",
                "Its tables and its SQL, to the letter, with no index on vectors.",
                url=url,
                statement="legacy_search",
            )
        )
    if url := urls.get(FILTERED):
        systems.append(
            Statement(
                "older-hnsw",
                "... with an HNSW on all rows",
                "The same SQL, and an HNSW (`vector_ip_ops`, m 16, ef_construction 64) over all clients' vectors. "
                "Whether PostgreSQL uses it is PostgreSQL's choice; the column plan shows it.",
                url=url,
                statement="legacy_search",
            )
        )
        systems.append(
            Statement(
                "hnsw-filtered",
                "... and the client beside the vector",
                "What one is advised to do: the client's id in the table of vectors, with an index on it, the filter "
                "in an inner query without joins, `ef_search` 100 and iterative scan.",
                url=url,
                statement="filtered_search",
                settings="filtered_settings",
            )
        )
    if url := urls.get(OURS):
        systems.append(Twinlens(url, dimensions))
    return systems
