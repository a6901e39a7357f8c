"""A client as a whole: what it has, and how all of that is removed.

Keys go first, so that nothing more is written; then rows, some hundreds in a transaction, and their bytes after them;
then what else is kept. Killed at any moment, it is begun again and goes on: whatever was not reached is found anew, the
rows by the client's name, and bytes whose rows are gone by the folder that the store has for the client.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar

from psycopg import AsyncConnection, sql
from psycopg.rows import TupleRow, args_row, class_row, scalar_row

from server.access.audit import columns, of_operator
from server.access.clients import ID_PATTERN
from server.catalogue.indexes import index_name
from server.catalogue.rows import table_of
from server.database.advisory import held_if_free
from server.database.connections import Direct, connection_of_its_own
from server.database.failures import translated
from server.database.locks import LOCK_INDEXES, LOCKS
from server.database.pool import Pool
from server.database.queries import Queries
from server.database.runner import Runner, Work
from server.errors import BytesRemain, CatalogueBusy, SweepRefused
from server.ingest.backups import backup_runs
from server.ingest.mark import Standing
from server.ingest.storage import MediaStore
from server.ingest.sweep import Found, Sweep

T = TypeVar("T")

ROWS_AT_ONCE = 500

# Whether a row of somebody else's names an object takes a look at all rows, so many objects are asked for together.
_KEYS_AT_ONCE = 20_000
_DELETED_AT_ONCE = 200
_BUSY_TRIES = 30
_BUSY_PAUSE_SECONDS = 1.0
# An object is the client's however young it is, also where the store's clock is ahead of ours.
_HOWEVER_YOUNG = timedelta(days=-1)


@dataclass(frozen=True, slots=True)
class ClientSize:
    """What a client has."""

    client_id: str
    products: int
    media: int
    bytes: int
    """Of its pictures, as its rows say."""
    keys: int
    """Those that are good."""
    vectors: int = 0
    """In all spaces together."""


@dataclass
class Removed:
    """What was removed of a client."""

    keys: int = 0
    products: int = 0
    media: int = 0
    objects: int = 0
    """Pictures and thumbnails in the store."""
    remaining: list[str] = field(default_factory=list)
    """Why bytes may be left in the store; nothing where none are."""

    @property
    def anything(self) -> bool:
        return bool(self.keys or self.products or self.media or self.objects)


async def sizes(pool: Pool) -> list[ClientSize]:
    """The clients that have anything, by name. Raises CatalogueUnavailable's kinds."""
    queries = Queries.read("clients.sql")
    with translated():
        async with pool.connection() as connection:
            cursor = connection.cursor(row_factory=class_row(ClientSize))
            found = await (await cursor.execute(queries["clients"])).fetchall()
            vectors: dict[str, int] = {}
            for number in await _spaces(connection):
                pairs = connection.cursor(row_factory=args_row(lambda name, count: (str(name), int(count))))
                await pairs.execute(queries.of(table_of(number))["vectors"])
                for client_id, count in await pairs.fetchall():
                    vectors[client_id] = vectors.get(client_id, 0) + count
    return [
        ClientSize(one.client_id, one.products, one.media, one.bytes, one.keys, vectors.get(one.client_id, 0))
        for one in found
    ]


