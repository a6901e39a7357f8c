"""Pictures, words, media and vectors to matches."""

from __future__ import annotations

from time import perf_counter

import numpy as np
from litestar import Response, post
from litestar.di import NamedDependency

from server.access.clients import check_id
from server.artifact.artifact import Vectors
from server.artifact.grades import Grades, grade_named
from server.batching.embedder import Timings
from server.catalogue.filters import Filter
from server.errors import BadParameter, MediaNotFound, NoText, SpaceMismatch, UnsupportedBody
from server.http.bodies import JSON, MULTIPART, caller_of, content_type, deadline_of, read_form, read_json
from server.http.leaving import while_here
from server.http.openapi import SearchForm, contract
from server.http.request import Request, client_of
from server.http.routes.embeddings import embed
from server.http.timing import ms, note, note_kept
from server.http.wire import Match, SearchAnswer, SearchFields, SearchRequest
from server.lifespan import Services


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
    grades = services.grades if asked.text is None else services.text_grades
    least = _least(asked.min_grade, grades, words=asked.text is not None)
    within = deadline_of(request, services.settings.deadline)
    embedding, timings = await _vector(request, asked, client_id, services, within)
    return await _answer(
        request,
        services,
        client_id,
        embedding,
        asked.limit,
        asked.min_similarity,
        grades=grades,
        least=least,
        media_id=asked.media_id,
        where=asked.filter,
        timings=timings,
    )


async def _by_picture(request: Request, services: Services) -> Response[SearchAnswer]:
    form = await read_form(request)
    asked = form.read(SearchFields)
    where = Filter.read(asked.filter) if asked.filter is not None else None
    client_id = client_of(request, asked.client_id)
    least = _least(asked.min_grade, services.grades)
    picture = await embed(request, services, form.file, caller_of(request, client_id))
    return await _answer(
        request,
        services,
        client_id,
        picture.embedding,
        asked.limit,
        asked.min_similarity,
        grades=services.grades,
        least=least,
        digest=picture.digest,
        where=where,
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


def _least(min_grade: str | None, grades: Grades | None, *, words: bool = False) -> float | None:
    """The least cosine that is asked for. Raises BadParameter for no grade, and where there are none to ask for."""
    if min_grade is None:
        return None
    grade = grade_named(min_grade)
    if grades is None:
        raise BadParameter(
            "minGrade: this model has no grades for words; use minSimilarity."
            if words
            else "minGrade: this model has no grades, since it was exported without; use minSimilarity, or export it "
            "again."
        )
    return grades.least(grade)


async def _answer(
    request: Request,
    services: Services,
    client_id: str,
    embedding: Vectors,
    limit: int,
    min_similarity: float | None,
    *,
    grades: Grades | None,
    least: float | None,
    digest: bytes | None = None,
    media_id: str | None = None,
    where: Filter | None = None,
    timings: Timings,
) -> Response[SearchAnswer]:
    started = perf_counter()
    found = await services.catalogue.search(
        client_id, embedding, limit=limit, min_similarity=min_similarity, digest=digest, media_id=media_id, where=where
    )
    seconds = perf_counter() - started
    services.metrics.searched(seconds, found.plan)
    note(request, {"search": seconds})
    milliseconds = {stage: ms(value) for stage, value in {**timings, "search": seconds}.items()}
    # By the cosine that is shown. Best first, so what falls away is the end.
    matches = [Match.of(match, grades) for match in found.matches]
    answer = SearchAnswer(
        results=matches if least is None else [match for match in matches if match.cosine >= least],
        space=services.encoder.space.id,
        plan=found.plan,
        timings=milliseconds,
    )
    return Response(answer)
