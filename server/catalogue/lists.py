"""Lists of products and media, a page at a time: all that is there, and what has changed since a time.

A page goes on behind the last one's position, not after a number of rows, and each order is total. So while rows come,
change and go, no row is given twice or left out because of another one.

**What has changed** comes in the order of `updated_at`, and only what is settled: before the begin of every transaction
that is writing products at that moment. So a reader who goes on to the end, and later asks again from the latest
`updated_at` that it has seen, has missed no change, in whatever order the transactions end. The price is that a change
shows up there only once all writers that began before it have ended. 0013_products_in_step.sql has the other half.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, NamedTuple, TypeVar

from psycopg import AsyncConnection, sql
from psycopg.rows import BaseRowFactory, TupleRow, class_row, kwargs_row

from server.catalogue.declared import types_of
from server.catalogue.filters import Filter
from server.catalogue.rows import Media, Product
from server.database.locks import LOCKS_OF_PRODUCTS
from server.database.queries import Queries
from server.database.runner import Runner
from server.errors import ProductNotFound

T = TypeVar("T")

DEFAULT_PAGE = 100
"""How many products or media a page has unless its reader names another limit."""

LARGEST_PAGE = 1000

_BORROWED = ("product_api_id", "media_api_id", "product_columns", "media_columns")

# Of attributes, as they are stored, in one page; what begins within them is part of it. A product may have a megabyte,
# and a page of a thousand such products would be more than a worker's memory.
_BYTES = 2_000_000

# Where the attributes of so many products in a row hold too few that pass, all that pass are looked up.
_SCANNED = 20_000


class Position(NamedTuple):
    """Where a page ended: behind a row with this API id; `at`: its time, where the list is in the order of a time."""

    id: str
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    items: list[T]
    end: Position | None
    """Where the next page goes on; None where nothing follows."""


@dataclass(frozen=True, slots=True)
class ProductFilter:
    """Which products of a client a list has: those that meet all of these."""

    updated_since: datetime | None = None
    """Changed at this time or later."""
    is_active: bool | None = None
    sku: str | None = None
    attributes: Filter = field(default_factory=Filter)
    """Of its conditions, those on attributes."""


class _Listed(NamedTuple):
    product: Product
    full: bool
    """The page has as many bytes as it may have."""


class Lists:
    """The lists of all clients' products and media. Every method may raise CatalogueUnavailable, and BadParameter for a
    text that the database cannot hold."""

    def __init__(self, runner: Runner, queries: Queries) -> None:
        """`queries`: those of queries.sql, for the space in which media are looked at."""
        self._runner = runner
        own = Queries.read("lists.sql").borrowing(queries, *_BORROWED)
        products = queries.composed("products_under_policy" if runner.role else "products_of_client")
        passing = own.composed("passing", products=products)
        self._statements: dict[str, bytes] = {}
        for name in ("products_by_id", "products_by_change"):
            order = own.composed(f"order_of_{name}")
            page = own.composed(name, passing=sql.SQL(""))
            for made, text in (
                (name, page),
                (f"{name}, scanned", own.composed("with_attributes", page=page, order=order)),
                (f"{name}, looked up", own.composed(name, passing=passing)),
            ):
                self._statements[made] = own.composed("within_bytes", page=text, order=order).as_bytes(None)
        self._statements |= {name: own[name] for name in ("settled", "has_product", "media_of_product")}
        self._get_product = queries["get_product"]

    async def products(
        self, client_id: str, which: ProductFilter, *, after: Position | None = None, limit: int = DEFAULT_PAGE
    ) -> Page[Product]:
        """A page of the client's products: by id, or by `updated_at` and id with `updated_since`."""
        types = await types_of(self._runner, client_id, which.attributes.names)
        name = "products_by_id" if which.updated_since is None else "products_by_change"
        parameters: dict[str, Any] = {
            "client_id": client_id,
            "after": after.at if after is not None else None,
            "after_id": after.id if after is not None else None,
            "since": which.updated_since,
            "is_active": which.is_active,
            "sku": which.sku,
            "attributes": which.attributes.jsonpath(types),
            "limit": limit + 1,
            "scanned": limit + 1,
            "bytes": _BYTES,
        }

        async def read(connection: AsyncConnection[TupleRow]) -> list[_Listed]:
            rows = kwargs_row(_listed)
            if which.updated_since is not None:
                # A statement of its own: the snapshot of the next one must begin after it.
                parameters["until"] = await self._settled(connection)
            if parameters["attributes"] is None:
                return await self._fetch(connection, name, parameters, rows)
            scanned = {**parameters, "scanned": max(_SCANNED, limit + 1)}
            found = await self._fetch(connection, f"{name}, scanned", scanned, rows)
            if len(found) > limit or (found and found[-1].full):
                return found
            return await self._fetch(connection, f"{name}, looked up", parameters, rows)

        found = await self._runner.read(read, "list_products", client=client_id)
        products = [one.product for one in found[:limit]]
        if len(found) <= limit and not (found and found[-1].full):
            return Page(products, None)
        return Page(products, Position(products[-1].id, products[-1].updated_at if which.updated_since else None))

    async def media(
        self, client_id: str, product_id: str, *, after: Position | None = None, limit: int = DEFAULT_PAGE
    ) -> Page[Media]:
        """A page of a product's media, in the order in which they were added. Raises ProductNotFound."""

        async def read(connection: AsyncConnection[TupleRow]) -> list[Media]:
            known = {"client_id": client_id, "product_id": product_id}
            if not (await connection.execute(self._statements["has_product"], known)).rowcount:
                raise ProductNotFound
            return await self._media(connection, client_id, product_id, after, limit)

        return _media_page(await self._runner.read(read, "list_media", client=client_id), limit)

    async def product_with_media(self, client_id: str, product_id: str, *, limit: int) -> tuple[Product, Page[Media]]:
        """A product, and the first of its media. Raises ProductNotFound."""

        async def read(connection: AsyncConnection[TupleRow]) -> tuple[Product, list[Media]]:
            cursor = connection.cursor(row_factory=class_row(Product))
            await cursor.execute(self._get_product, {"client_id": client_id, "id": product_id})
            product = await cursor.fetchone()
            if product is None:
                raise ProductNotFound
            return product, await self._media(connection, client_id, product_id, None, limit)

        product, media = await self._runner.read(read, "get_product", client=client_id)
        return product, _media_page(media, limit)

    async def _media(
        self, connection: AsyncConnection[TupleRow], client_id: str, product_id: str, after: Position | None, limit: int
    ) -> list[Media]:
        """So many, and one more where there are more."""
        parameters = {
            "client_id": client_id,
            "product_id": product_id,
            "after": after.at if after is not None else None,
            "after_id": after.id if after is not None else None,
            "limit": limit + 1,
        }
        return await self._fetch(connection, "media_of_product", parameters, class_row(Media))

    async def _settled(self, connection: AsyncConnection[TupleRow]) -> datetime:
        cursor = await connection.execute(self._statements["settled"], {"locks": LOCKS_OF_PRODUCTS})
        row = await cursor.fetchone()
        if row is None:
            raise AssertionError("unreachable: a SELECT without rows to choose from gives one")
        settled: datetime = row[0]
        return settled

    async def _fetch(
        self,
        connection: AsyncConnection[TupleRow],
        name: str,
        parameters: Mapping[str, Any],
        row_factory: BaseRowFactory[T],
    ) -> list[T]:
        cursor = connection.cursor(row_factory=row_factory)
        return await (await cursor.execute(self._statements[name], parameters)).fetchall()


def _listed(*, full: bool, **product: Any) -> _Listed:
    return _Listed(Product(**product), full)


def _media_page(found: list[Media], limit: int) -> Page[Media]:
    """Of `limit` media and one more, which only says that more follow."""
    items = found[:limit]
    return Page(items, Position(items[-1].id, items[-1].created_at) if len(found) > limit else None)
