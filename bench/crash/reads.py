"""Reads and searches: each answer must be one that the catalogue could give at some moment while it was asked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from urllib.parse import quote

from bench import pictures
from bench.crash.checks import LOST, REMOVED, WRONG, check_search
from bench.crash.model import UNKNOWN_ID, Product, State, Window
from bench.crash.operations import Operation, product_id
from bench.crash.talk import Answer, ask
from bench.crash.world import World


async def read(world: World, operation: Operation) -> Answer:
    """Carry out a read, and count what is wrong with its answer."""
    catalogue = world.catalogues[operation.client]
    media_id = next(iter(_held(catalogue.entries[operation.product].possible, operation.slot)), None)
    if media_id is None:
        media_id = catalogue.entries[operation.product].deleted.get(operation.slot, "never-there")
    with catalogue.window() as window:
        answer = await _send(world, operation, media_id)
    faults = {
        "get product": _product,
        "search by picture": _search,
        "search by media": _search,
    }.get(operation.kind, _media)
    for kind, text in faults(world, operation, answer, window, media_id):
        world.fault(kind, f"{operation.kind} {operation.client} #{operation.number}: {text}")
    return answer


async def _send(world: World, operation: Operation, media_id: str) -> Answer:
    client, port = operation.client, world.port
    at = f"/v1/media/{quote(media_id)}"
    if operation.kind == "get product":
        return await ask(port, "GET", f"/v1/products/{product_id(operation.product)}?clientId={client}")
    if operation.kind == "get picture":
        return await ask(port, "GET", f"{at}?clientId={client}")
    if operation.kind == "get file":
        return await ask(port, "GET", f"{at}/file?clientId={client}")
    if operation.kind == "get thumbnail":
        return await ask(port, "GET", f"{at}/thumbnail?clientId={client}")
    narrowed = operation.filter.json
    if operation.kind == "search by media":
        asked: dict[str, object] = {"clientId": client, "mediaId": media_id, "limit": operation.limit}
        asked |= {"filter": json.loads(narrowed)} if narrowed else {}
        return await ask(port, "POST", "/v1/search", json.dumps(asked).encode())
    fields = {"clientId": client, "limit": str(operation.limit), **({"filter": narrowed} if narrowed else {})}
    picture = world.picture(operation.product, operation.slot)
    if not operation.exact:
        picture += operation.number.to_bytes(4)  # behind its end, which no decoder looks at
    return await ask(port, "POST", "/v1/search", pictures.form(picture, fields), pictures.FORM_TYPE)


Faults = Iterator[tuple[str, str]]


def _product(world: World, operation: Operation, answer: Answer, window: Window, media_id: str) -> Faults:
    states = window.seen[operation.product]
    if answer.label == "404 product_not_found":
        if None not in states:
            yield LOST, f"there is no product {operation.product}, which was {states}"
    elif answer.label == "200":
        said = answer.json
        attributes = said["attributes"]
        given = (said["name"], said["isActive"], attributes.get("category"), attributes.get("price"))
        if given not in {(one.name, one.active, one.category, one.price) for one in states if one is not None}:
            yield LOST, f"product {operation.product} is {given}, and should be one of {states}"
    elif answer.status not in (0, 503) and answer.status < 500:
        yield WRONG, answer.label


def _media(world: World, operation: Operation, answer: Answer, window: Window, media_id: str) -> Faults:
    states = window.seen[operation.product]
    holding = [state for state in states if _holds(state, media_id)]
    if answer.label in ("404 media_not_found", "503 bytes_missing"):
        # Between row and bytes, a picture that is being deleted may be there in part.
        if len(holding) == len(states):
            yield LOST, f"{answer.label}: picture {media_id} of product {operation.product}"
    elif answer.label == "200":
        if not holding:
            yield REMOVED, f"picture {media_id} of product {operation.product} is there after it was deleted"
        elif operation.kind == "get picture":
            said = answer.json
            if (said["productId"], said["clientId"]) != (product_id(operation.product), operation.client):
                yield WRONG, f"picture {media_id} belongs to {said['productId']} of {said['clientId']}"
        elif operation.kind == "get file":
            sent = world.picture(operation.product, operation.slot)
            if hashlib.sha256(sent).digest() != hashlib.sha256(answer.body).digest():
                yield LOST, f"the file of {media_id} has other bytes, {len(answer.body)} in place of {len(sent)}"
        elif not answer.body.startswith(b"RIFF"):
            yield WRONG, f"the thumbnail of {media_id} is no WebP"
    elif answer.status not in (0, 503) and answer.status < 500:
        yield WRONG, answer.label


def _search(world: World, operation: Operation, answer: Answer, window: Window, media_id: str) -> Faults:
    catalogue = world.catalogues[operation.client]
    by_picture = operation.kind == "search by picture"
    itself = media_id
    if answer.label == "200":
        others = world.foreign(operation.client)
        for fault in check_search(operation, answer.json["results"], window, catalogue, others, itself):
            yield fault.kind, fault.text
    elif answer.label == "404 media_not_found" and not by_picture:
        states = window.seen[operation.product]
        if all(_holds(state, media_id) for state in states) and media_id not in catalogue.late:
            yield LOST, f"there is no picture {media_id} to search with"
    elif answer.status not in (0, 503) and answer.status < 500:
        yield WRONG, answer.label


def _holds(state: State, media_id: str) -> bool:
    return state is not None and media_id in state.media


def _held(states: Iterable[State], slot: int) -> set[str]:
    """The ids that a place may have."""
    products: list[Product] = [state for state in states if state is not None]
    return {one for state in products if (one := state.media[slot]) is not None and one != UNKNOWN_ID}
