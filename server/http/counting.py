"""What a search is to count beside its matches: from a request's fields to what the catalogue is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from time import perf_counter
from typing import Any

from server.catalogue.catalogue import Catalogue
from server.catalogue.facets import NO_LEAST, Asked, Counts, Facet, none_of
from server.catalogue.rows import Found, Query
from server.errors import BadParameter, first_of_ours
from server.http.bodies import decoded_field
from server.http.wire import ComposedFields, Facets, SearchFields, SearchRequest


def counts_asked(asked: SearchFields | ComposedFields | SearchRequest) -> Asked | None:
    """What a request would have counted; None where it names no facets. Raises BadParameter."""
    if isinstance(asked, SearchFields):
        return None
    facets: Sequence[str | Facet] | None
    if isinstance(asked, ComposedFields):
        facets = None if asked.facets is None else decoded_field("facets", asked.facets, Facets)
    else:
        facets = asked.facets
    if facets is None:
        if asked.facets_over is not None:
            raise BadParameter("facetsOver says what facets are counted over: give facets beside it.")
        return None
    if asked.facets_over == "matches" and asked.min_similarity is None and asked.min_grade is None:
        raise BadParameter(NO_LEAST)
    named = [Facet(attribute=one) if isinstance(one, str) else one for one in facets]
    return Asked(named, asked.facets_over or "filter")


async def counted_beside(
    searching: Coroutine[Any, Any, Found], catalogue: Catalogue, query: Query, asked: Asked | None, *, nothing: bool
) -> tuple[Found, Counts | None, dict[str, float]]:
    """What a search finds and what is counted, side by side; and the seconds that each took.

    `nothing`: nothing can match. Each of the two asks for a connection of its own and gives it back when it is done.
    Neither holds one while it waits for another, so that they cannot keep each other waiting for ever.
    """
    seconds: dict[str, float] = {}

    async def timed(stage: str, work: Coroutine[Any, Any, Any]) -> Any:
        started = perf_counter()
        made = await work
        seconds[stage] = perf_counter() - started
        return made

    if asked is None:
        return await timed("search", searching), None, seconds
    if nothing and asked.over == "matches":
        return await timed("search", searching), none_of(asked), seconds
    with first_of_ours():
        async with asyncio.TaskGroup() as group:
            counting = group.create_task(timed("facets", catalogue.count(query, asked)))
            found = await timed("search", searching)
    return found, counting.result(), {stage: seconds[stage] for stage in ("search", "facets")}
