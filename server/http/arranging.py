"""How the matches of a search are arranged: what a request asks for beyond the nearest pictures, and its pages."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from server.access.scopes import Principal
from server.batching.embedder import digest_of
from server.catalogue.boosts import read_boosts
from server.catalogue.rows import DEFAULT_GROUP, Found, Query
from server.catalogue.search import check
from server.catalogue.words import Naming
from server.errors import BadParameter
from server.http.cursors import SearchCursors
from server.http.request import Call
from server.http.sought import Aim, Sought
from server.http.wire import (
    ComposedFields,
    ExplainedWords,
    Explanation,
    MatchExplanation,
    MatchWords,
    SearchFields,
    SearchRequest,
)
from server.lifespan import Services


def arranged(query: Query, asked: SearchFields | ComposedFields | SearchRequest) -> Query:
    """The query with what the request asks for. Raises BadParameter where that makes no sense."""
    if isinstance(asked, SearchFields):
        return query
    if asked.group_size is not None and asked.group_by is None:
        raise BadParameter("groupSize goes with groupBy.")
    if asked.distinct is not None and asked.cursor is not None:
        raise BadParameter("distinct: such a list has one page. Ask for a larger limit in place of a cursor.")
    boosts = read_boosts(asked.boosts) if isinstance(asked.boosts, str) else asked.boosts
    found = replace(
        query,
        grouped=asked.group_by is not None,
        group_size=DEFAULT_GROUP if asked.group_size is None else asked.group_size,
        max_per_product=asked.max_per_product,
        distinct=asked.distinct,
        boosts=tuple(boosts or ()),
    )
    check(found)
    return found


class Pages:
    """The pages of one list, for one caller."""

    def __init__(self, cursors: SearchCursors, allowed: int | None) -> None:
        """`allowed`: how many matches the caller may have on all pages together; None: no end."""
        self._cursors = cursors
        self._allowed = allowed

    def begun(self, query: Query, cursor: str | None) -> Query:
        """The query of the page that the cursor names; without one, of the first. Raises BadParameter."""
        if (place := self._cursors.read(cursor)) is None:
            return query
        after, depth = place
        left = query.limit if self._allowed is None else min(query.limit, self._allowed - depth)
        return replace(query, after=after, depth=depth, limit=left)

    def next(self, query: Query, found: Found) -> str | None:
        """The cursor of the page after this one; None where nothing follows, or nothing that the caller may have."""
        depth = query.depth + len(found.matches)
        if found.end is None or (self._allowed is not None and depth >= self._allowed):
            return None
        return self._cursors.write(found.end, depth)


async def pages_of(
    services: Services, call: Call, query: Query, aim: Aim, sought: Sought, principal: Principal, *, by_words: bool
) -> Pages:
    """The pages of what this query finds. `by_words`: products that words name come first. Raises KeysUnknown.

    A cursor is bound to what was named to search with, rather than to its vector: another process, or another batch,
    may make a vector of the same picture that differs in its last bit.
    """
    allowed = None if principal.narrowing is None else principal.narrowing.limit
    named = [] if sought.digest is not None else [await digest_of(data) for data in aim.files]
    cursors = SearchCursors(
        services.keyring.url_secret,
        call.client_id,
        services.encoder.space.id,
        msgspec.to_builtins(aim.parts),
        [digest.hex() for digest in ([sought.digest] if sought.digest is not None else named)],
        query.filter.plain,
        query.within.plain,
        query.min_similarity,
        query.min_cosine,
        query.without_blank,
        query.grouped,
        query.max_per_product,
        msgspec.to_builtins(query.boosts),
        by_words,
        allowed,
    )
    return Pages(cursors, allowed)


# --- why a match has its place ---------------------------------------------------------------------------------------


async def explained(
    services: Services, call: Call, aim: Aim, sought: Sought, found: Found, naming: Naming | None
) -> dict[str, MatchExplanation]:
    """By the media's id: why it is where it is. `naming`: what words name, where they were looked up."""
    by_product = {one.product_id: one for one in naming.products} if naming is not None else {}
    vectors = sought.parts or [sought.vector]
    matches = [*found.matches, *(one for others in found.others.values() for one in others)]
    cosines = await services.catalogue.searcher.cosines_of(call.client_id, [one.media_id for one in matches], vectors)
    places = aim.places or range(len(vectors))
    count = aim.count or len(vectors)
    made = {}
    for match in matches:
        of_parts: list[float | None] = [None] * count
        for place, cosine in zip(places, cosines.get(match.media_id, ()), strict=False):
            of_parts[place] = cosine
        words = None
        if (by := by_product.get(match.product_id)) is not None:
            words = MatchWords(by=by.by, likeness=by.likeness, bonus=by.bonus)
        boosts = round(match.ranking - match.cosine - (words.bonus if words is not None else 0), 6)
        made[match.media_id] = MatchExplanation(ranking=match.ranking, boosts=boosts, cosines=of_parts, words=words)
    return made


def explanation(query: Query, found: Found, timings: dict[str, float], naming: Naming | None) -> Explanation:
    """How the list came about. `timings`: milliseconds by stage. `naming`: as `explained` takes it."""
    words = None
    if naming is not None:
        corrected = {word: list(others) for word, others in naming.corrected.items()}
        words = ExplainedWords(products=len(naming.products), corrected=corrected)
    return Explanation(plan=found.plan, limit=query.limit, candidates=found.candidates, timings=timings, words=words)
