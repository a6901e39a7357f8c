"""Searches: from a picture, a text, a media or a vector to matches."""

from __future__ import annotations

from dataclasses import replace
from time import perf_counter

from litestar import Response, post
from litestar.di import NamedDependency
from msgspec import UNSET

from server.artifact.grades import SAME_PICTURE, Grades, TextGrades, grade_named
from server.catalogue.cards import Shown
from server.catalogue.facets import Asked
from server.catalogue.filters import Filter
from server.catalogue.rows import Found, Query
from server.catalogue.rows import Match as Row
from server.errors import BadParameter, MediaNotFound, SpaceMismatch, UnsupportedBody, VectorRefused
from server.http.arranging import arranged, explained, explanation, pages_of
from server.http.bodies import JSON, MULTIPART, content_type, decoded_field, read_form, read_json
from server.http.counting import counted_beside, counts_asked
from server.http.leaving import while_here
from server.http.naming import named, words_of
from server.http.narrowing import admit_facets, admit_fields, admit_filter, narrowed
from server.http.openapi import PICTURE, TEXT, ComposedForm, SearchForm, contract
from server.http.request import Call, Request, call_of, principal_of
from server.http.signed import addressing
from server.http.sought import Aim, Sought, aim_of_form, aim_of_json, aim_of_picture, seek
from server.http.timing import ms, note
from server.http.wire import ComposedFields, Match, Result, SearchAnswer, SearchFields, SearchRequest, ShownFields
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
    return await _by_form(request, services, SearchFields)


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
        accepts={MULTIPART: ComposedForm, JSON: SearchRequest},
        answers={200: ("The matches, best first.", SearchAnswer)},
        lane=True,
    ),
    tags=["search"],
)
async def search(request: Request, services: NamedDependency[Services]) -> Response[SearchAnswer]:
    """Find the pictures that are most like a picture, a text, a media of the catalogue, a vector, or several of these.

    Several are the parts of a `query`, each with its weight: the search is for the weighted sum of their vectors, and a
    weight below 0 means less like that. What a match of it has in `similarity` ranks it, and is no likeness; it has no
    `grade`. Words alone also find products by their names, SKUs and searchable attributes, as people type them, and put
    those first. `facets` are counts beside the matches: how many of all that passes the filter have which value of an
    attribute.
    """
    if content_type(request) == MULTIPART:
        return await _by_form(request, services, ComposedFields)
    if content_type(request) == JSON:
        return await _by_json(request, services)
    raise UnsupportedBody(f"Send a picture as {MULTIPART}, or what else to search with as {JSON}.")


async def _by_form(
    request: Request, services: Services, kind: type[SearchFields | ComposedFields]
) -> Response[SearchAnswer]:
    """`kind`: the fields of the call, which may have a `query`."""
    form = await read_form(request)
    asked = form.read(kind)
    read = Filter.read(asked.filter) if asked.filter is not None else Filter()
    among = admit_filter(read, principal_of(request.scope))
    call = call_of(request, asked.client_id)
    if isinstance(asked, ComposedFields):
        aim = aim_of_form(asked.query, asked.crop, form)
        fields = decoded_field("fields", asked.fields, ShownFields) if asked.fields else ()
    else:
        aim, fields = aim_of_picture(form), ()
    shown = admit_fields(fields, call.principal)
    return await _search(request, call, services, asked, aim, among, shown)


async def _by_json(request: Request, services: Services) -> Response[SearchAnswer]:
    asked = await read_json(request, SearchRequest)
    among = admit_filter(asked.filter or Filter(), principal_of(request.scope))
    call = call_of(request, asked.client_id)
    shown = admit_fields(asked.fields or (), call.principal)
    return await _search(request, call, services, asked, aim_of_json(asked), among, shown)


