"""The HNSW indexes of large clients: one partial index each, built and dropped as they grow and shrink.

A vector index that many clients share scans first and filters after: what is near but belongs to others crowds out what
was asked for. So a client with many active vectors gets an index over its own and nobody else's, and every other client
is searched exactly. How far an index must look (`ef_search`) for the recall that was asked for is measured on the index
itself, once it is built and again when it has grown.
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
from psycopg.rows import TupleRow, class_row

from server.catalogue.rows import SpaceRow
from server.database.locks import LOCK_INDEXES, LOCKS
from server.database.queries import Queries

_log = logging.getLogger(__name__)

INDEX_THRESHOLD = 4_000
"""Active media of a client from which it gets an index: docs/decisions/0021-a-planner-of-our-own.md."""

EFFORTS = (80, 100, 150, 200, 300, 400, 600, 800, 1000)  # for ef_search; the last is pgvector's limit
MOST_EF_SEARCH = EFFORTS[-1]

_AT = 24  # recall is measured at what a search gives when it is not told how much
_QUERIES = 64  # one that misses much, among so many, does not raise the effort of all
_BLUR = 0.3  # of a stored vector's length is added in a random direction, so that a query is no copy of what it finds
_GROWTH = 1.5  # by which an index may grow before it is measured again

# What the graph takes while it is built: measured at 1.4 kB for a vector of 512 dimensions with m = 16, of which the
# vector itself is 1 kB. What does not fit goes to the disk half-way, and takes several times as long.
_BYTES_BESIDE_A_VECTOR = 600
_MOST_BUILD_MEMORY = 4_000_000_000
_LEAST_BUILD_MEMORY = 64_000_000

_TELL_EVERY = 10.0  # seconds


@dataclass(frozen=True)
class Index:
    """An HNSW index of one client's own, as the database has it. What was not measured yet is None."""

    name: str
    valid: bool
    client_id: str | None
    vectors: int | None
    ef_search: int | None
    recall: float | None


@dataclass(frozen=True)
class Maintained:
    """What tending did: the clients that got an index, and the indexes that went; or that another process was at it."""

    built: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    busy: bool = False


