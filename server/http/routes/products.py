"""Products: create or replace, change, read, delete."""

from __future__ import annotations

from collections.abc import Awaitable

import msgspec
from litestar import Response, delete, get, patch, put
from litestar.di import NamedDependency
from litestar.params import FromPath

from server.access.clients import check_item_id
from server.catalogue import rows
from server.errors import CatalogueConflict, PreconditionFailed, ProductNotFound, SkuTaken
from server.http.bodies import JSON, MERGE_PATCH, read_json
from server.http.etags import etag_of, expected_by, has_it
from server.http.idempotency import answered_once
from server.http.openapi import JSON_BODY, contract
from server.http.request import Request, call_of
from server.http.routes.product_lists import media_of
from server.http.wire import Product, ProductPatch, ProductRequest, ProductWithMedia
from server.lifespan import Services

MOST_MEDIA = 100
"""So many of its media a product comes with."""

_ETAG = {"ETag": "The version of the product, for `If-Match`."}
_IF_MATCH = {
    "If-Match": "Only if the product is of one of these versions, or there at all (`*`): ETags of earlier answers."
}


@put(
    "/v1/products/{product_id:str}",
    **contract(
        "putProduct",
        *JSON_BODY,
        SkuTaken,
        CatalogueConflict,
        PreconditionFailed,
        accepts={JSON: ProductRequest},
        answers={200: ("Replaced.", Product), 201: ("Created.", Product)},
        headers=_ETAG,
        conditions={**_IF_MATCH, "If-None-Match": "`*`: only if there is no such product yet."},
    ),
    tags=["products"],
)
async def put_product(
    request: Request, services: NamedDependency[Services], product_id: FromPath[str]
) -> Response[Product]:
    """Create a product (201) or replace its name, SKU, state and attributes (200)."""
    asked = await read_json(request, ProductRequest)
    call, expected = call_of(request, asked.client_id), expected_by(request)
    check_item_id("The product's id", product_id)

    def put() -> Awaitable[tuple[rows.Product, bool]]:
        return services.catalogue.put_product(
            call.client_id,
            product_id,
            name=asked.name,
            sku=asked.sku,
            is_active=asked.is_active,
            attributes=asked.attributes,
            expected=expected,
        )

    return await answered_once(request, services, call, put, _put)


def _put(made: tuple[rows.Product, bool]) -> Response[Product]:
    product, created = made
    return _of(product, status=201 if created else 200)


def _of(product: rows.Product, status: int = 200) -> Response[Product]:
    return Response(Product.of(product), status_code=status, headers={"ETag": etag_of(product)})


@patch(
    "/v1/products/{product_id:str}",
    **contract(
        "patchProduct",
        *JSON_BODY,
        ProductNotFound,
        SkuTaken,
        CatalogueConflict,
        PreconditionFailed,
        accepts={MERGE_PATCH: ProductPatch, JSON: ProductPatch},
        answers={200: ("The product as it is now.", Product)},
        headers=_ETAG,
        conditions=_IF_MATCH,
    ),
    tags=["products"],
)
async def patch_product(
    request: Request, services: NamedDependency[Services], product_id: FromPath[str]
) -> Response[Product]:
    """Change some of a product, by a JSON merge patch: what is left out stays.

    Null removes the SKU, or an attribute. Name and state can be changed and not removed.
    """
    asked = await read_json(request, ProductPatch, kinds=(MERGE_PATCH, JSON))
    call, expected = call_of(request, asked.client_id), expected_by(request)

    def change() -> Awaitable[rows.Product]:
        return services.catalogue.patch_product(call.client_id, product_id, asked.row(), expected=expected)

    return await answered_once(request, services, call, change, _of)


@get(
    "/v1/products/{product_id:str}",
    **contract(
        "getProduct",
        ProductNotFound,
        answers={
            200: ("The product, with its media.", ProductWithMedia),
            304: ("The caller has it already, by its If-None-Match.", {}),
        },
        headers={**_ETAG, "Cache-Control": "To be asked for each time, with the ETag that is known."},
        conditions={"If-None-Match": "ETags of answers that the caller has."},
    ),
    tags=["products"],
)
async def get_product(
    request: Request, services: NamedDependency[Services], product_id: FromPath[str]
) -> Response[bytes | None]:
    """One product, with the first 100 of its media.

    Where there are more, `mediaNext` is a cursor with which the list of its media goes on.
    """
    call = call_of(request)
    product, page = await services.catalogue.lists.product_with_media(call.client_id, product_id, limit=MOST_MEDIA)
    found = media_of(request, services, call, product_id, page)
    body = msgspec.json.encode(ProductWithMedia.with_media(product, found.media, found.next))
    # The addresses of its pictures are part of it, and change before they expire. So what is kept is always good.
    headers = {"ETag": etag_of(product, body), "Cache-Control": "private, no-cache"}
    if has_it(request, headers["ETag"]):
        return Response(None, status_code=304, headers=headers)
    return Response(body, media_type=JSON, headers=headers)


@delete(
    "/v1/products/{product_id:str}",
    status_code=200,
    **contract(
        "deleteProduct",
        ProductNotFound,
        PreconditionFailed,
        answers={200: ("What the product was.", Product)},
        conditions=_IF_MATCH,
    ),
    tags=["products"],
)
async def delete_product(
    request: Request, services: NamedDependency[Services], product_id: FromPath[str]
) -> Response[Product]:
    """Delete a product with all its media; the answer is what it was."""
    call, expected = call_of(request), expected_by(request)

    def remove() -> Awaitable[rows.Product]:
        return services.librarian.remove_product(call.client_id, product_id, expected=expected)

    return await answered_once(request, services, call, remove, lambda product: Response(Product.of(product)))
