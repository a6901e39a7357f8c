"""What row-level security costs a search: the same queries with and without it, in turn on the same database.

Each connection asks every query twice, once as the role that serves and once as the owner, whom no policy holds; which
of the two is first changes each time. So whatever else the machine does slows both alike.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np
import psycopg

from bench.search import fill
from bench.search.fill import QUERIES, client_id
from bench.search.workload import LIMIT, Workload
from bench.search.workload import Query as Asked
from server.catalogue.catalogue import Catalogue
from server.catalogue.filters import Condition, Filter
from server.catalogue.rows import Match, Query, SpaceRow
from server.database.isolation import arrange
from server.database.migrations import migrate
from server.database.pool import open_pool
from server.errors import DatabaseUnusable

FILTERS: dict[str, Filter | None] = {
    "all": None,
    "1 of 100 products": Filter(attributes={"hundredth": 7}),
    "1 of 10 products": Filter(attributes={"tenth": 7}),
    "half of the products": Filter(attributes={"price": Condition(lt=50)}),
    "products by id": Filter(product_ids=()),  # those of the client, put in for each query
}
MOST_RATIO, MOST_RATIO_FILTERED = 1.05, 1.2

_PRODUCTS_NAMED = 10
_WARM_UP = 8


@dataclass(frozen=True)
class Figures:
    """Milliseconds of the same queries, without row-level security and with it; `plan`: how they were answered."""

    off: list[float]
    on: list[float]
    plan: str

    def at(self, share: int) -> tuple[float, float]:
        """The two at a percentile."""
        return float(np.percentile(self.off, share)), float(np.percentile(self.on, share))


def run(server: str, workload: Workload, queries: int, connections: Sequence[int], seconds: float) -> str:
    """Fill the database, unless it is there, and give the table. Raises DatabaseUnusable, RuntimeError.

    `seconds`: of each line.
    """
    filled = fill.fill(server, workload, fill.OURS)
    migrate(filled.url)  # one that was kept may be of an older version
    space = fill.space(filled.url, workload.dimensions)
    with psycopg.connect(filled.url, autocommit=True) as connection:
        if connection.execute(QUERIES["add_attributes"]).rowcount:
            connection.execute("VACUUM (ANALYZE) products")
    role = arrange(filled.url).role
    if role is None:
        raise DatabaseUnusable("No role may be made on this server, so there is no row-level security to measure.")
    lines = [
        "| media | searched | connections | plan | queries | p50 without | with | ratio | p95 without | with | ratio |",
        "| ---: | --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    worst = {True: 0.0, False: 0.0}
    for size in workload.classes:
        asked = workload.queries(size, queries)
        for name, narrowed in FILTERS.items():
            for number in connections:
                found = asyncio.run(_measure(filled.url, space, role, asked, narrowed, number, seconds))
                (off, on), (off95, on95) = found.at(50), found.at(95)
                plain = narrowed is None
                worst[plain] = max(worst[plain], on / off)
                lines.append(
                    f"| {size:,} | {name} | {number} | {found.plan} | {len(found.on):,} | {off:.2f} | {on:.2f} | "
                    f"{on / off:.3f} | {off95:.2f} | {on95:.2f} | {on95 / off95:.3f} |"
                )
                print(lines[-1], file=sys.stderr, flush=True)
    lines += [
        "",
        f"At p50, at most {worst[True]:.3f} times as long (the aim: {MOST_RATIO}), and {worst[False]:.3f} times with a "
        f"filter ({MOST_RATIO_FILTERED}).",
    ]
    return "\n".join(lines)


async def _measure(
    url: str,
    space: SpaceRow,
    role: str,
    queries: Sequence[Asked],
    narrowed: Filter | None,
    connections: int,
    seconds: float,
) -> Figures:
    async with _catalogue(url, space, None, connections) as off, _catalogue(url, space, role, connections) as on:
        both = (off, on)
        figures = Figures([], [], (await off.search(_query(queries[0], narrowed))).plan)
        times = (figures.off, figures.on)
        for number in range(_WARM_UP):
            for catalogue in both:
                await catalogue.search(_query(queries[number % len(queries)], narrowed))
        until = perf_counter() + seconds

        async def work(number: int) -> None:
            while perf_counter() < until:
                query = _query(queries[number % len(queries)], narrowed)
                answers: list[list[Match]] = [[], []]
                for which in (0, 1) if number % 2 else (1, 0):
                    began = perf_counter()
                    answers[which] = (await both[which].search(query)).matches
                    times[which].append((perf_counter() - began) * 1000)
                if answers[0] != answers[1]:
                    raise RuntimeError(f"The answers differ for a query of {query.client_id}.")
                number += connections

        await asyncio.gather(*(work(number) for number in range(connections)))
    return figures


def _query(asked: Asked, narrowed: Filter | None) -> Query:
    client = client_id(asked.client)
    if narrowed is None:
        narrowed = Filter()
    elif narrowed.product_ids is not None:
        narrowed = Filter(product_ids=tuple(f"{client}-p{number}" for number in range(_PRODUCTS_NAMED)))
    return Query(client, asked.vector, limit=LIMIT, filter=narrowed)


@contextlib.asynccontextmanager
async def _catalogue(url: str, space: SpaceRow, role: str | None, connections: int) -> AsyncIterator[Catalogue]:
    async with open_pool(
        url, min_size=connections, max_size=connections, timeout=30.0, longest=600.0, role=role
    ) as pool:
        await pool.wait(30.0)
        yield Catalogue(pool, space)
