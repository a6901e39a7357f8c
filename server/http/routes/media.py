"""Media: add a picture to a product, read, delete; its thumbnail, and the picture as it came."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Mapping
from typing import Annotated, Any

from litestar import Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, Parameter

from server.access.clients import check_item_id
from server.catalogue import rows
from server.catalogue.rows import DEFAULT_LIMIT, MOST_MATCHES, Query
from server.errors import CatalogueConflict, MediaNotFound, ProductNotFound, SignatureInvalid
from server.http.bodies import JSON, MULTIPART
from server.http.etags import has_it
from server.http.fetching import bytes_of, read_picture
from server.http.idempotency import answered_once
from server.http.leaving import while_here
from server.http.narrowing import require_found
from server.http.openapi import BY_URL, PICTURE, STORED_PICTURE, UploadForm, contract
from server.http.request import Request, call_of, made
from server.http.routes.embeddings import RAW
from server.http.security import EMBEDDABLE
from server.http.signed import addressing, signed_seconds
from server.http.wire import Duplicates, Limit, Match, Media, MediaByUrl, ProposedRegion, Regions, UploadFields
from server.lifespan import Services
from server.preprocessing import formats

QueryLimit = Annotated[int, Parameter(ge=1, le=MOST_MATCHES)]

# The picture of a media whose id the server has made does not change as a rule, nor does its thumbnail.
_KEPT_SECONDS = 86_400
_HEADERS = {
    "Cache-Control": "How long the picture may be kept, not beyond the time of a signed address; `no-cache` for that "
    "of a media whose id its caller chose, under which there may be another one by now.",
    "ETag": "What the bytes are, where their SHA-256 is known.",
    "X-Content-Type-Options": "`nosniff`: it is a picture, whatever its bytes look like.",
}
# In a signed address; see `signed_for`.
_SIGNED: Mapping[str, tuple[Any, Any]] = {"expires": (int, None), "signature": (str, None)}

_UNSAFE_IN_NAME = re.compile(r"[^A-Za-z0-9._-]")
_LONGEST_NAME = 100


@post(
    "/v1/products/{product_id:str}/media",
    status_code=201,
    **contract(
        "addMedia",
        *PICTURE,
        *BY_URL,
        ProductNotFound,
        CatalogueConflict,
        accepts={MULTIPART: UploadForm, JSON: MediaByUrl},
        answers={201: ("The picture was added.", Media), 200: ("These bytes are there already.", Media)},
    ),
    tags=["media"],
)
async def add_media(
    request: Request, services: NamedDependency[Services], product_id: FromPath[str]
) -> Response[Media]:
    """Add a picture to a product (201); the same bytes again give the media that is there (200).

    The picture comes in a form, or is fetched from the URL that JSON names.
    """
    fields, picture = await read_picture(request, UploadFields, MediaByUrl)
    call = call_of(request, fields.client_id)
    check_item_id("The product's id", product_id)
    at = addressing(request, services, call)

    async def add() -> tuple[rows.Media, bool]:
        data = await bytes_of(request, services, call, product_id, picture)
        return await services.librarian.add(call.client_id, product_id, data, within=call.left)

    def answer(added: tuple[rows.Media, bool]) -> Response[Media]:
        media, created = added
        made(request, media.id)
        return Response(Media.of(media, at.of(media.id)), status_code=201 if created else 200)

    return await answered_once(request, services, call, add, answer)


@get(
    "/v1/media/{media_id:str}",
    **contract("getMedia", MediaNotFound, answers={200: ("The media.", Media)}),
    tags=["media"],
)
async def get_media(request: Request, services: NamedDependency[Services], media_id: FromPath[str]) -> Media:
    """One media."""
    call = call_of(request)
    media = await services.catalogue.get_media(call.client_id, media_id)
    return Media.of(media, addressing(request, services, call).of(media.id))


@delete(
    "/v1/media/{media_id:str}",
    status_code=200,
    **contract("deleteMedia", MediaNotFound, answers={200: ("What the media was.", Media)}),
    tags=["media"],
)
async def delete_media(
    request: Request, services: NamedDependency[Services], media_id: FromPath[str]
) -> Response[Media]:
    """Delete a media; the answer is what it was."""
    call = call_of(request)
    at = addressing(request, services, call)

    def remove() -> Awaitable[rows.Media]:
        return services.librarian.remove(call.client_id, media_id)

    return await answered_once(
        request, services, call, remove, lambda media: Response(Media.of(media, at.of(media.id)))
    )


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
    call, catalogue, grades = call_of(request), services.catalogue, services.grades
    client_id, at = call.client_id, addressing(request, services, call)
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
        others = [match for match in found.matches if match.media_id not in known][:limit]
        near = [Match.of(match, grades, at.of(match.media_id)) for match in others]
    same = [Match.of(match, grades, at.of(match.media_id)) for match in exact[:limit]]
    return Duplicates(exact=same, near=near, space=space)


@get(
    "/v1/media/{media_id:str}/regions",
    **contract(
        "listRegions",
        MediaNotFound,
        *STORED_PICTURE,
        answers={200: ("What may be searched for in the picture.", Regions)},
    ),
    tags=["media"],
)
async def get_regions(request: Request, services: NamedDependency[Services], media_id: FromPath[str]) -> Regions:
    """Which parts of a media's picture show something: each as the `crop` of a search.

    They are what stands out from the ground that the picture's border shows. No model is asked.
    """
    call = call_of(request)
    await require_found(services.catalogue, call.client_id, media_id, call.principal)
    media = await services.catalogue.get_media(call.client_id, media_id)
    if media.kind != "image":
        raise MediaNotFound
    proposals = await while_here(request, services.librarian.propose(media))
    return Regions(regions=[ProposedRegion.of(one) for one in proposals])


@get(
    "/v1/media/{media_id:str}/thumbnail",
    media_type="image/webp",
    **contract(
        "getThumbnail",
        MediaNotFound,
        *STORED_PICTURE,
        SignatureInvalid,
        answers={
            200: ("The thumbnail.", {"image/webp": bytes}),
            304: ("The caller has it already, by its If-None-Match.", {}),
        },
        query=_SIGNED,
        headers=_HEADERS,
    ),
    tags=["media"],
)
async def get_thumbnail(
    request: Request, services: NamedDependency[Services], media_id: FromPath[str]
) -> Response[bytes]:
    """A small WebP of a media, at most 256 pixels a side.

    The address that answers have as `thumbnailUrl` needs no key.
    """
    call = call_of(request)
    await require_found(services.catalogue, call.client_id, media_id, call.principal)
    media = await services.catalogue.get_media(call.client_id, media_id)
    headers = _picture_headers(request, media, "-thumbnail")
    if "ETag" in headers and has_it(request, headers["ETag"]):
        return Response(b"", media_type="image/webp", status_code=304, headers=headers)
    thumbnail = await services.librarian.thumbnail(media)
    return Response(thumbnail, media_type="image/webp", headers=headers)


@get(
    "/v1/media/{media_id:str}/file",
    **contract(
        "getFile",
        MediaNotFound,
        SignatureInvalid,
        answers={
            200: ("The picture, with its own media type.", dict.fromkeys((RAW, *formats.CONTENT_TYPES), bytes)),
            304: ("The caller has it already, by its If-None-Match.", {}),
        },
        query=_SIGNED,
        headers={
            **_HEADERS,
            "Content-Disposition": "The media's id as a file name.",
        },
    ),
    tags=["media"],
)
async def get_file(
    request: Request, services: NamedDependency[Services], media_id: FromPath[str]
) -> Response[bytes | None]:
    """The picture of a media as it came, byte for byte.

    The address that answers have as `fileUrl` needs no key. Ranges are not served.
    """
    media = await services.catalogue.get_media(call_of(request).client_id, media_id)
    headers = _picture_headers(request, media)
    if "ETag" in headers and has_it(request, headers["ETag"]):
        return Response(None, status_code=304, headers=headers)
    # The type is what the bytes were when they came; of rows that others wrote, only what no browser runs is repeated.
    known = formats.of_content_type(media.content_type)
    name = _UNSAFE_IN_NAME.sub("_", media.id)[:_LONGEST_NAME]
    how, name = ("inline", f"{name}.{known.extension}") if known else ("attachment", name)
    headers["Content-Disposition"] = f'{how}; filename="{name}"'
    data = await services.store.get(media.s3_key)
    return Response(data, media_type=known.content_type if known else RAW, headers=headers)


def _picture_headers(request: Request, media: rows.Media, form: str = "") -> dict[str, str]:
    """Of a picture: for this caller alone, to be kept for a day, and nothing but a picture to any browser.

    `form`: of the picture, for its ETag.
    """
    left = signed_seconds(request)
    kept = _KEPT_SECONDS if left is None else min(_KEPT_SECONDS, int(left))
    headers = {
        "Cache-Control": f"private, max-age={kept}, immutable" if _is_first(media) else "private, no-cache",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; sandbox",
    }
    if media.content_digest is not None:
        headers["ETag"] = f'"{media.content_digest.hex()}{form}"'
    # An address that is signed was made to be shown by the pages of a shop.
    return {**headers, **EMBEDDABLE} if left is not None else headers


def _is_first(media: rows.Media) -> bool:
    """Whether a media has the picture that it was made with under an id of the server's: its bytes have that name."""
    return f"/{media.id}." in media.s3_key
