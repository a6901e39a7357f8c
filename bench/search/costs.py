"""What indexes cost: time, disk and memory to build them, dead rows, and many of them on one table.

The section "What an index costs" of docs/operations.md is from it.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from statistics import median

import psycopg
from psycopg import Connection
from psycopg.rows import TupleRow

from bench.search import flat
from bench.search.fill import QUERIES, client_id, temporary_database
from bench.search.flat import Way
from bench.search.workload import Workload

SIZES = (10_000, 50_000, 100_000, 200_000)
MEMORY = (64, 512, 2048)  # MB
MANY = (0, 10, 100, 300)  # indexes on one table
EFFORT = Way("index", 200)

_QUERIES = 64
_DELETED = 5  # every fifth row


def run(url: str, folder: Path, rows: int, seed: int, seconds: float) -> str:
    """The tables, for those of the sizes that `rows` has room for."""
    with (
        temporary_database(url, "twinlens_bench_costs") as database,
        psycopg.connect(database, autocommit=True) as connection,
    ):
        parts = [
            _builds(connection, [size for size in SIZES if size <= rows] or [rows], folder, seed),
            _dead(connection, database, min(50_000, rows), folder, seed, seconds),
            _many(connection, rows, folder, seed),
        ]
    return "\n\n".join(parts)


def _builds(connection: Connection[TupleRow], sizes: list[int], folder: Path, seed: int) -> str:
    lines = ["| vectors | table, bytes each | HNSW, bytes each | memory | builders | seconds | vectors/s |"]
    lines.append("| ---: " * 7 + "|")
    for size in sizes:
        _load(connection, (size,), folder, seed)
        table = _one(connection, "SELECT pg_table_size('flat')") / size
        for megabytes in MEMORY:
            for workers in (0, 1):
                if (megabytes < MEMORY[-1] and workers) or (size == sizes[-1] and megabytes == MEMORY[0]):
                    continue
                connection.execute(f"SET maintenance_work_mem = '{megabytes}MB'".encode())
                connection.execute(f"SET max_parallel_maintenance_workers = {workers}".encode())
                began = time.monotonic()
                flat.build(connection, 0)
                took = time.monotonic() - began
                index = _one(connection, "SELECT pg_relation_size('flat_hnsw')") / size
                lines.append(
                    f"| {size:,} | {table:,.0f} | {index:,.0f} | {megabytes:,} MB | {1 + workers} | {took:.1f} | "
                    f"{size / took:,.0f} |"
                )
                print(lines[-1], file=sys.stderr, flush=True)
                connection.execute("DROP INDEX flat_hnsw")
    return "\n".join(lines)


def _dead(connection: Connection[TupleRow], url: str, size: int, folder: Path, seed: int, seconds: float) -> str:
    """A fifth of an indexed client is deleted: before, after, after the vacuum, and after a reindex."""
    workload = _load(connection, (size,), folder, seed, keep=True)
    connection.execute("ALTER TABLE flat SET (autovacuum_enabled = false)")
    connection.execute("SET maintenance_work_mem = '512MB'")
    flat.build(connection, 0)
    queries = workload.queries(size, _QUERIES)
    lines = ["| | recall@24 | short | p50 | p95 | index |", "| --- | ---: | ---: | ---: | ---: | ---: |"]

    def add_row(what: str) -> None:
        one = flat.measure(url, workload, queries, [EFFORT], 1, seconds)[EFFORT]
        bytes_ = _one(connection, "SELECT pg_relation_size('flat_hnsw')") / 1e6
        figures = f"{one.recall:.4f} | {one.short} | {one.p50:.2f} | {one.p95:.2f} | {bytes_:.1f} MB"
        lines.append(f"| {what} | {figures} |")
        print(lines[-1], file=sys.stderr, flush=True)

    add_row("as built")
    connection.execute(QUERIES["delete_some"], {"client": client_id(0), "every": _DELETED})
    queries = workload.queries(size, _QUERIES, without=range(0, workload.rows, _DELETED))
    add_row("a fifth deleted")
    began = time.monotonic()
    connection.execute("VACUUM flat")
    add_row(f"vacuumed ({time.monotonic() - began:.1f} s)")
    began = time.monotonic()
    connection.execute("REINDEX INDEX CONCURRENTLY flat_hnsw")
    add_row(f"reindexed ({time.monotonic() - began:.1f} s)")
    workload.path.unlink()
    return "\n".join(lines)


def _many(connection: Connection[TupleRow], rows: int, folder: Path, seed: int) -> str:
    """Planning, and adding a row, with many partial indexes on one table."""
    clients = MANY[-1]
    each = max(10, min(100, rows // clients))
    _load(connection, (each,) * clients, folder, seed)
    lines = ["| indexes on the table | planning a search | adding a row |", "| ---: | ---: | ---: |"]
    there = 0
    for count in MANY:
        for client in range(there, count):
            flat.build(connection, client, f"flat_hnsw_{client}")
        there = count
        planning = median(_planning(connection) for _ in range(50))
        adding = median(_adding(connection, number) for number in range(50))
        lines.append(f"| {count} | {planning:.2f} ms | {adding:.2f} ms |")
        print(lines[-1], file=sys.stderr, flush=True)
    return "\n".join(lines)


def _planning(connection: Connection[TupleRow]) -> float:
    statement = QUERIES["plan_search"]
    row = connection.execute(statement, {"client": client_id(0)}).fetchone()
    return float(row[0][0]["Planning Time"]) if row else 0.0


def _adding(connection: Connection[TupleRow], number: int) -> float:
    began = time.perf_counter()
    connection.execute(QUERIES["add_row"], {"client": client_id(0), "media": f"added{number}"})
    took = (time.perf_counter() - began) * 1000
    connection.execute(QUERIES["remove_row"], {"media": f"added{number}"})
    return took


def _load(
    connection: Connection[TupleRow], given: tuple[int, ...], folder: Path, seed: int, *, keep: bool = False
) -> Workload:
    workload = Workload(sum(given), flat.DIMENSIONS, seed, folder, given)
    workload.make()
    flat.load(connection, workload)
    if not keep:
        workload.path.unlink()
    return workload


def _one(connection: Connection[TupleRow], statement: str) -> float:
    row = connection.execute(statement.encode()).fetchone()
    return float(row[0]) if row else 0.0
