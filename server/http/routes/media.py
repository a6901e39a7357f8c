"""Media: add a picture to a product, read, delete, thumbnail."""

from __future__ import annotations

from typing import Annotated

from litestar import Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, Parameter

from server.access.clients import check_id
from server.catalogue.rows import DEFAULT_LIMIT, MOST_MATCHES, Query
from server.errors import CatalogueConflict, MediaNotFound, ProductNotFound
from server.http.bodies import MULTIPART, read_form
from server.http.openapi import PICTURE, STORED_PICTURE, UploadForm, contract
from server.http.request import Request, call_of, made
from server.http.wire import Duplicates, Limit, Match, Media, UploadFields
from server.lifespan import Services

QueryLimit = Annotated[int, Parameter(ge=1, le=MOST_MATCHES)]

# A media's picture never changes, nor does its thumbnail, unless an earlier version had misread it; private, since it
# belongs to one client.
_FOR_A_DAY = {"Cache-Control": "private, max-age=86400, immutable"}


@post(
    "/v1/products/{product_id:str}/media",
    status_code=201,
    **contract(
        "addMedia",
        *PICTURE,
        ProductNotFound,
        CatalogueConflict,
        accepts={MULTIPART: UploadForm},
        answers={201: ("The picture was added.", Media), 200: ("These bytes are there already.", Media)},
    ),
    tags=["media"],
)
async def add_media(
    request: Request, services: NamedDependency[Services], product_id: FromPath[str]
) -> Response[Media]:
    """Add a picture to a product (201); the same bytes again give the media that is there (200)."""
    form = await read_form(request)
    call = call_of(request, form.read(UploadFields).client_id)
    check_id("The product's id", product_id)
    media, created = await services.librarian.add(call.client_id, product_id, form.file, within=call.left)
    made(request, media.id)
    return Response(Media.of(media), status_code=201 if created else 200)


@get(
    "/v1/media/{media_id:str}",
    **contract("getMedia", MediaNotFound, answers={200: ("The media.", Media)}),
    tags=["media"],
)
async def get_media(request: Request, services: NamedDependency[Services], media_id: FromPath[str]) -> Media:
    """One media."""
    return Media.of(await services.catalogue.get_media(call_of(request).client_id, media_id))


@delete(
    "/v1/media/{media_id:str}",
    status_code=200,
    **contract("deleteMedia", MediaNotFound, answers={200: ("What the media was.", Media)}),
    tags=["media"],
)
async def delete_media(request: Request, services: NamedDependency[Services], media_id: FromPath[str]) -> Media:
    """Delete a media; the answer is what it was."""
    return Media.of(await services.librarian.remove(call_of(request).client_id, media_id))


@get(
    "/v1/media/{media_id:str}/duplicates",
    **contract(
        "listDuplicates",
        MediaNotFound,
        answers={200: ("The other media that are the same picture.", Duplicates)},
        query={"limit": (Limit, DEFAULT_LIMIT)},
    ),
    tags=["media"],
)
async def get_duplicates(
    request: Request, services: NamedDependency[Services], media_id: FromPath[str], limit: QueryLimit = DEFAULT_LIMIT
) -> Duplicates:
    """The client's other media that are the same picture: the same file, and pictures with nearly the same vector."""
    client_id, catalogue, grades = call_of(request).client_id, services.catalogue, services.grades
    space = services.encoder.space.id
    if (await catalogue.get_media(client_id, media_id)).blank:
        return Duplicates(exact=[], near=[] if grades is not None else None, space=space)
    exact = await catalogue.same_files(client_id, media_id)
    vector = await catalogue.media_vector(client_id, media_id) if grades is not None else None
    near = None
    if vector is not None and grades is not None:
        known = {media_id, *(match.media_id for match in exact)}
        # So many more as are left out below: the media itself, and the media that are listed as the same file.
        most = min(MOST_MATCHES, limit + len(known))
        least = grades.least("near-duplicate")
        query = Query(client_id, vector.embedding, limit=most, min_cosine=least, media_id=media_id, without_blank=True)
        found = await catalogue.search(query)
        near = [Match.of(match, grades) for match in found.matches if match.media_id not in known][:limit]
    return Duplicates(exact=[Match.of(match, grades) for match in exact[:limit]], near=near, space=space)


@get(
    "/v1/media/{media_id:str}/thumbnail",
    media_type="image/webp",
    **contract(
        "getThumbnail",
        MediaNotFound,
        *STORED_PICTURE,
        answers={200: ("The thumbnail.", {"image/webp": bytes})},
        headers={"Cache-Control": "How long the thumbnail may be kept: it never changes."},
    ),
    tags=["media"],
)
async def get_thumbnail(
    request: Request, services: NamedDependency[Services], media_id: FromPath[str]
) -> Response[bytes]:
    """A small WebP of a media, at most 256 pixels a side."""
    thumbnail = await services.librarian.thumbnail(call_of(request).client_id, media_id)
    return Response(thumbnail, media_type="image/webp", headers=_FOR_A_DAY)
