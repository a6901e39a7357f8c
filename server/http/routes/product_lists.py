"""Lists of products, and of the media of a product: a page at a time."""

from __future__ import annotations

import json
from datetime import datetime

import msgspec
from litestar import get
from litestar.di import NamedDependency
from litestar.params import FromPath

from server.catalogue.fields import Sku
from server.catalogue.filters import Filter
from server.catalogue.lists import DEFAULT_PAGE, Page, ProductFilter
from server.catalogue.rows import Media as MediaRow
from server.errors import BadParameter, ProductNotFound
from server.http.bodies import read_query
from server.http.cursors import Cursors
from server.http.openapi import contract
from server.http.request import Call, Request, call_of
from server.http.signed import addressing
from server.http.wire import (
    Cursor,
    IsActive,
    Media,
    MediaPage,
    PageFields,
    PageLimit,
    Product,
    ProductAttributes,
    ProductPage,
    ProductPageFields,
    UpdatedSince,
)
from server.lifespan import Services


@get(
    "/v1/products",
    **contract(
        "listProducts",
        answers={200: ("A page of the client's products.", ProductPage)},
        query={
            "limit": (PageLimit, DEFAULT_PAGE),
            "cursor": (Cursor, None),
            "updatedSince": (UpdatedSince, None),
            "isActive": (IsActive, None),
            "sku": (Sku, None),
            "attributes": (ProductAttributes, None),
        },
    ),
    tags=["products"],
)
async def list_products(request: Request, services: NamedDependency[Services]) -> ProductPage:
    """The client's products, a page at a time.

    By id; with `updatedSince` by the time of their last change. `next` is the cursor of the next page, to be sent with
    the same other parameters, and null on the last one.
    """
    asked = read_query(request, ProductPageFields)
    call = call_of(request)
    which = ProductFilter(
        updated_since=_time(asked.updated_since),
        is_active=asked.is_active,
        sku=asked.sku,
        attributes=_attributes(asked.attributes),
    )
    cursors = Cursors(
        services.keyring.url_secret,
        "products",
        call.client_id,
        which.updated_since,
        which.is_active,
        which.sku,
        which.attributes.plain,
    )
    after = cursors.read(asked.cursor)
    page = await services.catalogue.lists.products(call.client_id, which, after=after, limit=asked.limit)
    return ProductPage(products=[Product.of(product) for product in page.items], next=cursors.write(page.end))


@get(
    "/v1/products/{product_id:str}/media",
    **contract(
        "listMedia",
        ProductNotFound,
        answers={200: ("A page of the product's media.", MediaPage)},
        query={"limit": (PageLimit, DEFAULT_PAGE), "cursor": (Cursor, None)},
    ),
    tags=["media"],
)
async def list_media(request: Request, services: NamedDependency[Services], product_id: FromPath[str]) -> MediaPage:
    """The media of a product, a page at a time, in the order in which they were added."""
    asked = read_query(request, PageFields)
    call = call_of(request)
    after = _cursors(services, call, product_id).read(asked.cursor)
    page = await services.catalogue.lists.media(call.client_id, product_id, after=after, limit=asked.limit)
    return media_of(request, services, call, product_id, page)


def media_of(request: Request, services: Services, call: Call, product_id: str, page: Page[MediaRow]) -> MediaPage:
    """A page of a product's media, as an answer has it."""
    at = addressing(request, services, call)
    media = [Media.of(one, at.of(one.id)) for one in page.items]
    return MediaPage(media=media, next=_cursors(services, call, product_id).write(page.end))


def _cursors(services: Services, call: Call, product_id: str) -> Cursors:
    return Cursors(services.keyring.url_secret, "media", call.client_id, product_id)


def _time(text: str | None) -> datetime | None:
    try:
        return None if text is None else msgspec.convert(text, UpdatedSince)
    except msgspec.ValidationError as exc:
        raise BadParameter(
            "updatedSince must be a time with its zone, such as 2026-05-04T09:30:00Z; in an address a + is written %2B."
        ) from exc


def _attributes(text: str | None) -> Filter:
    if text is None:
        return Filter()
    try:
        return Filter.of({"attributes": json.loads(text)})
    except (ValueError, RecursionError) as exc:
        raise BadParameter(f"attributes cannot be read as JSON: {exc}.") from exc
