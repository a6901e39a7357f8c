"""What it costs to have more than the nearest pictures: each kind of search beside the plain one, in turn.

Each connection asks every query twice, once plainly and once with the feature; which of the two is first changes each
time. So whatever else the machine does slows both alike. What the answers should have been, an exact search says.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter

import numpy as np
import psycopg

from bench.search import fill
from bench.search.fill import QUERIES, client_id
from bench.search.workload import LIMIT, Workload
from bench.search.workload import Query as Asked
from server.catalogue.boosts import Boost
from server.catalogue.catalogue import Catalogue
from server.catalogue.composing import composed
from server.catalogue.facets import Asked as Counted
from server.catalogue.facets import Facet
from server.catalogue.filters import Filter
from server.catalogue.indexes import mean_recall
from server.catalogue.rows import Found, Query, SpaceRow
from server.database.migrations import migrate
from server.database.pool import open_pool

MOST_RATIO, LEAST_RECALL = 1.5, 0.99
"""The aims: p95 beside that of the plain search of the same class, and recall."""

_WARM_UP = 8
_TENTH = Filter(attributes={"tenth": 7})
_COUNTED = Counted([Facet(attribute="hundredth"), Facet(attribute="price", stats=True)])

Ask = Callable[[Catalogue, Query], Awaitable[Found]]


async def _plain(catalogue: Catalogue, query: Query) -> Found:
    return await catalogue.search(query)


async def _grouped(catalogue: Catalogue, query: Query) -> Found:
    return await catalogue.search(replace(query, grouped=True))


async def _capped(catalogue: Catalogue, query: Query) -> Found:
    return await catalogue.search(replace(query, max_per_product=2))


async def _second_page(catalogue: Catalogue, query: Query) -> Found:
    """`query` names where the first page ended."""
    return await catalogue.search(query)


async def _filtered(catalogue: Catalogue, query: Query) -> Found:
    return await catalogue.search(replace(query, filter=_TENTH))


async def _filtered_with_facets(catalogue: Catalogue, query: Query) -> Found:
    """Counted beside the search, as the server does."""
    narrowed = replace(query, filter=_TENTH)
    found, _ = await asyncio.gather(catalogue.search(narrowed), catalogue.count(narrowed, _COUNTED))
    return found


async def _grouped_and_filtered(catalogue: Catalogue, query: Query) -> Found:
    return await catalogue.search(replace(query, filter=_TENTH, grouped=True))


async def _diverse(catalogue: Catalogue, query: Query) -> Found:
    return await catalogue.search(replace(query, distinct=0.95))


async def _boosted(catalogue: Catalogue, query: Query) -> Found:
    return await catalogue.search(replace(query, boosts=(Boost(attribute="tenth", equals=7, weight=0.02),)))


FEATURES: dict[str, Ask] = {
    "grouped": _grouped,
    "2 a product": _capped,
    "second page": _second_page,
    "composed": _plain,
    "1 of 10 products": _filtered,
    "with facets, 1 of 10": _filtered_with_facets,
    "grouped, 1 of 10": _grouped_and_filtered,
    "distinct": _diverse,
    "boosted": _boosted,
}


@dataclass
class Figures:
    """Milliseconds of the same queries, plain and with the feature; and how good the answers were."""

    plain: list[float] = field(default_factory=list)
    with_it: list[float] = field(default_factory=list)
    recalls: list[float] = field(default_factory=list)
    short: int = 0
    by_index: int = 0

    def at(self, share: int) -> tuple[float, float]:
        """The two at a percentile."""
        return float(np.percentile(self.plain, share)), float(np.percentile(self.with_it, share))


def run(
    server: str,
    workload: Workload,
    queries: int,
    connections: Sequence[int],
    seconds: float,
    classes: Sequence[int] | None = None,
) -> str:
    """Fill the database, unless it is there, and give the table. `seconds`: of each line. `classes`: of clients, all
    that there are unless given."""
    filled = fill.fill(server, workload, fill.OURS)
    migrate(filled.url)  # one that was kept may be of an older version
    space = fill.space(filled.url, workload.dimensions)
    with psycopg.connect(filled.url, autocommit=True) as connection:
        if connection.execute(QUERIES["add_attributes"]).rowcount:
            connection.execute("VACUUM (ANALYZE) products")
    lines = [
        "| media | searched | connections | by index | queries | recall@24 | short | p50 plain | with | ratio | "
        "p95 plain | with | ratio |",
        "| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    missed = []
    for size in [one for one in workload.classes if classes is None or one in classes]:
        asked = workload.queries(size, queries)
        for name in FEATURES:
            for number in connections:
                found = asyncio.run(_measure(filled.url, space, name, asked, number, seconds))
                (plain, it), (plain95, it95) = found.at(50), found.at(95)
                recall, ratio = float(np.mean(found.recalls)), it95 / plain95
                lines.append(
                    f"| {size:,} | {name} | {number} | {found.by_index} of {len(found.recalls)} | "
                    f"{len(found.with_it):,} | {recall:.4f} | {found.short} | {plain:.2f} | {it:.2f} | "
                    f"{it / plain:.2f} | {plain95:.2f} | {it95:.2f} | {ratio:.2f} |"
                )
                print(lines[-1], file=sys.stderr, flush=True)
                if ratio > MOST_RATIO or recall < LEAST_RECALL or found.short:
                    missed.append(f"{name} of {size:,} media at {number}")
    lines += [
        "",
        f"The aims are {MOST_RATIO} times the plain p95, a recall of {LEAST_RECALL} and no short answer. "
        + (f"Missed: {', '.join(missed)}." if missed else "All are met."),
    ]
    return "\n".join(lines)


async def _measure(
    url: str, space: SpaceRow, name: str, asked: Sequence[Asked], connections: int, seconds: float
) -> Figures:
    figures = Figures()
    ask = FEATURES[name]
    async with _catalogue(url, space, connections) as catalogue:
        plain = [_query(one) for one in asked]
        with_it = [await _with(catalogue, name, number, plain) for number in range(len(plain))]
        for number in range(_WARM_UP):
            await catalogue.search(plain[number % len(plain)])
            await ask(catalogue, with_it[number % len(plain)])
        until = perf_counter() + seconds

        async def work(number: int) -> None:
            while perf_counter() < until:
                which = number % len(plain)
                for feature in (True, False) if number % 2 else (False, True):
                    began = perf_counter()
                    if feature:
                        await ask(catalogue, with_it[which])
                    else:
                        await catalogue.search(plain[which])
                    (figures.with_it if feature else figures.plain).append((perf_counter() - began) * 1000)
                number += connections

        await asyncio.gather(*(work(number) for number in range(connections)))
        found = [await ask(catalogue, query) for query in with_it]
        figures.by_index = sum(one.plan == "index" for one in found)
        # Without an index to go through, all searches are exact.
        catalogue.searcher.know_no_indexes()
        for one, query in zip(found, with_it, strict=True):
            exact = (await ask(catalogue, query)).matches
            rankings = [[match.ranking for match in matches] for matches in (exact, one.matches)]
            figures.recalls.append(mean_recall(rankings[:1], rankings[1:]))
            figures.short += len(one.matches) < len(exact)
    return figures


def _query(asked: Asked) -> Query:
    # With a digest, as a search by picture has one: the file itself is looked for, too.
    digest = hashlib.sha256(asked.vector.tobytes()).digest()
    return Query(client_id(asked.client), asked.vector, limit=LIMIT, digest=digest)


async def _with(catalogue: Catalogue, name: str, number: int, plain: Sequence[Query]) -> Query:
    """The query that is asked with the feature, where it is another one."""
    query = plain[number]
    if name == "second page":
        first = await catalogue.search(query)
        return query if first.end is None else replace(query, after=first.end, depth=len(first.matches))
    if name == "composed":
        # With another query of the same client, where there is one.
        other = next((one for one in plain if one.client_id == query.client_id and one is not query), query)
        vectors = [np.asarray(one.vector, np.float32) for one in (query, other)]
        return replace(query, vector=composed(vectors, [1.0, 0.5]), digest=None)
    return query


@contextlib.asynccontextmanager
async def _catalogue(url: str, space: SpaceRow, connections: int) -> AsyncIterator[Catalogue]:
    async with open_pool(url, min_size=connections, max_size=connections, timeout=30.0, longest=600.0) as pool:
        await pool.wait(30.0)
        yield Catalogue(pool, space)
