"""The database beside the server: as the older application writes to it, and as an operator looks into it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg.rows import TupleRow

from bench.crash.model import Product, State
from bench.crash.operations import PRODUCTS, SLOTS, Operation, product_id, product_of
from bench.crash.talk import BROKEN, NOT_SENT
from bench.crash.world import World

_CONNECT_SECONDS = 3
_STATEMENT_SECONDS = 5.0

_SWITCH = """
UPDATE products SET "isActive" = %(active)s WHERE "clientId" = %(client)s AND coalesce("apiId", id) = %(id)s
"""
_PRODUCTS = """
SELECT coalesce("apiId", id), name, "isActive", attributes FROM products WHERE "clientId" = %(client)s
"""
_MEDIA = """
SELECT coalesce(p."apiId", p.id), coalesce(m."apiId", m.id), m."contentDigest"
FROM media m JOIN products p ON p.id = m."productId" WHERE m."clientId" = %(client)s
"""


class Connection:
    """A connection of its own, made again where it broke."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._open: psycopg.AsyncConnection[TupleRow] | None = None

    async def _ready(self) -> psycopg.AsyncConnection[TupleRow]:
        if self._open is None or self._open.closed:
            milliseconds = round(_STATEMENT_SECONDS * 1000)
            async with asyncio.timeout(_CONNECT_SECONDS + 1):
                self._open = await psycopg.AsyncConnection.connect(
                    self._url,
                    autocommit=True,
                    connect_timeout=_CONNECT_SECONDS,
                    options=f"-c statement_timeout={milliseconds} -c lock_timeout={milliseconds}",
                )
        return self._open

    async def switch(self, operation: Operation) -> str:
        """Set whether a product is active, as the older application does; what became of it, as a label."""
        parameters = {"active": operation.active, "client": operation.client, "id": product_id(operation.product)}
        try:
            connection = await self._ready()
        except (psycopg.Error, OSError):
            return NOT_SENT
        try:
            async with asyncio.timeout(_STATEMENT_SECONDS + 1):
                cursor = await connection.execute(_SWITCH, parameters)
        except (psycopg.errors.QueryCanceled, psycopg.errors.LockNotAvailable, psycopg.errors.DiskFull):
            return NOT_SENT  # as good as: PostgreSQL says that nothing was done
        except (psycopg.Error, OSError):
            await self.close()
            return BROKEN
        return f"{cursor.rowcount} row" + ("" if cursor.rowcount == 1 else "s")

    async def snapshot(self, client: str) -> tuple[dict[str, tuple[Any, ...]], list[tuple[Any, ...]]] | None:
        """The client's products by id, and its media; None where the database does not answer."""
        try:
            connection = await self._ready()
            async with asyncio.timeout(_STATEMENT_SECONDS + 1), connection.transaction():
                await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                products = await (await connection.execute(_PRODUCTS, {"client": client})).fetchall()
                media = await (await connection.execute(_MEDIA, {"client": client})).fetchall()
        except (psycopg.Error, OSError):
            await self.close()
            return None
        return {one[0]: one for one in products}, media

    async def ask(self, statement: str, parameters: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]] | None:
        """The rows of a statement; None where the database does not answer."""
        try:
            connection = await self._ready()
            async with asyncio.timeout(_STATEMENT_SECONDS + 1):
                return await (await connection.execute(statement.encode(), parameters)).fetchall()
        except (psycopg.Error, OSError):
            await self.close()
            return None

    async def close(self) -> None:
        if self._open is not None:
            await self._open.close()
            self._open = None


async def states(connection: Connection, world: World, client: str) -> tuple[list[State], list[str]] | None:
    """The state of each product as the database has it, and what is there that no operation has made."""
    found = await connection.snapshot(client)
    if found is None:
        return None
    products, media = found
    odd = [f"product {id_}" for id_ in products if product_of(id_) is None]
    held: list[list[str | None]] = [[None] * SLOTS for _ in range(PRODUCTS)]
    for id_, media_id, digest in media:
        product = product_of(id_)
        slot = world.slot_of(product, bytes(digest)) if product is not None and digest is not None else None
        if product is None or slot is None or held[product][slot] is not None:
            odd.append(f"picture {media_id} of {id_}")
        else:
            held[product][slot] = media_id
    there: list[State] = []
    for number in range(PRODUCTS):
        row = products.get(product_id(number))
        if row is None:
            there.append(None)
        else:
            _, name, active, attributes = row
            there.append(Product(name, active, attributes["category"], attributes["price"], tuple(held[number])))
    return there, odd
