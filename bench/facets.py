"""python -m bench facets: how long counts beside a search take for a large client.

An embedded PostgreSQL is filled with one client, two media a product, with attributes of few and of many values. Each
line is counted as the role that serves, under row-level security, several times; it gives the median in milliseconds,
and in how many media. An exact search for the same vector stands beside them.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import NamedTuple

import numpy as np
import psycopg

from bench import machine
from server.catalogue.catalogue import Catalogue
from server.catalogue.facets import Asked, Facet, Range
from server.catalogue.filters import AttributeType, Filter
from server.catalogue.rows import Query, SpaceRow
from server.database.isolation import SERVING_ROLE, arrange
from server.database.migrations import migrate
from server.database.pool import open_pool
from server.database.queries import Queries
from server.postgres.server import EmbeddedPostgres
from server.spaces.spaces import SpaceDescription, open_space

CLIENT = "large"
DECLARED: dict[str, AttributeType] = {"weight": "number", "added": "date"}
FIVE = ("category", "brand", "price", "colour", "new")
TEN = (*FIVE, "material", "audience", "size", "weight", "added")


def _facets(*names: str) -> list[Facet]:
    return [Facet(attribute=name) for name in names]


def _ranges(name: str, step: int) -> list[Facet]:
    return [Facet(attribute=name, ranges=tuple(Range(gte=n * step, lt=(n + 1) * step) for n in range(10)), stats=True)]


ONE_CATEGORY = Filter.of({"attributes": {"category": "category 3"}})
HALF_OF_THE_PRICES = Filter.of({"attributes": {"price": {"lt": 250}}})


class Line(NamedTuple):
    """What is counted, and among what."""

    name: str
    asked: Asked
    among: Filter = Filter()
    grouped: bool = False


LINES = (
    Line("the total alone", Asked([])),
    Line("one attribute", Asked(_facets("category"))),
    Line("five attributes", Asked(_facets(*FIVE))),
    Line("ten attributes", Asked(_facets(*TEN))),
    Line("five attributes, by product", Asked(_facets(*FIVE)), grouped=True),
    Line("ten ranges, with stats", Asked(_ranges("price", 50))),
    Line("ten ranges of numbers as texts, with stats", Asked(_ranges("weight", 10))),
    Line("five attributes, filter: one category", Asked(_facets(*FIVE)), ONE_CATEGORY),
    Line("five attributes, filter: half of the prices", Asked(_facets(*FIVE)), HALF_OF_THE_PRICES),
    Line("one attribute, over matches", Asked(_facets("category"), "matches")),
    Line("five attributes, over matches", Asked(_facets(*FIVE), "matches")),
)


def fill(url: str, media: int, dimensions: int) -> SpaceRow:
    """Migrate and fill the database; its space."""
    migrate(url)
    arrange(url)
    space = open_space(url, SpaceDescription("f" * 64, dimensions, "bench", {"space": "f" * 64}, "none"))
    queries = Queries.read(Path(__file__).with_suffix(".sql")).of(space.table)
    asked = {"products": media // 2, "dimensions": dimensions, "space": space.number}
    with psycopg.connect(url, autocommit=True) as connection:
        for name in ("products", "media", "directions", "vectors"):
            connection.execute(queries[name], asked)
        connection.execute("VACUUM (ANALYZE)")
    return space


async def measure(url: str, space: SpaceRow, times: int) -> list[str]:
    """The lines of the table."""
    vector = np.random.default_rng(0).standard_normal(space.dimensions).astype(np.float32)
    vector /= np.linalg.norm(vector)
    lines = ["| counted | media | ms |", "| --- | ---: | ---: |"]

    async def line(name: str, work: Callable[[], Awaitable[int]]) -> None:
        took = []
        for _ in range(times + 1):  # the first one reads what is not in memory yet
            began = perf_counter()
            total = await work()
            took.append((perf_counter() - began) * 1000)
        lines.append(f"| {name} | {total:,} | {median(took[1:]):,.0f} |")
        print(lines[-1], file=sys.stderr, flush=True)

    async with open_pool(url, min_size=1, max_size=2, timeout=30, longest=600, role=SERVING_ROLE) as pool:
        catalogue = Catalogue(pool, space)
        await catalogue.declarations.declare(CLIENT, DECLARED)
        for one in LINES:
            query = Query(CLIENT, vector, min_similarity=51.5, filter=one.among, grouped=one.grouped)

            async def count(query: Query = query, asked: Asked = one.asked) -> int:
                return (await catalogue.count(query, asked)).total

            await line(one.name, count)

        async def search() -> int:
            return len((await catalogue.search(Query(CLIENT, vector))).matches)

        await line("an exact search", search)
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench facets", description=(__doc__ or "").partition("\n\n")[2])
    parser.add_argument("--media", type=int, default=500_000, metavar="N", help="of the client (default: 500,000)")
    parser.add_argument("--dimensions", type=int, default=512, metavar="D", help="of each vector (default: 512)")
    parser.add_argument("--times", type=int, default=5, metavar="N", help="that each is counted (default: 5)")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        postgres = EmbeddedPostgres(Path(folder), extra_settings=["fsync=off"])
        try:
            url = postgres.start()
            space = fill(url, given.media, given.dimensions)
            lines = asyncio.run(measure(url, space, given.times))
        finally:
            postgres.close()
    print("\n".join([*lines, "", machine.sentence()]))
    return 0
