"""Products: create or replace, read, delete."""

from __future__ import annotations

from litestar import Response, delete, get, put
from litestar.di import NamedDependency
from litestar.params import FromPath

from server.access.clients import check_item_id
from server.errors import CatalogueConflict, ProductNotFound, SkuTaken
from server.http.bodies import JSON, read_json
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
    product, created = await services.catalogue.put_product(
        call_of(request, asked.client_id).client_id,
        check_item_id("The product's id", product_id),
        name=asked.name,
        sku=asked.sku,
        is_active=asked.is_active,
        attributes=asked.attributes,
    )
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
async def delete_product(request: Request, services: NamedDependency[Services], product_id: FromPath[str]) -> Product:
    """Delete a product with all its media; the answer is what it was."""
    return Product.of(await services.librarian.remove_product(call_of(request).client_id, product_id))
