"""From how many media on is a client's own index quicker than an exact scan? The planner's threshold is from this.

For clients of 1,000 to 50,000 media, whose rows lie together on disk or between those of others: the exact scan, an
HNSW of the client's own at three efforts, and what may lie between: the signs of the components in a narrow table, the
nearest by those, and these ranked again by their vectors.
"""

from __future__ import annotations

import sys
from pathlib import Path

import psycopg

from bench.search import flat
from bench.search.fill import temporary_database
from bench.search.flat import Way
from bench.search.workload import Workload

SIZES = (1_000, 2_000, 3_000, 4_000, 5_000, 8_000, 12_000, 20_000, 50_000)
CONNECTIONS = (1, 8)
WAYS = (Way("exact"), Way("bits", 400), Way("bits", 1_000))
INDEXED = (Way("index", 100), Way("index", 200), Way("index", 400))

_QUERIES = 64


def run(url: str, folder: Path, rows: int, seed: int, seconds: float) -> str:
    """The table, for those of the sizes that `rows` has room for."""
    sizes = [size for size in SIZES if 4 * size <= rows] or [max(50, rows // 4)]
    head = "| media | their rows lie | connections | how | p50 | p95 | searches/s | recall@24 |"
    lines = [head, "| ---: | --- | ---: | --- | ---: | ---: | ---: | ---: |"]
    for lie, upload in (("together", 10**9), ("mixed", 1)):
        given = (*sizes, sum(sizes))  # the last is the others
        workload = Workload(sum(given), flat.DIMENSIONS, seed, folder, given, upload)
        workload.make()
        with (
            temporary_database(url, "twinlens_bench_crossover") as database,
            psycopg.connect(database, autocommit=True) as connection,
        ):
            flat.load(connection, workload)
            flat.run_all(connection, "bits_schema")
            connection.execute("ANALYZE bits")
            connection.execute("SET maintenance_work_mem = '512MB'")
            for client, size in enumerate(sizes):
                queries = workload.queries(size, _QUERIES)
                for ways in (WAYS, INDEXED):
                    if ways is INDEXED:
                        flat.build(connection, client)
                    for connections in CONNECTIONS:
                        found = flat.measure(database, workload, queries, ways, connections, seconds)
                        for way, one in found.items():
                            figures = f"{one.p50:.1f} | {one.p95:.1f} | {one.rate:.0f} | {one.recall:.4f}"
                            lines.append(f"| {size:,} | {lie} | {connections} | {way} | {figures} |")
                            print(lines[-1], file=sys.stderr, flush=True)
                connection.execute("DROP INDEX flat_hnsw")
        workload.path.unlink()
    return "\n".join(lines)
