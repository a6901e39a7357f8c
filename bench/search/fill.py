"""The workload in databases: ours, the legacy system's, and that of one who follows the usual advice on filters."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import Connection, conninfo, sql
from psycopg.rows import TupleRow, dict_row

from bench.search.workload import Halves, Workload, unit
from server.catalogue.catalogue import Catalogue
from server.catalogue.rows import SpaceRow
from server.database.migrations import migrate
from server.database.pool import open_pool
from server.database.queries import Queries
from server.errors import DatabaseUnusable
from server.spaces.spaces import SpaceDescription, open_space

QUERIES = Queries.read(Path(__file__).parent / "queries.sql")

OURS, LEGACY, FILTERED = "twinlens_bench_ours", "twinlens_bench_older", "twinlens_bench_filtered"
"""The databases. Whatever has these names is ours to drop."""

_SPACE = hashlib.sha256(b"bench search").hexdigest()
_PRODUCT_MEDIA = 4
_BLOCK = 16_384
_HEADER, _TRAILER = b"PGCOPY\n\xff\r\n\0" + bytes(8), b"\xff\xff"
_BUILD_MEMORY = 4_000_000_000  # at most, for the plain HNSW; as much as ours may use


@dataclass
class Filled:
    """One database with the workload in it, and what that cost; seconds are kept only where it was filled now."""

    name: str
    url: str
    seconds: dict[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """With the tables and indexes that are on the disk, the largest first."""
        with psycopg.connect(self.url, row_factory=dict_row) as connection:
            indexes = connection.execute(QUERIES["list_indexes"]).fetchall()
            tables = connection.execute(QUERIES["list_tables"]).fetchall()
        return {
            "name": self.name,
            "seconds": {name: round(value, 1) for name, value in self.seconds.items()},
            "tables": tables,
            "vectorIndexes": indexes,
        }

    @contextlib.contextmanager
    def timed(self, what: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.seconds[what] = time.monotonic() - began
        print(f"{self.name}: {what}: {self.seconds[what]:.1f} s", file=sys.stderr, flush=True)


def media_id(row: int) -> str:
    return f"m{row:08d}"


def row_of(media: str) -> int:
    """The row that a media's id or key belongs to."""
    return int(media.rpartition("/")[2].removeprefix("m").removesuffix(".jpg"))


def client_id(client: int) -> str:
    return f"client-{client:06d}"


def fill(server: str, workload: Workload, name: str) -> Filled:
    """The database of that name at `server`, made and filled unless it holds the same workload already."""
    url = conninfo.make_conninfo(server, dbname=name)
    filled = Filled(name, url)
    with psycopg.connect(server, autocommit=True) as connection:
        if connection.execute("SELECT FROM pg_database WHERE datname = %s", (name,)).rowcount:
            with psycopg.connect(url, autocommit=True) as there:
                try:
                    stamp = there.execute(QUERIES["get_stamp"]).fetchone()
                except psycopg.errors.UndefinedTable:
                    stamp = None
            if stamp == (workload.stamp,):
                return filled
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    {OURS: _fill_ours, LEGACY: _fill_legacy, FILTERED: _fill_filtered}[name](filled, workload)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(QUERIES["make_stamp"])
        connection.execute(QUERIES["set_stamp"], {"stamp": workload.stamp})
        connection.execute("CHECKPOINT")
    return filled


def space(url: str, dimensions: int) -> SpaceRow:
    """The bench's embedding space in our database."""
    return open_space(url, SpaceDescription(_SPACE, dimensions, model="bench", manifest={}, artifact_path="bench"))


