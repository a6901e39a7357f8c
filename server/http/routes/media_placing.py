"""Media that are put where their caller says: a picture under an id of the caller's, and from product to product."""

from __future__ import annotations

from collections.abc import Awaitable

from litestar import Response, patch, put
from litestar.di import NamedDependency
from litestar.params import FromPath

from server.access.clients import check_item_id
from server.catalogue import rows
from server.errors import BadParameter, CatalogueConflict, MediaNotFound, PictureTaken, ProductNotFound
from server.http.bodies import JSON, MERGE_PATCH, MULTIPART, read_form, read_json
from server.http.idempotency import answered_once
from server.http.openapi import JSON_BODY, PICTURE, PlacedForm, contract
from server.http.request import Request, call_of
from server.http.signed import addressing
from server.http.wire import Media, MediaPatch, PlacedFields, ProductId
from server.lifespan import Services


@put(
    "/v1/media/{media_id:str}",
    **contract(
        "putMedia",
        *PICTURE,
        ProductNotFound,
        PictureTaken,
        CatalogueConflict,
        accepts={MULTIPART: PlacedForm},
        answers={
            201: ("The media was made.", Media),
            200: ("It has this picture and this product now, or had them already.", Media),
        },
        query={"productId": (ProductId, None)},
    ),
    tags=["media"],
)
async def put_media(request: Request, services: NamedDependency[Services], media_id: FromPath[str]) -> Response[Media]:
    """Make a media under an id of your own (201), or give it another picture or another product (200).

    `productId`, in the query or in the form, says whose picture it is. The same bytes again change nothing.
    """
    form = await read_form(request)
    fields = form.read(PlacedFields)
    call = call_of(request, fields.client_id)
    check_item_id("The media's id", media_id)
    product_id = check_item_id("productId", _product_of(request, fields))
    at = addressing(request, services, call)

    def place() -> Awaitable[tuple[rows.Media, bool]]:
        return services.librarian.put(call.client_id, media_id, product_id, form.file, within=call.left)

    def answer(placed: tuple[rows.Media, bool]) -> Response[Media]:
        media, created = placed
        return Response(Media.of(media, at.of(media.id)), status_code=201 if created else 200)

    return await answered_once(request, services, call, place, answer)


@patch(
    "/v1/media/{media_id:str}",
    **contract(
        "patchMedia",
        *JSON_BODY,
        MediaNotFound,
        ProductNotFound,
        PictureTaken,
        CatalogueConflict,
        accepts={MERGE_PATCH: MediaPatch, JSON: MediaPatch},
        answers={200: ("The media as it is now.", Media)},
    ),
    tags=["media"],
)
async def patch_media(
    request: Request, services: NamedDependency[Services], media_id: FromPath[str]
) -> Response[Media]:
    """Have a media belong to another product; its picture and its vector go with it."""
    asked = await read_json(request, MediaPatch, kinds=(MERGE_PATCH, JSON))
    call = call_of(request, asked.client_id)
    at = addressing(request, services, call)

    def move() -> Awaitable[rows.Media]:
        if not isinstance(asked.product_id, str):
            return services.catalogue.get_media(call.client_id, media_id)
        return services.librarian.move(call.client_id, media_id, check_item_id("productId", asked.product_id))

    return await answered_once(request, services, call, move, lambda media: Response(Media.of(media, at.of(media.id))))


def _product_of(request: Request, fields: PlacedFields) -> str:
    """The product that a request names in its query or in its form. Raises BadParameter for none, and for two."""
    queried = request.query_params.getall("productId", [])
    if len(queried) > 1:
        raise BadParameter("productId is given twice in the query.")
    named = {str(one) for one in (*queried, fields.product_id) if one}
    if len(named) > 1:
        raise BadParameter("productId is given twice, in the query and in the form, with different values.")
    if not named:
        raise BadParameter("Say whose picture it is: productId, in the query or as a field of the form.")
    return named.pop()
