"""python -m bench.ids: whether the time of a PUT tells that another client has the id.

Products are put one at a time under ids that nobody has and under ids that another client has, in an order drawn at
random, in one run on one connection of the role that serves, under row-level security, on an embedded PostgreSQL: first
the statement alone, in one transaction, where no disk hides it, then through the catalogue, as a request does it.

Besides the medians it prints how often a PUT of a taken id takes longer than one of a free id (0.5: they cannot be told
apart), and how far that lies from chance, in standard deviations of the Mann-Whitney test: beyond 3 is no chance. Two
halves of the free ones are compared in the same way, as what chance looks like.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import random
import sys
import tempfile
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter

import numpy as np
import psycopg
from psycopg.types.json import Jsonb

from server.catalogue.catalogue import Catalogue
from server.catalogue.ids import id_elsewhere
from server.catalogue.rows import SpaceRow
from server.database.isolation import SERVING_ROLE, arrange
from server.database.migrations import migrate
from server.database.pool import open_pool
from server.database.queries import Queries
from server.postgres.server import EmbeddedPostgres
from server.spaces.spaces import SpaceDescription, open_space

# Scattered ids, so that free ones and taken ones lie in the same places of the indexes.
_FILL = """
INSERT INTO products (id, "clientId", name)
SELECT md5('taken-' || n), 'client-' || n % 50, 'Product ' || n FROM generate_series(1, %s) n
"""

Times = dict[bool, list[float]]
"""Milliseconds of each PUT, by whether another client has the id."""

_WARM = 200  # by then everything is prepared


def _asked(first: int, puts: int) -> list[tuple[bool, str]]:
    """Ids that are taken and ids that are not, in an order drawn at random."""
    numbers = range(first, first + puts)
    asked = [
        (taken, hashlib.md5(f"{'taken' if taken else 'free'}-{n}".encode(), usedforsecurity=False).hexdigest())
        for n in numbers
        for taken in (False, True)
    ]
    random.Random(first).shuffle(asked)  # noqa: S311 - the order of a measurement
    return asked


async def _requests(catalogue: Catalogue, asked: list[tuple[bool, str]]) -> Times:
    times: Times = {False: [], True: []}
    for number, (taken, product_id) in enumerate(asked):
        started = perf_counter()
        _, created = await catalogue.put_product("curious", product_id, name="Product")
        if not created:
            raise RuntimeError("a product was there already")
        if number >= _WARM:
            times[taken].append((perf_counter() - started) * 1000)
    return times


async def _catalogue(url: str, space: SpaceRow, asked: list[tuple[bool, str]]) -> Times:
    async with open_pool(url, min_size=1, max_size=1, timeout=30, role=SERVING_ROLE) as pool:
        return await _requests(Catalogue(pool, space), asked)


def _statement(url: str, asked: list[tuple[bool, str]]) -> Times:
    queries = Queries.read("queries.sql").including("product_api_id").including("product_columns")
    times: Times = {False: [], True: []}
    parameters = {"client_id": "curious", "name": "Product", "sku": None, "is_active": True, "attributes": Jsonb({})}
    parameters |= {"versions": None, "present": False, "absent": False}
    with psycopg.connect(url, prepare_threshold=0) as connection:
        connection.execute(f"SET ROLE {SERVING_ROLE}".encode())
        connection.execute("SELECT set_config('twinlens.client', 'curious', false)")
        for number, (taken, product_id) in enumerate(asked):
            row = {**parameters, "id": product_id, "elsewhere": id_elsewhere("curious", product_id)}
            started = perf_counter()
            connection.execute(queries["put_product"], row)
            if number >= _WARM:
                times[taken].append((perf_counter() - started) * 1000)
        connection.rollback()
    return times


def _print(what: str, times: Times) -> None:
    print(f"{what:<24}     p25      p50      p75  ms")
    for taken, words in ((False, "an id that nobody has"), (True, "one of another client")):
        low, _, high = quantiles(times[taken], n=4)
        print(f"  {words:<22}{low:8.3f} {median(times[taken]):8.3f} {high:8.3f}")
    free = times[False]
    for words, one, other in (
        ("taken longer than free", times[True], free),
        ("free longer than free", free[::2], free[1::2]),
    ):
        share, deviations = _longer(one, other)
        print(f"  {words}: {share:.3f} of the pairs, {deviations:+.1f} standard deviations from chance")


def _longer(one: list[float], other: list[float]) -> tuple[float, float]:
    """How often a time of `one` is longer than one of `other`; and how far from 0.5, in standard deviations."""
    ranks = np.argsort(np.argsort(np.concatenate([one, other]))) + 1
    n, m = len(one), len(other)
    u = ranks[:n].sum() - n * (n + 1) / 2
    return float(u / (n * m)), float((u - n * m / 2) / (n * m * (n + m + 1) / 12) ** 0.5)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.ids", description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000, help="products of other clients (default: 100,000)")
    parser.add_argument("--puts", type=int, default=3_000, help="of each kind (default: 3,000)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        postgres = EmbeddedPostgres(Path(folder))
        try:
            url = postgres.start()
            migrate(url)
            space = open_space(url, SpaceDescription("a" * 64, 16, "bench", {}, "none"))
            arrange(url)
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute(_FILL.replace("%s", str(given.rows)).encode())
                connection.execute("VACUUM ANALYZE products")
            _print("The statement alone", _statement(url, _asked(1, given.puts)))
            _print("Through the catalogue", asyncio.run(_catalogue(url, space, _asked(given.puts + 1, given.puts))))
        finally:
            postgres.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