class Indexes:
    """The indexes of one space. `recall`: the mean recall@24 that a search through an index must reach, below 1."""

    def __init__(self, space: SpaceRow, recall: float = 0.99) -> None:
        self._space = space
        # Half of what may be missed is kept back for queries that are harder than those it is measured with.
        self._target = (1 + recall) / 2
        self._queries = Queries.read("indexes.sql").of(space.table)
        self._tended_at: int | None = None

    def name_of(self, client_id: str) -> str:
        # A client's id can be longer than a name in PostgreSQL may be.
        return self._prefix + hashlib.sha256(client_id.encode("utf-8", "surrogatepass")).hexdigest()[:24]

    @property
    def _prefix(self) -> str:
        return f"{self._space.table}_hnsw_"

    async def listed(self, connection: AsyncConnection[TupleRow]) -> list[Index]:
        """The indexes that are there, whole or not."""
        cursor = connection.cursor(row_factory=class_row(Index))
        await cursor.execute(self._queries["list_indexes"], {"table": self._space.table})
        return [index for index in await cursor.fetchall() if index.name.startswith(self._prefix)]

    async def set_effort(self, connection: AsyncConnection[TupleRow], ef_search: int) -> None:
        """Send the next index search of this transaction through the index, and so far: `ef_search`, 1 to 1000."""
        await connection.execute(self._queries["set_search_effort"], {"ef_search": ef_search})

    async def tend(self, url: str, threshold: int, *, thorough: bool = True) -> Maintained:
        """Give each client with at least `threshold` active media an index; drop those no longer needed.

        An index goes when its client has less than half the threshold. Those that an interrupted build left behind are
        dropped and built anew. Takes connections of its own, minutes at worst, and stops neither searches nor writes.
        Does nothing while another process is at it and, unless it is to be `thorough`, while little has been written
        since the last time: counting the clients' vectors reads an index of them all. Raises psycopg's errors.
        """
        async with await AsyncConnection.connect(url, autocommit=True, connect_timeout=10) as connection:
            # A build takes what it takes, whatever limit the role or the database has for statements.
            await connection.execute("SET statement_timeout = 0")
            locks = (LOCKS, LOCK_INDEXES)
            locked = await (await connection.execute("SELECT pg_try_advisory_lock(%s, %s)", locks)).fetchone()
            if locked is None or not locked[0]:
                return Maintained(busy=True)
            await connection.execute("SET plan_cache_mode = force_custom_plan")
            changes = await self._stock(connection)
            last, self._tended_at = self._tended_at, None
            if not thorough and last is not None and abs(changes - last) < threshold // 10:
                self._tended_at = last
                return Maintained()
            tended = await self._tend(connection, url, threshold)
            self._tended_at = changes
            return tended

    async def _stock(self, connection: AsyncConnection[TupleRow]) -> int:
        """How much was ever written; and let PostgreSQL count again where much is new, since it plans badly until then.

        It does so by itself, but a minute late.
        """
        cursor = await connection.execute(self._queries["count_changes"], {"table": self._space.table})
        written, new, rows = await cursor.fetchone() or (0, 0, 0)
        if new > 200 + rows // 10:
            await connection.execute(self._queries["analyse"])
        return int(written)

    async def _tend(self, connection: AsyncConnection[TupleRow], url: str, threshold: int) -> Maintained:
        await register_vector_async(connection)
        least = {"least": max(1, threshold // 2)}
        rows = await (await connection.execute(self._queries["list_large_clients"], least)).fetchall()
        clients: dict[str, int] = dict(rows)
        kept = {self.name_of(client) for client in clients}
        present: dict[str, Index] = {}
        dropped: list[str] = []
        for index in await self.listed(connection):
            if index.valid and index.name in kept:
                present[index.name] = index
                continue
            await connection.execute(self._queries.composed("drop_index", index=sql.Identifier(index.name)))
            await connection.execute(self._queries["forget_index"], {"name": index.name})
            dropped.append(index.name)
            _log.info("dropped the index %s", index.name)
        await connection.execute(self._queries["forget_indexes"], {"space": self._space.number, "names": list(present)})
        built: list[str] = []
        for client, count in clients.items():
            known = present.get(self.name_of(client))
            if known is None and count >= threshold:
                await self._build(connection, url, client, count)
                built.append(client)
            elif known is not None and self._is_outdated(known, count):
                await self._measure(connection, client, count)
        return Maintained(tuple(built), tuple(dropped))

    def _is_outdated(self, index: Index, count: int) -> bool:
        """Whether the index's `ef_search` was measured on far fewer vectors, for a lower target, or never."""
        if index.vectors is None or index.ef_search is None or index.recall is None:
            return True
        return count > _GROWTH * index.vectors or (index.recall < self._target and index.ef_search < MOST_EF_SEARCH)

    # --- building ----------------------------------------------------------------------------------------------------

    async def _build(self, connection: AsyncConnection[TupleRow], url: str, client: str, count: int) -> None:
        name = self.name_of(client)
        create = self._queries.composed("create_index", index=sql.Identifier(name), client=sql.Literal(client))
        need = count * (2 * self._space.dimensions + _BYTES_BESIDE_A_VECTOR)
        memory = min(max(need, _LEAST_BUILD_MEMORY), _MOST_BUILD_MEMORY)
        await connection.execute(self._queries["raise_memory"], {"kilobytes": memory // 1000})
        await connection.execute(self._queries["set_builders"], {"count": max(1, (os.cpu_count() or 1) - 1)})
        began = time.monotonic()
        _log.info("building the index %s over %s vectors of the client %s", name, f"{count:,}", client)
        try:
            async with self._told(url, connection.info.backend_pid, name, count):
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
        await self._measure(connection, client, count)

    @contextlib.asynccontextmanager
    async def _told(self, url: str, pid: int, name: str, count: int) -> AsyncIterator[None]:
        """While the block builds an index on the connection of the backend `pid`, tell how far it is."""
        task = asyncio.create_task(self._tell(url, pid, name, count))
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _tell(self, url: str, pid: int, name: str, count: int) -> None:
        began = time.monotonic()
        try:
            while True:
                await asyncio.sleep(_TELL_EVERY)
                async with await AsyncConnection.connect(url, autocommit=True, connect_timeout=10) as connection:
                    cursor = await connection.execute(self._queries["progress"], {"pid": pid})
                    row = await cursor.fetchone()
                if row is None:
                    continue
                phase, vectors, done, of = row
                # pgvector counts the vectors of its first pass; what validates the index counts blocks.
                share = vectors / count if vectors else done / of if of else 0.0
                spent = time.monotonic() - began
                left = f", about {spent / share - spent:.0f} s left" if "loading" in phase and 0 < share < 1 else ""
                _log.info("building the index %s: %s, %.0f %%%s", name, phase, min(100.0, 100 * share), left)
        except psycopg.Error as exc:
            _log.warning("how far the index %s is cannot be told: %s", name, exc)

    # --- measuring ---------------------------------------------------------------------------------------------------

    async def _measure(self, connection: AsyncConnection[TupleRow], client: str, count: int) -> None:
        """Find the least `ef_search` with which the client's index finds what an exact search finds."""
        queries = await self._drawn(connection, client)
        about = {"client_id": client, "limit": _AT}
        exact = [await self._products(connection, "nearest_exactly", {**about, "embedding": one}) for one in queries]
        ef_search, recall = MOST_EF_SEARCH, 0.0
        for ef_search in EFFORTS:
            async with connection.transaction():
                await self.set_effort(connection, ef_search)
                found = [
                    await self._products(connection, "nearest_by_index", {**about, "embedding": one}) for one in queries
                ]
            recall = mean_recall(exact, found)
            if recall >= self._target:
                break
        else:
            _log.warning(
                "the index of the client %s finds, at the most effort, %.3f of what an exact search does",
                client,
                recall,
            )
        name = self.name_of(client)
        await connection.execute(
            self._queries["note_index"],
            {
                "name": name,
                "space": self._space.number,
                "client_id": client,
                "vectors": count,
                "ef_search": ef_search,
                "recall": recall,
            },
        )
        _log.info("the index %s has recall@%d %.4f at ef_search %d", name, _AT, recall, ef_search)

    async def _drawn(self, connection: AsyncConnection[TupleRow], client: str) -> list[HalfVector]:
        """Queries like a customer's photographs: near what is there, and never the same."""
        parameters = {"client_id": client, "count": _QUERIES}
        rows = await (await connection.execute(self._queries["sample"], parameters)).fetchall()
        return [blurred(stored, seed) for seed, (stored,) in enumerate(rows)]

    async def _products(
        self, connection: AsyncConnection[TupleRow], name: str, parameters: Mapping[str, Any]
    ) -> list[float]:
        return [product for (product,) in await (await connection.execute(self._queries[name], parameters)).fetchall()]


def blurred(stored: HalfVector, seed: int) -> HalfVector:
    """A unit vector at a cosine of about 0.96 to a stored one: what a customer's photograph of the thing may give."""
    vector = stored.to_numpy().astype(np.float64)
    noise = np.random.default_rng(seed).standard_normal(len(vector))
    vector += _BLUR * noise / np.linalg.norm(noise)
    return HalfVector((vector / np.linalg.norm(vector)).astype(np.float16))


def mean_recall(exact: list[list[float]], found: list[list[float]]) -> float:
    """The mean share of the true neighbours that were found; both as inner products with the query, best first.

    Whatever is as near as the last true neighbour counts as one, since which of several equals comes is chance.
    """
    shares = []
    for true, given in zip(exact, found, strict=True):
        if true:
            shares.append(min(1.0, sum(product >= true[-1] - 1e-6 for product in given) / len(true)))
    return float(np.mean(shares)) if shares else 1.0
