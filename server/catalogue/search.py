"""The planner of searches: exactly for small clients, through an HNSW index of the client's own for large ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from operator import itemgetter
from typing import Any, NamedTuple

from psycopg import AsyncConnection
from psycopg.rows import RowMaker, TupleRow, no_result
from psycopg.types.json import Jsonb

from server.catalogue.declared import types_of
from server.catalogue.filters import Conditions, kept
from server.catalogue.indexes import INDEX_THRESHOLD, MOST_EF_SEARCH, Index, Indexes, Maintained, effort, mean_recall
from server.catalogue.rows import MOST_MATCHES, Found, IndexAnswer, Match, Plan, Query, SpaceRow
from server.catalogue.similarity import similarity
from server.catalogue.vectors import halves
from server.database.connections import Direct
from server.database.failures import translated
from server.database.queries import Queries
from server.database.replica import Replica
from server.database.runner import Runner
from server.database.session import pipeline_with
from server.errors import BadParameter
from server.tracing import span

MARGIN = 16  # candidates beyond the limit: inner products of halves rank a little differently than their cosines
UNMEASURED_EF_SEARCH = 200  # for an index that was not measured yet: recall 0.993 on 50,000 vectors
INDEXES_KNOWN_FOR = 30.0  # seconds
COMPARISONS_KEPT = 1_000  # in each space: hours of them

# A filter is applied to the candidates that an index gives: a filtered search first asks for this many times as many,
# and for at most half of what ef_search can be, since the farthest candidates of an index are the least certain.
FILTER_FACTOR = 4
MOST_FILTERED = MOST_EF_SEARCH // 2


class _Ranked(NamedTuple):
    """A row of the answer: a match, and what the statement says of all candidates."""

    match: Match
    candidates: int
    """How many candidates there were."""
    edge: float | None
    """The lowest cosine among the candidates; None where there were none."""


def _ranked_row(cursor: Any) -> RowMaker[_Ranked]:
    """A row factory of psycopg: rows by the names of their columns, which are looked up once for all rows of an answer.

    Every search makes its rows here, and a dictionary for each row would double their time.
    """
    if cursor.description is None:
        return no_result
    places = {column.name: place for place, column in enumerate(cursor.description)}
    of_match = itemgetter(*(places[field.name] for field in fields(Match)))
    candidates, edge = places["candidates"], places["edge"]
    return lambda values: _Ranked(Match(*of_match(values)), values[candidates], values[edge])


@dataclass(frozen=True, slots=True)
class _FromIndex:
    """What an index gave."""

    matches: list[Match]
    certain: bool
    """Whether as many matches came as were asked for, and no candidate that was cut off is as near as the last."""


class Searcher:
    """Searches one embedding space. Every method may raise CatalogueUnavailable."""

    def __init__(
        self,
        queries: Queries,
        runner: Runner,
        space: SpaceRow,
        recall: float,
        direct: Direct,
        replica: Replica | None = None,
        background: Runner | None = None,
    ) -> None:
        """`queries`: of this space. `recall`: the share of an exact search's matches that a search through an index
        must find on average; below 1. `direct`: where indexes are built. `replica`: what searches run on, and the list
        of indexes is read from; all else runs on `runner`. `background`: what keeps comparisons, of all clients;
        without it `runner`, too."""
        self.on_index_answer: Callable[[IndexAnswer], None] | None = None
        """Called with each search that an index answered."""
        self._queries = queries
        self._runner = runner
        self._background = background or runner
        self._reads = replica or runner
        self._space = space
        self._indexes = Indexes(space, recall)
        self._direct = direct
        products = queries.composed("products_under_policy" if runner.role else "products_of_client")
        self._statements = {
            near: queries.composed("search", near=queries.composed(near, products=products)).as_bytes(None)
            for near in ("near_exactly", "near_exactly_where", "near_exactly_of_any_state", "near_by_index")
        }
        self._known: Mapping[str, Index] = {}
        self._known_at = float("-inf")

    async def search(self, query: Query) -> Found:
        """The nearest active media of the client, best first; where none is near enough, an empty list.

        Among equals the query's `media_id` comes first, then its `digest`, then the rest by media id. Raises
        VectorRefused, BadParameter.

        A client with an index of its own is searched through it. It is searched again exactly where the index gave
        fewer matches than were asked for, or where the limit cut through the middle of equals.
        """
        with span("search", {"twinlens.limit": query.limit}) as searching:
            found = await self._search(query)
            searching.set("twinlens.plan", found.plan)
            searching.set("twinlens.matches", len(found.matches))
            return found

    async def _search(self, query: Query) -> Found:
        conditions = await self._conditions(query)
        if conditions.contradictory:
            return Found([], "exact")
        parameters = self._parameters(query, conditions)
        matches = None
        # Few products have few media: comparing with each of those is quicker, and exact. An index has what is active.
        if conditions.product_ids is None and not conditions.inactive:
            indexes = await self._known_indexes()
            if (index := indexes.get(self._indexes.name_of(query.client_id))) is not None:
                matches = await self._search_by_index(query, conditions, parameters, index)
            if matches is not None and self.on_index_answer is not None:
                self.on_index_answer(IndexAnswer(query, tuple(match.cosine for match in matches)))
        plan: Plan = "exact" if matches is None else "index"
        if matches is None:
            matches = await self._search_exactly(query, conditions, parameters)
        if query.min_similarity is not None:
            matches = [match for match in matches if similarity(match.cosine) >= query.min_similarity]
        if query.min_cosine is not None:
            matches = [match for match in matches if match.cosine >= query.min_cosine]
        return Found(matches, plan)

    # --- exact searches beside those of an index ---------------------------------------------------------------------

    async def search_again(self, query: Query) -> list[float]:
        """The cosines of what an exact search for the query's vector finds, best first."""
        by_vector = replace(query, digest=None, media_id=None)
        conditions = await self._conditions(by_vector)
        parameters = self._parameters(by_vector, conditions)
        return [match.cosine for match in await self._search_exactly(by_vector, conditions, parameters)]

    async def compare(self, answer: IndexAnswer) -> float:
        """The share of an exact search's matches that the index gave; it is kept in the database beside the query."""
        query = answer.query
        exact = await self.search_again(query)
        recall = mean_recall([exact], [list(answer.cosines)])
        plain = kept(query.filter, query.within)
        parameters = {
            "space": self._space.number,
            "client_id": query.client_id,
            "embedding": halves(query.vector, self._space.dimensions),
            "limit": query.limit,
            "where": Jsonb(plain) if plain is not None else None,
            "expected": len(exact),
            "found": round(recall * len(exact)),
            "kept": COMPARISONS_KEPT,
        }

        async def keep(connection: AsyncConnection[TupleRow]) -> None:
            async with connection.transaction():
                await connection.execute(self._queries["keep_comparison"], parameters)
                await connection.execute(self._queries["trim_comparisons"], parameters)

        await self._background.write(keep, "keep_comparison")
        return recall

    # --- the two plans -----------------------------------------------------------------------------------------------

    async def _conditions(self, query: Query) -> Conditions:
        """All that a match must be beyond the client's, with attributes compared as what they are declared as."""
        types = await types_of(self._reads, query.client_id, query.filter.names | query.within.names)
        return Conditions.of(query.filter, query.within, types=types)

    def _parameters(self, query: Query, conditions: Conditions) -> dict[str, Any]:
        """The parameters of the statement `search`, but for the number of candidates."""
        if not 1 <= query.limit <= MOST_MATCHES:
            raise BadParameter(f"The limit must be from 1 to {MOST_MATCHES:,}.")
        return {
            "client_id": query.client_id,
            "embedding": halves(query.vector, self._space.dimensions),
            "limit": query.limit,
            "product_ids": conditions.product_ids,
            "kind": conditions.kind,
            "attributes": conditions.jsonpath,
            "inactive": conditions.inactive,
            "digest": query.digest,
            "media_id": query.media_id,
            "without_blank": query.without_blank,
            **query.shown.parameters,
        }

    async def _search_exactly(self, query: Query, conditions: Conditions, parameters: Mapping[str, Any]) -> list[Match]:
        if conditions.inactive:
            near = "near_exactly_of_any_state"
        else:
            near = "near_exactly" if conditions.any else "near_exactly_where"
        asked = {**parameters, "candidates": query.limit + MARGIN}
        rows = await self._reads.fetch(
            self._statements[near], asked, _ranked_row, "search_exactly", client=query.client_id
        )
        return [row.match for row in rows]

    async def _search_by_index(
        self, query: Query, conditions: Conditions, parameters: Mapping[str, Any], index: Index
    ) -> list[Match] | None:
        """The matches through the index; None where they are uncertain, and only an exact search can give them."""
        candidates = query.limit + MARGIN
        if conditions.any:
            if 2 * query.limit > MOST_EF_SEARCH:
                return None
            given = await self._through(index, query.limit, candidates, parameters)
            return given.matches if given.certain else None
        # How many candidates pass the filter is not known: near the query it may be all or none. The first ones show.
        asked = min(FILTER_FACTOR * candidates, MOST_FILTERED)
        while asked > query.limit:
            given = await self._through(index, query.limit, asked, parameters)
            if given.certain:
                return given.matches
            if not given.matches or asked >= MOST_FILTERED:
                return None
            needed = round(1.3 * asked * candidates / len(given.matches))
            if needed > MOST_FILTERED:
                return None
            asked = max(needed, asked + 1)
        return None

    async def _through(self, index: Index, limit: int, candidates: int, parameters: Mapping[str, Any]) -> _FromIndex:
        """The matches among so many candidates from the index, at most `limit`."""
        settings = effort(min(max(index.ef_search or UNMEASURED_EF_SEARCH, 2 * candidates), MOST_EF_SEARCH))
        asked = {**parameters, "candidates": candidates}

        async def search(connection: AsyncConnection[TupleRow]) -> list[_Ranked]:
            # A pipeline is one transaction and one round trip: begin and commit would be two more round trips.
            async with pipeline_with(settings, connection):
                cursor = connection.cursor(row_factory=_ranked_row)
                await cursor.execute(self._statements["near_by_index"], asked)
            return await cursor.fetchall()

        rows = await self._reads.read(search, "search_by_index", client=parameters["client_id"])
        matches = [row.match for row in rows]
        if len(rows) < limit:
            return _FromIndex(matches, certain=False)
        # What the index cut off is no nearer than its farthest candidate.
        last = rows[-1]
        return _FromIndex(matches, last.candidates < candidates or last.edge is None or last.match.cosine > last.edge)

    # --- indexes -----------------------------------------------------------------------------------------------------

    async def maintain_indexes(self, threshold: int = INDEX_THRESHOLD, *, thorough: bool = True) -> Maintained:
        """Give each client with at least `threshold` active media an index of its own; drop those no longer needed.

        As `Indexes.maintain` has it. Raises SessionNeeded.
        """
        with translated():
            done = await self._indexes.maintain(self._direct, threshold, thorough=thorough)
        if done != Maintained():
            self._known_at = float("-inf")
        return done

    async def _known_indexes(self) -> Mapping[str, Index]:
        """The indexes that are complete, by name. An outdated answer costs time, never matches."""
        if time.monotonic() - self._known_at > INDEXES_KNOWN_FOR:
            listed = await self._reads.read(self._indexes.listed, "indexes")
            self._known = {index.name: index for index in listed if index.valid}
            self._known_at = time.monotonic()
        return self._known
