"""The HNSW indexes of large clients: one partial index each, built and dropped as a client grows and shrinks.

A vector index that many clients share scans first and filters after: near vectors of other clients crowd out those that
were asked for. So a client with many active vectors gets an index over its own vectors alone, and every other client is
searched exactly. How much of an index a search must visit (`ef_search`) for the recall that was asked for is measured
on the index itself, when it was built and again when it has grown.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg
from pgvector import HalfVector
from pgvector.psycopg import register_vector_async
from psycopg import AsyncConnection, sql
from psycopg.rows import TupleRow, class_row, scalar_row

from server.catalogue.rows import DEFAULT_LIMIT, SpaceRow, table_of
from server.database.connections import Direct, connection_of_its_own
from server.database.locks import LOCK_INDEXES, LOCKS
from server.database.queries import Queries
from server.database.session import setting
from server.errors import SessionNeeded
from server.wording import counted

_log = logging.getLogger(__name__)

INDEX_THRESHOLD = 4_000
"""Active media of a client from which it gets an index: docs/decisions/0021-a-planner-of-our-own.md."""

EFFORTS = (80, 100, 150, 200, 300, 400, 600, 800, 1000)  # for ef_search; the last is pgvector's limit
MOST_EF_SEARCH = EFFORTS[-1]

_QUERIES = 64  # among so many, one that misses much does not raise the effort of all
_BLUR = 0.3  # of a stored vector's length is added in a random direction, so that a query is no copy of what it finds
_GROWTH = 1.5  # by which an index may grow before it is measured again

# The memory of the graph while it is built: measured at 1.4 kB for a vector of 512 dimensions with m = 16, of which the
# vector itself is 1 kB. A graph that does not fit goes to the disk half-way, and the build takes several times as long.
_BYTES_BESIDE_A_VECTOR = 600
_MOST_BUILD_MEMORY = 4_000_000_000
_LEAST_BUILD_MEMORY = 64_000_000

_REPORT_EVERY = 10.0  # seconds


@dataclass(frozen=True)
class Index:
    """An HNSW index of one client's own, as the database has it; None where it was not measured yet."""

    name: str
    valid: bool
    """Whether it is complete."""
    client_id: str | None
    vectors: int | None
    ef_search: int | None
    recall: float | None


@dataclass(frozen=True)
class Maintained:
    """What a round of maintenance did."""

    built: tuple[str, ...] = ()
    """The clients that got an index."""
    dropped: tuple[str, ...] = ()
    """The names of the indexes that were dropped."""
    busy: bool = False
    """Whether nothing was done, since another process was maintaining the indexes."""


@dataclass(frozen=True, slots=True)
class _LargeClient:
    client_id: str
    vectors: int


@dataclass(frozen=True, slots=True)
class _Changes:
    written: int
    since_analysed: int
    rows: int


@dataclass(frozen=True, slots=True)
class _Build:
    """How far PostgreSQL is with building an index."""

    phase: str
    vectors: int
    blocks: int
    of_blocks: int

    def share(self, count: int) -> float:
        """From 0 to 1, for an index over `count` vectors."""
        # pgvector counts the vectors of its first pass; the pass that validates the index counts blocks.
        if self.vectors:
            return self.vectors / count
        return self.blocks / self.of_blocks if self.of_blocks else 0.0


def effort(ef_search: int) -> dict[str, str]:
    """The settings of a search through an index, whatever the statistics make the planner believe.

    With this `ef_search`, 1 to 1000, and continued beyond that while rows are missing.
    """
    return {"enable_sort": "off", "hnsw.ef_search": str(ef_search), "hnsw.iterative_scan": "relaxed_order"}


def index_name(space: int, client_id: str) -> str:
    """The name of a client's own index in the space with this number."""
    # A client's id can be longer than a name in PostgreSQL may be.
    return _prefix(space) + hashlib.sha256(client_id.encode("utf-8", "surrogatepass")).hexdigest()[:24]


def _prefix(space: int) -> str:
    return f"{table_of(space)}_hnsw_"


