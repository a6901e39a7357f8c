"""Media: add a picture to a product, read, delete, thumbnail."""

from __future__ import annotations

from litestar import Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from server.clients import Request, check_id, client_of
from server.lifespan import Services
from server.routes.bodies import MULTIPART, deadline_of, read_form
from server.routes.openapi import UploadForm, contract
from server.wire import Media, UploadFields

# A media's picture never changes, so its thumbnail does not either; private, since it is one client's.
_FOR_A_DAY = {"Cache-Control": "private, max-age=86400, immutable"}


@post(
    "/v1/products/{product_id:str}/media",
    status_code=201,
    **contract(
        400,
        404,
        409,
        413,
        415,
        takes={MULTIPART: UploadForm},
        also={200: (Media, "These bytes are there already.")},
    ),
    tags=["media"],
)
async def add_media(
    request: Request, services: NamedDependency[Services], product_id: FromPath[str]
) -> Response[Media]:
    """Add a picture to a product (201); the same bytes again give the media that is there (200)."""
    form = await read_form(request)
    fields = form.read(UploadFields)
    client_id = client_of(request, fields.client_id)
    check_id("The product's id", product_id)
    media, created = await services.librarian.add(
        client_id, product_id, form.file, within=deadline_of(request, services.settings.deadline)
    )
    return Response(Media.of(media), status_code=201 if created else 200)


@get("/v1/media/{media_id:str}", **contract(404), tags=["media"])
async def get_media(request: Request, services: NamedDependency[Services], media_id: FromPath[str]) -> Media:
    """One media."""
    return Media.of(await services.catalogue.get_media(client_of(request), media_id))


@delete("/v1/media/{media_id:str}", status_code=200, **contract(404), tags=["media"])
async def delete_media(request: Request, services: NamedDependency[Services], media_id: FromPath[str]) -> Media:
    """Delete a media; gives what it was."""
    return Media.of(await services.librarian.remove(client_of(request), media_id))


@get("/v1/media/{media_id:str}/thumbnail", media_type="image/webp", **contract(400, 404, 413), tags=["media"])
async def get_thumbnail(
    request: Request, services: NamedDependency[Services], media_id: FromPath[str]
) -> Response[bytes]:
    """A small WebP of a media, at most 256 pixels a side."""
    thumbnail = await services.librarian.thumbnail(client_of(request), media_id)
    return Response(thumbnail, media_type="image/webp", headers=_FOR_A_DAY)
