"""Products: create or replace, read, delete."""

from __future__ import annotations

from collections.abc import Awaitable

from litestar import Response, delete, get, put
from litestar.di import NamedDependency
from litestar.params import FromPath

from server.access.clients import check_id
from server.catalogue import rows
from server.errors import CatalogueConflict, ProductNotFound, SkuTaken
from server.http.bodies import JSON, read_json
from server.http.idempotency import answered_once
from server.http.openapi import JSON_BODY, contract
from server.http.request import Request, call_of
from server.http.wire import Product, ProductRequest
from server.lifespan import Services


@put(
    "/v1/products/{product_id:str}",
    **contract(
        "putProduct",
        *JSON_BODY,
        SkuTaken,
        CatalogueConflict,
        accepts={JSON: ProductRequest},
        answers={200: ("Replaced.", Product), 201: ("Created.", Product)},
    ),
    tags=["products"],
)
async def put_product(
    request: Request, services: NamedDependency[Services], product_id: FromPath[str]
) -> Response[Product]:
    """Create a product (201) or replace its name, SKU, state and attributes (200)."""
    asked = await read_json(request, ProductRequest)
    call = call_of(request, asked.client_id)
    check_id("The product's id", product_id)

    def put() -> Awaitable[tuple[rows.Product, bool]]:
        return services.catalogue.put_product(
            call.client_id,
            product_id,
            name=asked.name,
            sku=asked.sku,
            is_active=asked.is_active,
            attributes=asked.attributes,
        )

    return await answered_once(request, services, call, put, _put)


def _put(made: tuple[rows.Product, bool]) -> Response[Product]:
    product, created = made
    return Response(Product.of(product), status_code=201 if created else 200)


@get(
    "/v1/products/{product_id:str}",
    **contract("getProduct", ProductNotFound, answers={200: ("The product.", Product)}),
    tags=["products"],
)
async def get_product(request: Request, services: NamedDependency[Services], product_id: FromPath[str]) -> Product:
    """One product."""
    return Product.of(await services.catalogue.get_product(call_of(request).client_id, product_id))


@delete(
    "/v1/products/{product_id:str}",
    status_code=200,
    **contract("deleteProduct", ProductNotFound, answers={200: ("What the product was.", Product)}),
    tags=["products"],
)
async def delete_product(
    request: Request, services: NamedDependency[Services], product_id: FromPath[str]
) -> Response[Product]:
    """Delete a product with all its media; the answer is what it was."""
    call = call_of(request)

    def remove() -> Awaitable[rows.Product]:
        return services.librarian.remove_product(call.client_id, product_id)

    return await answered_once(request, services, call, remove, lambda product: Response(Product.of(product)))