class ClientRemoval:
    """Removes clients. Every method may raise CatalogueUnavailable's kinds."""

    def __init__(self, pool: Pool, store: MediaStore, standing: Standing, direct: Direct) -> None:
        """`pool`: of the tables' owner, with time enough for statements that read all rows."""
        self._pool = pool
        self._runner = Runner(pool)
        self._store = store
        self._standing = standing
        self._direct = direct
        self._queries = Queries.read("clients.sql")
        self._store_queries = Queries.read("store.sql")

    async def count(self, client_id: str) -> int:
        """How many media the client has."""
        return sum(await self._runner.fetch(self._queries["count"], {"client_id": client_id}, scalar_row))

    async def remove(self, client_id: str, *, on_removed: Callable[[int], None] = lambda _: None) -> Removed:
        """Remove all that there is of a client but for its audit. `on_removed` is told how many more media are gone."""
        removed = Removed(keys=await self._close(client_id))
        keys: list[str] = []
        while (done := await self._remove_some(client_id, keys)) != (0, 0):
            removed.media += done[0]
            removed.products += done[1]
            on_removed(done[0])
            if len(keys) >= _KEYS_AT_ONCE:
                removed.objects += await self._let_go(keys, removed)
        removed.objects += await self._let_go(keys, removed)
        await self._forget(client_id)
        await self._drop_indexes(client_id)
        if self._standing.own:
            removed.objects += await self._sweep(client_id, removed)
        else:
            removed.remaining.append(
                "The store was marked by a database that this one is a copy of, so all bytes stay in it."
            )
        return removed

    async def _close(self, client_id: str) -> int:
        """Refuse the client's keys; how many there were. The audit has it in the same transaction."""

        async def close(connection: AsyncConnection[TupleRow]) -> int:
            async with connection.transaction():
                cursor = connection.cursor(row_factory=scalar_row)
                await cursor.execute(self._queries["close"], {"client_id": client_id})
                keys = int(await cursor.fetchone() or 0)
                entry = of_operator("clients delete", client_id=client_id, object=client_id)
                await connection.execute(Queries.read("audit.sql")["add"], columns([entry]))
            return keys

        return await self._write(close)

    async def _remove_some(self, client_id: str, keys: list[str]) -> tuple[int, int]:
        """Some media, and some products that have none any more; how many of each. `keys` gets those of their bytes."""
        asked = {"client_id": client_id, "most": ROWS_AT_ONCE}

        async def media(connection: AsyncConnection[TupleRow]) -> list[TupleRow]:
            return await (await connection.execute(self._queries["delete_media"], asked)).fetchall()

        async def products(connection: AsyncConnection[TupleRow]) -> int:
            return (await connection.execute(self._queries["delete_products"], asked)).rowcount

        gone = await self._write(media)
        keys += [key for row in gone for key in row if key is not None]
        return len(gone), await self._write(products)

    async def _let_go(self, keys: list[str], removed: Removed) -> int:
        """Delete the objects of these keys that no other row names; how many. The list is empty then."""
        some, keys[:] = list(keys), []
        if not some or not self._standing.own or await backup_runs(self._pool):
            return 0  # what the store has of the client is looked for in the end
        named = set(await self._runner.fetch(self._store_queries["named"], {"keys": some}, scalar_row))
        free = [key for key in some if key not in named]
        deleted = 0
        for start in range(0, len(free), _DELETED_AT_ONCE):
            batch = free[start : start + _DELETED_AT_ONCE]
            try:
                await self._store.delete(*batch)
                deleted += len(batch)
            except BytesRemain as exc:
                deleted += len(batch) - len(exc.keys)
                if not removed.remaining:
                    removed.remaining.append(exc.line)
        return deleted

    async def _sweep(self, client_id: str, removed: Removed) -> int:
        """What the store still has in the client's folders, and no row names; how many objects."""
        if not re.fullmatch(ID_PATTERN, client_id):
            return 0  # servers have never stored anything for it
        sweep, deleted = Sweep(self._pool, self._store, self._standing, older_than=_HOWEVER_YOUNG), 0
        try:
            async for orphans in sweep.orphans(Found(), client_id=client_id):
                deleted += await sweep.remove(orphans)
        except SweepRefused as exc:
            removed.remaining.append(exc.sentence)
        except BytesRemain as exc:
            removed.remaining.append(exc.line)
        return deleted

    async def _forget(self, client_id: str) -> None:
        async def forget(connection: AsyncConnection[TupleRow]) -> None:
            await connection.execute(self._queries["forget"], {"client_id": client_id})

        await self._write(forget)

    async def _drop_indexes(self, client_id: str) -> None:
        """Drop the client's own indexes, unless a server is at the indexes just now: it drops those of small clients.

        Nor behind a pooler of transactions, where none can be dropped like that.
        """
        with translated():
            async with held_if_free(self._direct.url, (LOCKS, LOCK_INDEXES), pooling=self._direct.pooling) as free:
                if not free:
                    return
                async with connection_of_its_own(self._direct.url, pooling=self._direct.pooling) as connection:
                    if connection.per_transaction is not None:
                        return
                    for number in await _spaces(connection):
                        index = sql.Identifier(index_name(number, client_id))
                        await connection.execute(self._queries.composed("drop_index", index=index))
                    await connection.execute(self._queries["forget_indexes"], {"client_id": client_id})

    async def _write(self, work: Work[T]) -> T:
        """Run work that writes; where others hold a row of it, again after a while."""
        for _ in range(_BUSY_TRIES):
            try:
                return await self._runner.write(work)
            except CatalogueBusy:
                await asyncio.sleep(_BUSY_PAUSE_SECONDS)
        return await self._runner.write(work)


async def _spaces(connection: AsyncConnection[TupleRow]) -> list[int]:
    cursor = connection.cursor(row_factory=scalar_row)
    return await (await cursor.execute(Queries.read("clients.sql")["spaces"])).fetchall()