def _fill_ours(filled: Filled, workload: Workload) -> None:
    migrate(filled.url)
    row = space(filled.url, workload.dimensions)
    with _loading(filled.url) as connection:
        with filled.timed("products and media"):
            _copy_text(connection, 'products (id, "clientId", name, sku, "isActive")', _products(workload))
            columns = 'media (id, "productId", "clientId", "s3Key", width, height, "contentDigest")'
            _copy_text(connection, columns, _media(workload, ours=True))
        with filled.timed("vectors"):
            columns = f'{row.table} (space, "mediaId", "clientId", active, embedding)'
            write_vectors(connection, columns, workload, our_rows(workload.dimensions, row.number))
    _vacuum(filled, ("products", "media", row.table))

    async def maintain() -> None:
        async with open_pool(filled.url, min_size=1, max_size=1, timeout=10.0) as pool:
            await Catalogue(pool, row).maintain_indexes()

    with filled.timed("vector indexes"):
        asyncio.run(maintain())


def _fill_legacy(filled: Filled, workload: Workload, *, filtered: bool = False) -> None:
    columns = 'image_embeddings ("mediaId", "clientId", embedding)' if filtered else None
    with _loading(filled.url) as connection:
        schema = "filtered_schema" if filtered else "legacy_schema"
        connection.execute(QUERIES.composed(schema, dimensions=sql.Literal(workload.dimensions)))
        with filled.timed("products and media"):
            _copy_text(connection, 'products (id, "clientId", name, sku, "isActive")', _products(workload))
            _copy_text(connection, 'media (id, "productId", "s3Key", width, height)', _media(workload, ours=False))
        with filled.timed("vectors"):
            write_vectors(
                connection,
                columns or 'image_embeddings ("mediaId", embedding)',
                workload,
                _legacy_rows(workload.dimensions, filtered=filtered),
            )
    _vacuum(filled, ("products", "media", "image_embeddings"))


def _fill_filtered(filled: Filled, workload: Workload) -> None:
    _fill_legacy(filled, workload, filtered=True)
    need = workload.rows * (4 * workload.dimensions + 600)
    with psycopg.connect(filled.url, autocommit=True) as connection, filled.timed("vector indexes"):
        memory = max(64_000_000, min(need, _BUILD_MEMORY)) // 1000
        connection.execute(f"SET maintenance_work_mem = '{memory}kB'".encode())
        connection.execute("SET max_parallel_maintenance_workers = 1")
        for statement in QUERIES["filtered_indexes"].split(b";"):
            connection.execute(statement)


# --- loading ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _loading(url: str) -> Iterator[Connection[TupleRow]]:
    """A connection whose writes fire no triggers, where its user may do that: all rows are complete as they are."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        with contextlib.suppress(psycopg.errors.InsufficientPrivilege):
            connection.execute("SET session_replication_role = replica")
        yield connection


def _vacuum(filled: Filled, tables: tuple[str, ...]) -> None:
    with psycopg.connect(filled.url, autocommit=True) as connection, filled.timed("vacuum and analyze"):
        for table in tables:
            connection.execute(sql.SQL("VACUUM (ANALYZE) {}").format(sql.Identifier(table)))


def _copy_text(connection: Connection[TupleRow], columns: str, blocks: Iterator[str]) -> None:
    with connection.cursor().copy(f"COPY {columns} FROM STDIN".encode()) as copy:
        for block in blocks:
            copy.write(block)


def _products(workload: Workload) -> Iterator[str]:
    """Rows of one client that follow each other in its catalogue, four at a time, are pictures of one product."""
    for client, size in enumerate(workload.sizes):
        owner = client_id(client)
        yield "".join(
            f"{owner}-p{number}\t{owner}\tProduct {number}\t{owner}-sku{number}\tt\n"
            for number in range(-(-size // _PRODUCT_MEDIA))
        )


def _media(workload: Workload, *, ours: bool) -> Iterator[str]:
    counts = [0] * len(workload.sizes)
    for start in range(0, workload.rows, _BLOCK):
        lines = []
        for row, client in enumerate(workload.owner[start : start + _BLOCK].tolist(), start):
            owner, media = client_id(client), media_id(row)
            product = f"{owner}-p{counts[client] // _PRODUCT_MEDIA}"
            counts[client] += 1
            key = f"{owner}/{media}.jpg"
            if ours:
                digest = hashlib.sha256(media.encode()).hexdigest()
                lines.append(f"{media}\t{product}\t{owner}\t{key}\t640\t480\t\\\\x{digest}\n")
            else:
                lines.append(f"{media}\t{product}\t{key}\t640\t480\n")
        yield "".join(lines)


Rows = Callable[[int, NDArray[np.int32], Halves], bytes]


def write_vectors(connection: Connection[TupleRow], columns: str, workload: Workload, rows: Rows) -> None:
    """COPY every vector into these columns of a table, as `rows` lays them out."""
    with connection.cursor().copy(f"COPY {columns} FROM STDIN (FORMAT binary)".encode()) as copy:
        copy.write(_HEADER)
        for start in range(0, workload.rows, _BLOCK):
            block = slice(start, start + _BLOCK)
            copy.write(rows(start, workload.owner[block], workload.vectors[block]))
        copy.write(_TRAILER)


# COPY's binary format: of a row the number of its fields, of a field its length and its bytes, all big-endian. Ids have
# one length, so rows do, too, and numpy lays them out. Of a vector: its dimensions, two bytes of nothing, its numbers.


def our_rows(dimensions: int, number: int) -> Rows:
    """Rows of an embedding space's table."""
    layout = _layout(
        [("space", ">i4"), ("media", "S9"), ("client", "S13"), ("active", "u1")], ("vector", ">f2", dimensions)
    )

    def rows(start: int, owners: NDArray[np.int32], vectors: Halves) -> bytes:
        table = _table(layout, len(owners), dimensions)
        table["space"], table["active"], table["vector"] = number, 1, vectors
        table["media"] = [media_id(row).encode() for row in range(start, start + len(owners))]
        table["client"] = [client_id(client).encode() for client in owners.tolist()]
        return bytes(table.tobytes())

    return rows


