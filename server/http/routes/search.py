"""Searches: from a picture, a text, a media or a vector to matches."""

from __future__ import annotations

from time import perf_counter

import numpy as np
from litestar import Response, post
from litestar.di import NamedDependency

from server.access.clients import check_item_id
from server.artifact.artifact import Vectors
from server.artifact.grades import SAME_PICTURE, Grades, grade_named
from server.batching.embedder import Timings
from server.catalogue.filters import Filter
from server.catalogue.rows import Found, Query
from server.errors import BadParameter, MediaNotFound, NoText, SpaceMismatch, UnsupportedBody, VectorRefused
from server.http.bodies import JSON, MULTIPART, content_type, read_form, read_json
from server.http.leaving import while_here
from server.http.narrowing import admit_filter, narrowed, require_found
from server.http.openapi import PICTURE, TEXT, SearchForm, contract
from server.http.request import Call, Request, call_of, principal_of
from server.http.routes.embeddings import embed
from server.http.signed import addressing
from server.http.timing import ms, note, note_vector
from server.http.wire import Match, SearchAnswer, SearchFields, SearchRequest
from server.lifespan import Services


@post(
    "/api/search/by-image",
    status_code=200,
    **contract(
        "searchByImage",
        *PICTURE,
        accepts={MULTIPART: SearchForm},
        answers={200: ("The matches, best first.", SearchAnswer)},
        lane=True,
    ),
    tags=["search"],
)
async def search_by_image(request: Request, services: NamedDependency[Services]) -> Response[SearchAnswer]:
    """Find the pictures that are most like this one, as the legacy service did."""
    return await _by_form(request, services)


@post(
    "/v1/search",
    status_code=200,
    **contract(
        "search",
        *PICTURE,
        *TEXT,
        MediaNotFound,
        SpaceMismatch,
        VectorRefused,
        accepts={MULTIPART: SearchForm, JSON: SearchRequest},
        answers={200: ("The matches, best first.", SearchAnswer)},
        lane=True,
    ),
    tags=["search"],
)
async def search(request: Request, services: NamedDependency[Services]) -> Response[SearchAnswer]:
    """Find the pictures that are most like a picture, a text, a media of the catalogue, or a vector."""
    if content_type(request) == MULTIPART:
        return await _by_form(request, services)
    if content_type(request) == JSON:
        return await _by_json(request, services)
    raise UnsupportedBody(f"Send a picture as {MULTIPART}, or what else to search with as {JSON}.")


async def _by_form(request: Request, services: Services) -> Response[SearchAnswer]:
    form = await read_form(request)
    asked = form.read(SearchFields)
    read = Filter.read(asked.filter) if asked.filter is not None else Filter()
    admitted = admit_filter(read, principal_of(request.scope))
    call = call_of(request, asked.client_id)
    least = _least(asked.min_grade, services.grades)
    picture = await embed(request, call, services, form.file)
    query = Query(
        call.client_id,
        picture.embedding,
        limit=asked.limit,
        min_similarity=asked.min_similarity,
        min_cosine=least,
        filter=admitted,
        digest=picture.digest,
        without_blank=_the_same(asked.min_grade),
    )
    return await _answer(request, call, services, query, services.grades, picture.timings, blank=picture.blank)


async def _by_json(request: Request, services: Services) -> Response[SearchAnswer]:
    asked = await read_json(request, SearchRequest)
    admitted = admit_filter(asked.filter or Filter(), principal_of(request.scope))
    call = call_of(request, asked.client_id)
    words = asked.text is not None
    grades = services.text_grades if words else services.grades
    least = _least(asked.min_grade, grades, words=words)
    vector, timings, blank = await _vector(request, call, services, asked)
    query = Query(
        call.client_id,
        vector,
        limit=asked.limit,
        min_similarity=asked.min_similarity,
        min_cosine=least,
        filter=admitted,
        media_id=asked.media_id,
        without_blank=_the_same(asked.min_grade),
    )
    return await _answer(request, call, services, query, grades, timings, blank=blank)


async def _vector(
    request: Request, call: Call, services: Services, asked: SearchRequest
) -> tuple[Vectors, Timings, bool]:
    """float32[D] to search with, from the one thing that a JSON request names; the time of making it; and whether it is
    the vector of a media that is blank."""
    given = [name for name in ("text", "media_id", "embedding") if getattr(asked, name) is not None]
    if len(given) != 1:
        raise BadParameter("Give exactly one of text, mediaId, and embedding with its space.")
    if asked.space is not None and asked.embedding is None:
        raise BadParameter("space goes with embedding.")
    if asked.text is not None:
        if not asked.text.strip():
            raise NoText
        work = services.embedder.embed_texts([asked.text], within=call.left, caller=call.caller)
        (text,) = await while_here(request, work)
        note_vector(request.scope, text.timings)
        return text.embedding, text.timings, False
    if asked.media_id is not None:
        media_id = check_item_id("mediaId", asked.media_id)
        await require_found(services.catalogue, call.client_id, media_id, call.principal)
        stored = await services.catalogue.media_vector(call.client_id, media_id)
        if stored is None:
            raise MediaNotFound()
        return stored.embedding, {}, stored.blank
    if asked.space is None:
        raise BadParameter("An embedding names its space: give space beside it.")
    if asked.space != services.encoder.space.id:
        raise SpaceMismatch(asked.space, services.encoder.space.id)
    with np.errstate(over="ignore"):  # a number too large for a float32 becomes infinite, and is refused as such
        return np.asarray(asked.embedding, dtype=np.float32), {}, False


def _least(min_grade: str | None, grades: Grades | None, *, words: bool = False) -> float | None:
    """The least cosine of this grade. Raises BadParameter where there is no such grade, or the model has none."""
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


def _the_same(min_grade: str | None) -> bool:
    """Whether only matches are asked for that are the same picture, which a blank one never is."""
    return min_grade in SAME_PICTURE


async def _answer(
    request: Request,
    call: Call,
    services: Services,
    query: Query,
    grades: Grades | None,
    timings: Timings,
    *,
    blank: bool,
) -> Response[SearchAnswer]:
    """The matches with their grades. `timings`: of making the query's vector; `blank`: that of a blank picture."""
    query = narrowed(query, principal_of(request.scope))
    started = perf_counter()
    # Where only the same picture is asked for, nothing matches a blank one.
    found = Found([], "exact") if blank and query.without_blank else await services.catalogue.search(query)
    seconds = perf_counter() - started
    services.metrics.searched(seconds, found.plan)
    note(request.scope, {"search": seconds})
    at = addressing(request, services, call)
    answer = SearchAnswer(
        results=[Match.of(match, grades, at.of(match.media_id), blank=blank) for match in found.matches],
        space=services.encoder.space.id,
        plan=found.plan,
        timings={stage: ms(value) for stage, value in {**timings, "search": seconds}.items()},
    )
    return Response(answer)