async def _search(
    request: Request,
    call: Call,
    services: Services,
    asked: SearchFields | ComposedFields | SearchRequest,
    aim: Aim,
    among: Filter,
    shown: Shown,
) -> Response[SearchAnswer]:
    """The matches of what the search is for, among what passes the filter, and what they show of their products."""
    counting = admit_facets(counts_asked(asked), call.principal)
    grades = _grades(services, aim)
    query = Query(
        call.client_id,
        (),
        limit=asked.limit,
        min_similarity=asked.min_similarity,
        min_cosine=_least(asked.min_grade, grades, aim),
        filter=among,
        without_blank=_the_same(asked.min_grade),
        shown=shown,
    )
    query = arranged(query, asked)
    sought = await seek(request, call, services, aim)
    query = replace(query, vector=sought.vector, digest=sought.digest, media_id=sought.media_id)
    return await _answer(request, call, services, asked, aim, query, grades, sought, counting)


def _grades(services: Services, aim: Aim) -> Grades | TextGrades | None:
    """What cosines mean; None where nobody has measured it, as for queries of several parts."""
    if aim.several:
        return None
    return services.text_grades if aim.words else services.grades


def _least(min_grade: str | None, grades: Grades | TextGrades | None, aim: Aim) -> float | None:
    """The least cosine of this grade. Raises BadParameter where there is no such grade, or the model has none."""
    if min_grade is None:
        return None
    grade = grade_named(min_grade)
    if grades is None and aim.several:
        raise BadParameter("minGrade: a query of several parts has no grades; use minSimilarity.")
    if grades is None and aim.words:
        raise BadParameter("minGrade: this model has no grades for words; use minSimilarity.")
    if grades is None:
        raise BadParameter(
            "minGrade: this model has no grades, since it was exported without; use minSimilarity, or export it again."
        )
    return grades.least(grade)


def _the_same(min_grade: str | None) -> bool:
    """Whether only matches are asked for that are the same picture, which a blank one never is."""
    return min_grade in SAME_PICTURE


async def _answer(
    request: Request,
    call: Call,
    services: Services,
    asked: SearchFields | ComposedFields | SearchRequest,
    aim: Aim,
    query: Query,
    grades: Grades | TextGrades | None,
    sought: Sought,
    counting: Asked | None,
) -> Response[SearchAnswer]:
    """The matches with their grades, and what is counted."""
    principal = principal_of(request.scope)
    query = narrowed(query, principal)
    words = words_of(aim, asked)
    pages = None
    if not isinstance(asked, SearchFields):
        pages = await pages_of(services, call, query, aim, sought, principal, by_words=words is not None)
        query = pages.begun(query, asked.cursor)
    by_name = await named(services, query, words)
    query = by_name.query
    # Where only the same picture is asked for, nothing matches a blank one.
    nothing = sought.blank and query.without_blank
    searching = _none() if nothing else services.catalogue.search(query)
    work = counted_beside(searching, services.catalogue, query, counting, nothing=nothing)
    found, counts, seconds = await (work if counting is None else while_here(request, work))
    services.metrics.searched(seconds["search"], found.plan)
    timings = {**sought.timings, **by_name.timings, **seconds}
    why = None
    if not isinstance(asked, SearchFields) and asked.explain:
        started = perf_counter()
        why = await explained(services, call, aim, sought, found, by_name.naming)
        timings["explain"] = perf_counter() - started
    note(
        request.scope, {stage: timings[stage] for stage in ("words", "search", "facets", "explain") if stage in timings}
    )
    at = addressing(request, services, call)
    milliseconds = {stage: ms(value) for stage, value in timings.items()}

    def written(match: Row) -> Match:
        return Match.of(match, grades, at.of(match.media_id), blank=sought.blank, shown=query.shown)

    answer = SearchAnswer(
        results=[
            Result.with_others(
                written(match),
                [written(one) for one in found.others.get(match.product_id, ())] if query.grouped else None,
                why[match.media_id] if why is not None else None,
            )
            for match in found.matches
        ],
        next=pages.next(query, found) if pages is not None else None,
        space=services.encoder.space.id,
        plan=found.plan,
        timings=milliseconds,
        explain=explanation(query, found, milliseconds, by_name.naming) if why is not None else UNSET,
    )
    return Response(answer if counts is None else answer.counting(counts))


async def _none() -> Found:
    return Found([], "exact")