class Indexes:
    """The indexes of one space. `recall`: the mean recall@24 that a search through an index must reach, below 1."""

    def __init__(self, space: SpaceRow, recall: float = 0.99) -> None:
        self._space = space
        # Half of the allowance for misses is kept for queries that are harder than those of the measurement.
        self._target = (1 + recall) / 2
        self._queries = Queries.read("indexes.sql").of(space.table)
        self._maintained_at: int | None = None

    def name_of(self, client_id: str) -> str:
        return index_name(self._space.number, client_id)

    @property
    def _prefix(self) -> str:
        return _prefix(self._space.number)

    async def listed(self, connection: AsyncConnection[TupleRow]) -> list[Index]:
        """The indexes that exist, complete or not."""
        cursor = connection.cursor(row_factory=class_row(Index))
        await cursor.execute(self._queries["list_indexes"], {"table": self._space.table})
        return [index for index in await cursor.fetchall() if index.name.startswith(self._prefix)]

    async def maintain(self, direct: Direct, threshold: int, *, thorough: bool = True) -> Maintained:
        """Give each client with at least `threshold` active media an index; drop those no longer needed.

        An index is dropped when its client has less than half the threshold. Indexes that an interrupted build left
        behind are dropped and built again. Maintenance opens connections of its own, lasts minutes at worst, and blocks
        neither searches nor writes. It does nothing while another process maintains the indexes. Unless it is to be
        `thorough`, it also does nothing while little was written since the last time, since counting the clients'
        vectors reads an index of them all. Raises psycopg's errors, and SessionNeeded behind a pooler of transactions.
        """
        async with connection_of_its_own(direct.url, pooling=direct.pooling) as connection:
            if connection.per_transaction is not None:  # CREATE INDEX CONCURRENTLY is no part of a transaction
                raise SessionNeeded("To build an index takes")
            cursor = connection.cursor(row_factory=scalar_row)
            await cursor.execute("SELECT pg_try_advisory_lock(%s, %s)", (LOCKS, LOCK_INDEXES))
            if not await cursor.fetchone():
                return Maintained(busy=True)
            written = await self._count_changes(connection)
            last, self._maintained_at = self._maintained_at, None
            if not thorough and last is not None and abs(written - last) < threshold // 10:
                self._maintained_at = last
                return Maintained()
            done = await self._maintain(connection, direct, threshold)
            self._maintained_at = written
            return done

    async def _count_changes(self, connection: AsyncConnection[TupleRow]) -> int:
        """How many rows were ever written. Has PostgreSQL analyse the tables where many are new.

        PostgreSQL plans badly until it has. By itself it does so about a minute later.
        """
        cursor = connection.cursor(row_factory=class_row(_Changes))
        await cursor.execute(self._queries["count_changes"], {"table": self._space.table})
        changes = await cursor.fetchone() or _Changes(0, 0, 0)
        if changes.since_analysed > 200 + changes.rows // 10:
            await connection.execute(self._queries["analyse"])
        return changes.written

    async def _maintain(self, connection: AsyncConnection[TupleRow], direct: Direct, threshold: int) -> Maintained:
        await register_vector_async(connection)
        cursor = connection.cursor(row_factory=class_row(_LargeClient))
        await cursor.execute(self._queries["list_large_clients"], {"least": max(1, threshold // 2)})
        clients = await cursor.fetchall()
        wanted = {self.name_of(client.client_id) for client in clients}
        present: dict[str, Index] = {}
        dropped: list[str] = []
        for index in await self.listed(connection):
            if index.valid and index.name in wanted:
                present[index.name] = index
                continue
            await connection.execute(self._queries.composed("drop_index", index=sql.Identifier(index.name)))
            await connection.execute(self._queries["forget_index"], {"name": index.name})
            dropped.append(index.name)
            _log.info("dropped the index %s", index.name)
        await connection.execute(self._queries["forget_indexes"], {"space": self._space.number, "names": list(present)})
        built: list[str] = []
        for client in clients:
            known = present.get(self.name_of(client.client_id))
            if known is None and client.vectors >= threshold:
                await self._build(connection, direct, client)
                built.append(client.client_id)
            elif known is not None and self._is_outdated(known, client.vectors):
                await self._measure(connection, client)
        return Maintained(tuple(built), tuple(dropped))

    def _is_outdated(self, index: Index, count: int) -> bool:
        """Whether the index's `ef_search` was measured on far fewer vectors, for a lower target, or never."""
        if index.vectors is None or index.ef_search is None or index.recall is None:
            return True
        return count > _GROWTH * index.vectors or (index.recall < self._target and index.ef_search < MOST_EF_SEARCH)

    # --- building ----------------------------------------------------------------------------------------------------

    async def _build(self, connection: AsyncConnection[TupleRow], direct: Direct, client: _LargeClient) -> None:
        name = self.name_of(client.client_id)
        create = self._queries.composed(
            "create_index", index=sql.Identifier(name), client=sql.Literal(client.client_id)
        )
        need = client.vectors * (2 * self._space.dimensions + _BYTES_BESIDE_A_VECTOR)
        memory = min(max(need, _LEAST_BUILD_MEMORY), _MOST_BUILD_MEMORY)
        await connection.execute(self._queries["raise_memory"], {"kilobytes": memory // 1000})
        await connection.execute(self._queries["set_builders"], {"count": max(1, (os.cpu_count() or 1) - 1)})
        began = time.monotonic()
        _log.info(
            "building the index %s over %s of the client %s", name, counted(client.vectors, "vector"), client.client_id
        )
        pid = await (await connection.cursor(row_factory=scalar_row).execute("SELECT pg_backend_pid()")).fetchone()
        try:
            async with self._reporting(direct, pid, name, client.vectors):
                try:
                    await connection.execute(create)
                except (psycopg.errors.DiskFull, psycopg.errors.OutOfMemory) as exc:
                    # Several builders share the memory through /dev/shm, of which a container has 64 MB by default.
                    _log.warning("the index %s is built by one process only: %s", name, exc)
                    await connection.execute(self._queries.composed("drop_index", index=sql.Identifier(name)))
                    await connection.execute(self._queries["set_builders"], {"count": 0})
                    await connection.execute(create)
        finally:
            with contextlib.suppress(psycopg.Error):
                await connection.execute("RESET maintenance_work_mem")
                await connection.execute("RESET max_parallel_maintenance_workers")
        _log.info("built the index %s in %.1f s", name, time.monotonic() - began)
        await self._measure(connection, client)

    @contextlib.asynccontextmanager
    async def _reporting(self, direct: Direct, pid: int | None, name: str, count: int) -> AsyncIterator[None]:
        """Log how far the index is, while the block builds it on the connection of the backend `pid`."""
        task = asyncio.create_task(self._report(direct, pid, name, count))
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _report(self, direct: Direct, pid: int | None, name: str, count: int) -> None:
        began = time.monotonic()
        try:
            while True:
                await asyncio.sleep(_REPORT_EVERY)
                async with connection_of_its_own(direct.url, pooling=direct.pooling) as connection:
                    cursor = connection.cursor(row_factory=class_row(_Build))
                    build = await (await cursor.execute(self._queries["progress"], {"pid": pid})).fetchone()
                if build is None:
                    continue
                share = build.share(count)
                spent = time.monotonic() - began
                loading = "loading" in build.phase and 0 < share < 1
                left = f", about {spent / share - spent:.0f} s left" if loading else ""
                percent = min(100.0, 100 * share)
                _log.info("building the index %s: %s, %.0f %%%s", name, build.phase, percent, left)
        except psycopg.Error as exc:
            _log.warning("the progress of building the index %s is unknown: %s", name, exc)

    # --- measuring ---------------------------------------------------------------------------------------------------

    async def _measure(self, connection: AsyncConnection[TupleRow], client: _LargeClient) -> None:
        """Find the least `ef_search` with which the client's index finds what an exact search finds."""
        queries = await self._drawn(connection, client.client_id)
        about = {"client_id": client.client_id, "limit": DEFAULT_LIMIT}
        exact = [await self._products(connection, "nearest_exactly", {**about, "embedding": one}) for one in queries]
        ef_search, recall = MOST_EF_SEARCH, 0.0
        for ef_search in EFFORTS:
            async with connection.transaction():
                await connection.execute(*setting(effort(ef_search)))
                found = [
                    await self._products(connection, "nearest_by_index", {**about, "embedding": one}) for one in queries
                ]
            recall = mean_recall(exact, found)
            if recall >= self._target:
                break
        else:
            _log.warning(
                "the index of the client %s finds, at the most effort, %.3f of what an exact search does",
                client.client_id,
                recall,
            )
        name = self.name_of(client.client_id)
        await connection.execute(
            self._queries["note_index"],
            {
                "name": name,
                "space": self._space.number,
                "client_id": client.client_id,
                "vectors": client.vectors,
                "ef_search": ef_search,
                "recall": recall,
            },
        )
        _log.info("the index %s has recall@%d %.4f at ef_search %d", name, DEFAULT_LIMIT, recall, ef_search)

    async def _drawn(self, connection: AsyncConnection[TupleRow], client_id: str) -> list[HalfVector]:
        """Queries like a customer's photographs: near stored vectors, and never equal to one."""
        cursor = connection.cursor(row_factory=scalar_row)
        await cursor.execute(self._queries["sample"], {"client_id": client_id, "count": _QUERIES})
        return [blurred(stored, seed) for seed, stored in enumerate(await cursor.fetchall())]

    async def _products(
        self, connection: AsyncConnection[TupleRow], name: str, parameters: Mapping[str, Any]
    ) -> list[float]:
        """Inner products with the query, best first."""
        cursor = connection.cursor(row_factory=scalar_row)
        return await (await cursor.execute(self._queries[name], parameters)).fetchall()


def blurred(stored: HalfVector, seed: int) -> HalfVector:
    """A unit vector at a cosine of about 0.96 to a stored one: what a customer's photograph of the thing may give."""
    vector = stored.to_numpy().astype(np.float64)
    noise = np.random.default_rng(seed).standard_normal(len(vector))
    vector += _BLUR * noise / np.linalg.norm(noise)
    return HalfVector((vector / np.linalg.norm(vector)).astype(np.float16))


def mean_recall(exact: list[list[float]], found: list[list[float]]) -> float:
    """The mean share of the true neighbours that were found; both as inner products with the query, best first.

    Whatever is as near as the last true neighbour counts as one, since it is chance which of several equals comes.
    """
    shares = []
    for true, given in zip(exact, found, strict=True):
        if true:
            shares.append(min(1.0, sum(product >= true[-1] - 1e-6 for product in given) / len(true)))
    return float(np.mean(shares)) if shares else 1.0
