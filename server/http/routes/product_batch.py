"""Many changes of products in one request, with an answer for each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import NamedTuple

import msgspec
from litestar import Response, post
from litestar.di import NamedDependency

from server.access.clients import check_item_id
from server.catalogue.batches import MOST_CHANGES, Applied, Change, Delete, Outcome, Upsert
from server.errors import BadParameter, CatalogueConflict, ProductNotFound, SkuTaken, TwinlensError
from server.http.bodies import JSON, converted, decoded_json, read_text
from server.http.idempotency import answered_once
from server.http.openapi import JSON_BODY, contract
from server.http.problems import status_of
from server.http.request import ITEMS, AuditedItem, Request, call_of
from server.http.wire import BatchAnswer, BatchItem, BatchRequest, BatchResult, ClientId, DeleteItem, ItemProblem
from server.lifespan import Services

# So many items are looked at before others have their turn: their attributes may be megabytes.
_AT_ONCE = 20


class _Body(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """As BatchRequest, with items that are not looked at yet: one that makes no sense must not refuse the others."""

    items: msgspec.Raw
    atomic: bool = False
    client_id: ClientId | None = None


class _Named(msgspec.Struct, frozen=True):
    """What can be said of an item that makes no sense."""

    op: object = None
    id: object = None


class _Item(NamedTuple):
    op: str
    id: str | None
    change: Change | TwinlensError


@post(
    "/v1/products:batch",
    status_code=200,
    **contract(
        "batchProducts",
        *JSON_BODY,
        ProductNotFound,
        SkuTaken,
        CatalogueConflict,
        accepts={JSON: BatchRequest},
        answers={200: ("What came of each item.", BatchAnswer)},
    ),
    tags=["products"],
)
async def batch_products(request: Request, services: NamedDependency[Services]) -> Response[BatchAnswer]:
    """Create, replace and delete up to 1,000 products.

    Each item comes to what the single call would come to, in the order of the items, and has that call's status. With
    `atomic`, the first item that is refused refuses all: the answer is its error, and nothing is changed.
    """
    text = await read_text(request)  # as large as any body may be, since it is a thousand calls
    body = decoded_json(text, _Body, large=lambda read: read.items)
    items: list[_Item] = []
    for number, one in enumerate(_listed(body.items)):
        if number % _AT_ONCE == 0:
            await asyncio.sleep(0)
        items.append(_item(one))
    call = call_of(request, body.client_id)
    _note(request, items, None)

    def apply() -> Awaitable[Applied]:
        return services.librarian.apply(call.client_id, [item.change for item in items], atomic=body.atomic)

    def answer(applied: Applied) -> Response[BatchAnswer]:
        results = [_result(item, outcome) for item, outcome in zip(items, applied.outcomes, strict=True)]
        _note(request, items, results)
        return Response(BatchAnswer(items=results))

    return await answered_once(request, services, call, apply, answer)


def _listed(items: msgspec.Raw) -> list[msgspec.Raw]:
    """Raises BadParameter."""
    found: list[msgspec.Raw] = converted(items, list[msgspec.Raw])
    if len(found) > MOST_CHANGES:
        raise BadParameter(f"A batch may have at most {MOST_CHANGES:,} items; this one has {len(found):,}.")
    return found


def _item(text: msgspec.Raw) -> _Item:
    try:
        item: BatchItem = converted(text, BatchItem)
        check_item_id("The product's id", item.id)
    except BadParameter as error:
        return _refused(text, error)
    if isinstance(item, DeleteItem):
        return _Item("delete", item.id, Delete(item.id))
    change = Upsert(item.id, item.name, item.sku, item.is_active, item.attributes)
    return _Item("upsert", item.id, change)


def _refused(text: msgspec.Raw, error: BadParameter) -> _Item:
    try:
        named: _Named = converted(text, _Named)
    except BadParameter:
        named = _Named()
    op = named.op if named.op in ("upsert", "delete") else "unknown"
    return _Item(str(op), named.id if isinstance(named.id, str) else None, error)


def _result(item: _Item, outcome: Outcome) -> BatchResult:
    if isinstance(outcome, TwinlensError):
        return BatchResult(
            id=item.id, status=status_of(outcome), error=ItemProblem(error=outcome.sentence, code=outcome.code)
        )
    return BatchResult(id=item.id, status=201 if outcome == "created" else 200)


def _note(request: Request, items: list[_Item], results: list[BatchResult] | None) -> None:
    """Have the audit keep each item by itself; `results`: what came of them, where that is known."""
    request.scope["state"][ITEMS] = [
        AuditedItem(item.op, item.id)
        if results is None
        else AuditedItem(item.op, item.id, results[place].status, _code_of(results[place]))
        for place, item in enumerate(items)
    ]


def _code_of(result: BatchResult) -> str | None:
    return result.error.code if isinstance(result.error, ItemProblem) else None
