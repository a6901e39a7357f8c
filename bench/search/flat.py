"""One flat table, searched in one way over some connections: what `crossover` and `costs` are made of."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import psycopg
from pgvector import HalfVector
from pgvector.psycopg import register_vector_async
from psycopg import Connection, sql
from psycopg.rows import TupleRow

from bench.search.fill import QUERIES, client_id, our_rows, row_of, write_vectors
from bench.search.systems import Ask, Turn, closed_loop
from bench.search.workload import Query, Workload

DIMENSIONS = 512


@dataclass(frozen=True)
class Way:
    """`exact`, `index` with ef_search `first`, or `bits` with `first` of them ranked again."""

    kind: str
    first: int = 0

    def __str__(self) -> str:
        return {"exact": "exact", "index": f"HNSW, ef {self.first}", "bits": f"bits, {self.first}"}[self.kind]


@dataclass(frozen=True)
class Figures:
    """Medians of rounds."""

    p50: float
    p95: float
    rate: float
    recall: float
    short: int


def load(connection: Connection[TupleRow], workload: Workload) -> None:
    """The workload as one table, vacuumed."""
    run_all(connection, "flat_schema")
    write_vectors(
        connection, 'flat (space, "mediaId", "clientId", active, embedding)', workload, our_rows(DIMENSIONS, 1)
    )
    connection.execute("VACUUM (ANALYZE) flat")


def run_all(connection: Connection[TupleRow], name: str) -> None:
    """The statements of that name, one by one."""
    for statement in QUERIES[name].split(b";"):
        connection.execute(statement)


def build(connection: Connection[TupleRow], client: int, name: str = "flat_hnsw") -> None:
    """An HNSW of the client's own, with as much memory and as many processes as the server's indexes take."""
    parts = {"name": sql.Identifier(name), "client": sql.Literal(client_id(client))}
    connection.execute(QUERIES.composed("flat_index", **parts))


def measure(
    url: str,
    workload: Workload,
    queries: Sequence[Query],
    ways: Sequence[Way],
    connections: int,
    seconds: float,
    rounds: int = 2,
) -> dict[Way, Figures]:
    """Every way in turn, round by round."""
    turns: dict[Way, list[Turn]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way in ways:
            turns[way].append(asyncio.run(_turn(url, queries, way, connections, seconds / rounds)))
    return {way: _figures(workload, queries, measured) for way, measured in turns.items()}


def _figures(workload: Workload, queries: Sequence[Query], turns: Sequence[Turn]) -> Figures:
    answers = {number: rows for turn in turns for number, rows in turn.answers}
    judged = [workload.judge(queries[number], rows) for number, rows in answers.items()]
    p50, p95 = (median(float(np.percentile(turn.milliseconds, share)) for turn in turns) for share in (50, 95))
    rate = median(len(turn.milliseconds) / turn.seconds for turn in turns)
    return Figures(p50, p95, rate, float(np.mean([one for one, _ in judged])), sum(short for _, short in judged))


async def _turn(url: str, queries: Sequence[Query], way: Way, connections: int, seconds: float) -> Turn:
    async with _asking(url, way, connections) as asks:
        await asyncio.gather(*(ask(queries[0]) for ask in asks))
        return await closed_loop(asks, queries, seconds, 20)


@contextlib.asynccontextmanager
async def _asking(url: str, way: Way, connections: int) -> AsyncIterator[list[Ask]]:
    statement = QUERIES[f"{way.kind}_search"]

    def asks(connection: psycopg.AsyncConnection[TupleRow]) -> Ask:
        async def ask(query: Query) -> list[int]:
            parameters = {"client": client_id(query.client), "vector": HalfVector(query.vector), "first": way.first}
            cursor = await connection.execute(statement, parameters)
            return [row_of(row[0]) for row in await cursor.fetchall()]

        return ask

    async with contextlib.AsyncExitStack() as stack:
        opened = []
        for _ in range(connections):
            connection = await stack.enter_async_context(await psycopg.AsyncConnection.connect(url, autocommit=True))
            await register_vector_async(connection)
            await connection.execute(QUERIES[f"{way.kind}_settings"], {"first": way.first})
            opened.append(asks(connection))
        yield opened