def _legacy_rows(dimensions: int, *, filtered: bool) -> Rows:
    columns = [("media", "S9"), ("client", "S13")] if filtered else [("media", "S9")]
    layout = _layout(columns, ("vector", ">f4", dimensions))

    def rows(start: int, owners: NDArray[np.int32], vectors: Halves) -> bytes:
        table = _table(layout, len(owners), dimensions)
        # The same halves, at length 1 again: what it ranks by is the cosine, as the exact answer is.
        table["vector"] = unit(vectors.astype(np.float32))
        table["media"] = [media_id(row).encode() for row in range(start, start + len(owners))]
        if filtered:
            table["client"] = [client_id(client).encode() for client in owners.tolist()]
        return bytes(table.tobytes())

    return rows


def _layout(columns: list[tuple[str, str]], vector: tuple[str, str, int]) -> np.dtype[Any]:
    fields: list[Any] = [("fields", ">i2")]
    for name, kind in columns:
        fields += [(f"{name}_bytes", ">i4"), (name, kind)]
    name, kind, dimensions = vector
    fields += [(f"{name}_bytes", ">i4"), ("dimensions", ">i2"), ("unused", ">i2"), (name, kind, (dimensions,))]
    return np.dtype(fields)


def _table(layout: np.dtype[Any], count: int, dimensions: int) -> Any:
    table = np.zeros(count, layout)
    names = [name for name in layout.names or () if f"{name}_bytes" in (layout.names or ())]
    table["fields"], table["dimensions"] = len(names), dimensions
    for name in names:
        table[f"{name}_bytes"] = layout[name].itemsize + (4 if name == "vector" else 0)
    return table


@contextlib.contextmanager
def temporary_database(server: str, name: str) -> Iterator[str]:
    """The URL of an empty database of that name for as long as the block runs."""
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            yield conninfo.make_conninfo(server, dbname=name)
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def check(server: str) -> None:
    """Raises DatabaseUnusable, in a sentence, when nothing can be made at `server`."""
    try:
        with psycopg.connect(server, autocommit=True, connect_timeout=10) as connection:
            connection.execute("SELECT 1")
    except psycopg.Error as exc:
        raise DatabaseUnusable("The database server that was given cannot be reached.") from exc
