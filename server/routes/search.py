"""Pictures, words, media and vectors to matches."""

from __future__ import annotations

from time import perf_counter

import numpy as np
from litestar import Response, post
from litestar.di import NamedDependency

from server.artifact import Vectors
from server.clients import Request, check_id, client_of
from server.embedder import Timings
from server.errors import BadParameter, MediaNotFound, NoText, SpaceMismatch, UnsupportedBody
from server.lifespan import Services
from server.routes.bodies import JSON, MULTIPART, caller_of, content_type, deadline_of, read_form, read_json
from server.routes.embeddings import embed
from server.routes.leaving import while_here
from server.routes.openapi import SearchForm, contract
from server.routes.timing import ms, note, note_kept
from server.wire import Match, SearchAnswer, SearchFields, SearchRequest


@post(
    "/api/search/by-image", status_code=200, **contract(400, 413, 415, takes={MULTIPART: SearchForm}), tags=["search"]
)
async def search_by_image(request: Request, services: NamedDependency[Services]) -> Response[SearchAnswer]:
    """Find the pictures that are most like this one, as the older service did."""
    return await _by_picture(request, services)


@post(
    "/v1/search",
    status_code=200,
    **contract(400, 404, 409, 413, 415, takes={MULTIPART: SearchForm, JSON: SearchRequest}),
    tags=["search"],
)
async def search(request: Request, services: NamedDependency[Services]) -> Response[SearchAnswer]:
    """Find the pictures that are most like a picture, a text, a media of the catalogue, or a vector."""
    if content_type(request) == MULTIPART:
        return await _by_picture(request, services)
    if content_type(request) != JSON:
        raise UnsupportedBody(f"Send a picture as {MULTIPART}, or what else to search with as {JSON}.")
    asked = await read_json(request, SearchRequest)
    client_id = client_of(request, asked.client_id)
    within = deadline_of(request, services.settings.deadline)
    embedding, timings = await _vector(request, asked, client_id, services, within)
    return await _answer(
        request,
        services,
        client_id,
        embedding,
        asked.limit,
        asked.min_similarity,
        media_id=asked.media_id,
        timings=timings,
    )


async def _by_picture(request: Request, services: Services) -> Response[SearchAnswer]:
    form = await read_form(request)
    asked = form.read(SearchFields)
    client_id = client_of(request, asked.client_id)
    picture = await embed(request, services, form.file, caller_of(request, client_id))
    return await _answer(
        request,
        services,
        client_id,
        picture.embedding,
        asked.limit,
        asked.min_similarity,
        digest=picture.digest,
        timings=picture.timings,
    )


async def _vector(
    request: Request, asked: SearchRequest, client_id: str, services: Services, within: float
) -> tuple[Vectors, Timings]:
    """float32[D] to search with, from the one thing that a JSON request names, and what it took to make it."""
    given = [name for name in ("text", "media_id", "embedding") if getattr(asked, name) is not None]
    if len(given) != 1:
        raise BadParameter("Give exactly one of text, mediaId, and embedding with its space.")
    if asked.space is not None and asked.embedding is None:
        raise BadParameter("space goes with embedding.")
    if asked.text is not None:
        if not asked.text.strip():
            raise NoText
        caller = caller_of(request, client_id)
        work = services.embedder.embed_texts([asked.text], within=within, caller=caller)
        (text,) = await while_here(request, work)
        note(request, text.timings)
        if not text.timings:
            note_kept(request)
        return text.embedding, text.timings
    if asked.media_id is not None:
        vector = await services.catalogue.media_vector(client_id, check_id("mediaId", asked.media_id))
        if vector is None:
            raise MediaNotFound()
        return vector, {}
    if asked.space is None:
        raise BadParameter("An embedding names its space: give space beside it.")
    if asked.space != services.encoder.space.id:
        raise SpaceMismatch(asked.space, services.encoder.space.id)
    with np.errstate(over="ignore"):  # what is too large for a float32 becomes infinite, and is refused as such
        return np.asarray(asked.embedding, dtype=np.float32), {}


async def _answer(
    request: Request,
    services: Services,
    client_id: str,
    embedding: Vectors,
    limit: int,
    min_similarity: float | None,
    *,
    digest: bytes | None = None,
    media_id: str | None = None,
    timings: Timings,
) -> Response[SearchAnswer]:
    started = perf_counter()
    matches = await services.catalogue.search(
        client_id, embedding, limit=limit, min_similarity=min_similarity, digest=digest, media_id=media_id
    )
    seconds = perf_counter() - started
    services.metrics.searched(seconds)
    note(request, {"search": seconds})
    milliseconds = {stage: ms(value) for stage, value in {**timings, "search": seconds}.items()}
    answer = SearchAnswer(
        results=[Match.of(match) for match in matches], space=services.encoder.space.id, timings=milliseconds
    )
    return Response(answer)
