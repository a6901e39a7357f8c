"""What a client's attributes are declared as, and which of them its products are found by."""

from __future__ import annotations

from collections.abc import Awaitable

from litestar import Response, get, put
from litestar.di import NamedDependency

from server.catalogue.declared import Declared
from server.http.bodies import JSON, read_json
from server.http.idempotency import answered_once
from server.http.openapi import JSON_BODY, contract
from server.http.request import Request, call_of
from server.http.wire import AttributesRequest, DeclaredAttributes
from server.lifespan import Services


@get(
    "/v1/attributes",
    **contract("getAttributes", answers={200: ("What the client's attributes are declared as.", DeclaredAttributes)}),
    tags=["products"],
)
async def get_attributes(request: Request, services: NamedDependency[Services]) -> DeclaredAttributes:
    """What the client's attributes are declared as, and which of them a search by words looks into.

    Those that are not declared are compared as they are stored.
    """
    call = call_of(request)
    return DeclaredAttributes.of(await services.catalogue.declarations.of(call.client_id))


@put(
    "/v1/attributes",
    **contract(
        "putAttributes",
        *JSON_BODY,
        accepts={JSON: AttributesRequest},
        answers={200: ("What they are declared as from now on.", DeclaredAttributes)},
    ),
    tags=["products"],
)
async def put_attributes(request: Request, services: NamedDependency[Services]) -> Response[DeclaredAttributes]:
    """Declare what the client's attributes are, in place of all that was declared.

    It changes no product. Filters then compare texts that are numbers, dates, or true and false as what they are; and
    a search by words finds products by the words of their names, their SKUs and the attributes that are `searchable`.
    Where a client has more than some thousands of products, that takes some minutes.
    """
    asked = await read_json(request, AttributesRequest)
    call = call_of(request, asked.client_id)

    def declare() -> Awaitable[Declared]:
        return services.catalogue.declare(call.client_id, asked.attributes, asked.searchable)

    return await answered_once(request, services, call, declare, _declared)


def _declared(declared: Declared) -> Response[DeclaredAttributes]:
    return Response(DeclaredAttributes.of(declared))
