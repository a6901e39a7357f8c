"""Media that are put where their caller says: a picture under an id of the caller's, and from product to product."""

from __future__ import annotations

from collections.abc import Awaitable

from litestar import Response, patch, put
from litestar.di import NamedDependency
from litestar.params import FromPath

from server.access.clients import check_item_id
from server.catalogue import rows
from server.errors import BadParameter, CatalogueConflict, MediaNotFound, PictureTaken, ProductNotFound
from server.http.bodies import JSON, MERGE_PATCH, MULTIPART, read_json
from server.http.fetching import bytes_of, read_picture
from server.http.idempotency import answered_once
from server.http.openapi import BY_URL, JSON_BODY, PICTURE, PlacedForm, contract
from server.http.request import Request, call_of
from server.http.signed import addressing
from server.http.wire import Media, MediaPatch, PlacedByUrl, PlacedFields, ProductId
from server.lifespan import Services


@put(
    "/v1/media/{media_id:str}",
    **contract(
        "putMedia",
        *PICTURE,
        *BY_URL,
        ProductNotFound,
        PictureTaken,
        CatalogueConflict,
        accepts={MULTIPART: PlacedForm, JSON: PlacedByUrl},
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

    `productId`, in the query or in the body, says whose picture it is. The same bytes again change nothing. The picture
    comes in a form, or is fetched from the URL that JSON names.
    """
    fields, picture = await read_picture(request, PlacedFields, PlacedByUrl)
    call = call_of(request, fields.client_id)
    check_item_id("The media's id", media_id)
    product_id = check_item_id("productId", _product_of(request, fields.product_id))
    at = addressing(request, services, call)

    async def place() -> tuple[rows.Media, bool]:
        data = await bytes_of(request, services, call, product_id, picture)
        return await services.librarian.put(call.client_id, media_id, product_id, data, within=call.left)

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


def _product_of(request: Request, in_body: str | None) -> str:
    """The product that a request names in its query or in its body. Raises BadParameter for none, and for two."""
    queried = request.query_params.getall("productId", [])
    if len(queried) > 1:
        raise BadParameter("productId is given twice in the query.")
    named = {str(one) for one in (*queried, in_body) if one}
    if len(named) > 1:
        raise BadParameter("productId is given twice, in the query and in the body, with different values.")
    if not named:
        raise BadParameter("Say whose picture it is: productId, in the query or in the body.")
    return named.pop()
