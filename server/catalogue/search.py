"""The planner of searches: exactly for small clients, through an HNSW index of the client's own for large ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from psycopg import AsyncConnection
from psycopg.rows import RowMaker, TupleRow, tuple_row
from psycopg.types.json import Jsonb

from server.catalogue.boosts import most_of, names_of, parameters_of
from server.catalogue.declared import types_of
from server.catalogue.diversity import diverse
from server.catalogue.filters import NO_TYPES, Conditions, Types, kept
from server.catalogue.grouping import InProduct, best_of, capped, in_product_row, near_enough, others_of, products_of
from server.catalogue.indexes import INDEX_THRESHOLD, MOST_EF_SEARCH, Index, Indexes, Maintained, effort, mean_recall
from server.catalogue.ranking import Given, Ranked, Row, product_row, ranked_row
from server.catalogue.rows import MOST_BONUSES, MOST_MATCHES, Found, IndexAnswer, Match, Plan, Query, SpaceRow
from server.catalogue.statements import Statements
from server.catalogue.vectors import halves
from server.database.connections import Direct
from server.database.failures import translated
from server.database.queries import Queries
from server.database.replica import Replica
from server.database.runner import Runner
from server.database.session import pipeline_with
from server.errors import BadParameter
from server.tracing import span

MARGIN = 16  # candidates beyond the limit: those at its end may be equal, and an index ranks by inner products
WIDER = 4  # times as many candidates, where those before were too few
UNMEASURED_EF_SEARCH = 200  # for an index that was not measured yet: recall 0.993 on 50,000 vectors
INDEXES_KNOWN_FOR = 30.0  # seconds
COMPARISONS_KEPT = 1_000  # in each space: hours of them

# A filter is applied to the candidates that an index gives: a filtered search first asks for this many times as many,
# and for at most half of what ef_search can be, since the farthest candidates of an index are the least certain.
FILTER_FACTOR = 4
MOST_FILTERED = MOST_EF_SEARCH // 2

# Where products are listed once, or near-duplicates left out, the first try is with this many times as many.
CHOSEN_FACTOR = 2


@dataclass(slots=True)
class _Listed:
    """As many matches as were asked for, and more where there are some; or fewer, where there are no more."""

    ranked: Sequence[Ranked]
    others: Mapping[str, Sequence[Match]] = field(default_factory=dict)
    candidates: int = 0
    more: bool = False
    """Whether there are candidates that nobody has looked at."""


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
        self._statements = Statements(queries, products)
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
        types = await self._types(query)
        conditions = Conditions.of(query.filter, query.within, types=types)
        parameters = self._parameters(query, conditions, types)
        if conditions.contradictory:
            return Found([], "exact")
        listed = None
        # Few products have few media: comparing with each of those is quicker, and exact. An index has what is active.
        if conditions.product_ids is None and not conditions.inactive:
            indexes = await self._known_indexes()
            if (index := indexes.get(self._indexes.name_of(query.client_id))) is not None:
                listed = await self._list_by_index(query, conditions, parameters, index)
            if listed is not None and self.on_index_answer is not None and query.plain:
                cosines = tuple(one.match.cosine for one in listed.ranked[: query.limit])
                self.on_index_answer(IndexAnswer(query, cosines))
        plan: Plan = "exact" if listed is None else "index"
        if listed is None:
            listed = await self._list_exactly(query, conditions, parameters)
        return _found(query, listed, plan)

    # --- exact searches beside those of an index ---------------------------------------------------------------------

    async def search_again(self, query: Query) -> list[float]:
        """The cosines of what an exact search for the query's vector finds, best first."""
        by_vector = replace(query, digest=None, media_id=None)
        types = await self._types(by_vector)
        conditions = Conditions.of(by_vector.filter, by_vector.within, types=types)
        parameters = self._parameters(by_vector, conditions, types)
        listed = await self._list_exactly(by_vector, conditions, parameters)
        return [one.match.cosine for one in listed.ranked[: query.limit]]

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

    async def _types(self, query: Query) -> Types:
        """What the attributes that the query looks at are declared as."""
        names = query.filter.names | query.within.names | names_of(query.boosts)
        return await types_of(self._reads, query.client_id, names)

    def _parameters(self, query: Query, conditions: Conditions, types: Types = NO_TYPES) -> dict[str, Any]:
        """The parameters of the statement `search`, but for the number of candidates. Raises BadParameter."""
        check(query)
        after = query.after
        # Whoever chooses among the matches wants all that are known; of products, the first ones are enough where none
        # of them was shown before.
        chosen = _chosen_from(query)
        known = chosen and not (query.grouped and query.after is None and query.distinct is None)
        return {
            "client_id": query.client_id,
            "embedding": halves(query.vector, self._space.dimensions),
            "rows": None if known else query.limit + 1,
            "same": None if chosen else query.limit + 1,
            "upto": None if after is None else after.rank,
            "after_rank": None if after is None else after.rank,
            "after_own_media": None if after is None else after.own_media,
            "after_own_file": None if after is None else after.own_file,
            "after_id": None if after is None else after.media_id,
            # Where bonuses change the order, what is too far lies between what is near enough.
            "least": query.least if query.bonuses or query.boosts else None,
            "least_named": query.least_named,
            "named": [*query.bonuses],
            "bonuses": [float(one) for one in query.bonuses.values()],
            **parameters_of(query.boosts, types),
            "product_ids": conditions.product_ids,
            "kind": conditions.kind,
            "attributes": conditions.jsonpath,
            "inactive": conditions.inactive,
            "digest": query.digest,
            "media_id": query.media_id,
            "without_blank": query.without_blank,
            **query.shown.parameters,
        }

    async def _list_exactly(self, query: Query, conditions: Conditions, parameters: Mapping[str, Any]) -> _Listed:
        """The matches by comparing with all media that pass."""
        among = "active" if conditions.any and not query.boosts else "active_where"
        if conditions.inactive:
            among = "of_any_state"
        asked = (query.limit + MARGIN) * (CHOSEN_FACTOR if _chosen_from(query) else 1)
        near = "near_exactly"
        while True:
            statement = self._statements.of(query, near, among, form=_form(query))
            rows: list[Row[Any]] = await self._reads.fetch(
                statement, {**parameters, "candidates": asked}, _row(query), "search_exactly", client=query.client_id
            )
            given = Given.of(rows, asked, whole=near == "level_exactly")
            listed = await self._listed(query, given, parameters)
            enough = _enough(query) if _chosen_from(query) else query.limit
            if len(listed.ranked) >= enough or given.all:
                return listed
            # Too many are equal, or are not listed.
            asked *= WIDER
            near = "level_exactly"

    async def _list_by_index(
        self, query: Query, conditions: Conditions, parameters: Mapping[str, Any], index: Index
    ) -> _Listed | None:
        """The matches through the index; None where they are uncertain, and only an exact search can give them."""
        wanted = query.depth + query.limit
        candidates = wanted + MARGIN
        # How many candidates are listed is not known where something is asked of them: near the query it may be all or
        # none. The first ones show.
        choosy = not conditions.any or _chosen_from(query) or bool(query.boosts)
        if not choosy and 2 * wanted > MOST_EF_SEARCH:
            return None
        factor = CHOSEN_FACTOR if conditions.any and not query.boosts else FILTER_FACTOR
        asked = min(factor * candidates, MOST_FILTERED) if choosy else candidates
        while asked > wanted:
            given = await self._through(query, index, asked, parameters)
            listed = await self._listed(query, given, parameters)
            if len(listed.ranked) >= _enough(query) or given.ended:
                return listed
            if not choosy or not given.ranked or asked >= MOST_FILTERED:
                return None
            if query.boosts:
                asked = MOST_FILTERED
                continue
            several = max(1, min(len(listed.ranked) if _chosen_from(query) else len(given.ranked), query.limit))
            needed = round(1.3 * asked * candidates / (query.depth + several))
            if needed > MOST_FILTERED:
                return None
            asked = max(needed, asked + 1)
        return None

    async def _through(self, query: Query, index: Index, candidates: int, parameters: Mapping[str, Any]) -> Given[Any]:
        """What so many candidates from the index give."""
        settings = effort(min(max(index.ef_search or UNMEASURED_EF_SEARCH, 2 * candidates), MOST_EF_SEARCH))
        asked = {**parameters, "candidates": candidates}
        statement = self._statements.of(query, "near_by_index", form=_form(query))

        async def search(connection: AsyncConnection[TupleRow]) -> list[Row[Any]]:
            # A pipeline is one transaction and one round trip: begin and commit would be two more round trips.
            async with pipeline_with(settings, connection):
                cursor = connection.cursor(row_factory=_row(query))
                await cursor.execute(statement, asked)
            return await cursor.fetchall()

        rows = await self._reads.read(search, "search_by_index", client=parameters["client_id"])
        # What the index cut off is no nearer than its farthest candidate.
        beyond = most_of(query.boosts) if query.boosts else 0
        return Given.of(rows, candidates, beyond=beyond, least=parameters["least"])

    # --- from candidates to a list -----------------------------------------------------------------------------------

    async def _listed(self, query: Query, given: Given[Any], parameters: Mapping[str, Any]) -> _Listed:
        """What is to be listed of the candidates whose place is sure."""
        listed = _Listed(given.sure, candidates=given.candidates, more=not given.all)
        most = query.max_per_product
        if query.grouped:
            products = [one.product_id for one in given.sure]
            listed.ranked, listed.others = await self._grouped(query, products, given.floor, parameters)
        elif most is not None and query.distinct is None and query.after is None:
            listed.ranked = capped(listed.ranked, most)
        elif most is not None and query.distinct is None:
            # What came before counts as well, and is not among the candidates.
            rows = await self._in_products(query, products_of(listed.ranked), most, parameters)
            listed.ranked = best_of(rows, most, given.floor)
        if query.distinct is not None:
            listed.ranked = await self._distinct(query, listed.ranked, query.distinct)
        return listed

    async def _grouped(
        self, query: Query, products: Sequence[str], floor: float, parameters: Mapping[str, Any]
    ) -> tuple[list[Ranked], dict[str, Sequence[Match]]]:
        """The best match of each product, and by the product what else it has: as many products as tell enough."""
        best: list[Ranked] = []
        others: dict[str, Sequence[Match]] = {}
        # Of a diverse list it is not known how many are needed.
        start, step = 0, _enough(query) if query.distinct is None else len(products)
        while start < len(products) and len(best) < _enough(query):
            rows = await self._in_products(query, products[start : start + step], query.group_size + 1, parameters)
            best += best_of(rows, 1, floor)
            others |= others_of(rows, query.group_size)
            start, step = start + step, 2 * step
        return sorted(best, key=lambda one: -one.key.rank), others

    async def _distinct(self, query: Query, ranked: Sequence[Ranked], least: float) -> list[Ranked]:
        """Those that are not too much like one before them, at most as many as were asked for."""
        vectors: dict[str, NDArray[np.float32]] = {}
        listed: list[Ranked] = []
        start, step = 0, query.limit + MARGIN
        while start < len(ranked) and len(listed) < query.limit:
            part = [one.match.media_id for one in ranked[start : start + step]]
            vectors |= await self._vectors_of(query.client_id, part)
            start, step = start + step, 2 * step
            listed = diverse(ranked[:start], vectors, least, query.limit, query.max_per_product)
        return listed

    async def _in_products(
        self, query: Query, products: Sequence[str], most: int, parameters: Mapping[str, Any]
    ) -> list[InProduct]:
        """The best matches of these products, at most so many of each."""
        if not products:
            return []
        statement = self._statements.of(query, "in_products")
        asked = {**parameters, "products": products, "most": most}
        return await self._reads.fetch(statement, asked, in_product_row, "in_products", client=query.client_id)

    async def _vectors_of(self, client_id: str, media_ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        parameters = {"client_id": client_id, "media_ids": media_ids}

        async def fetch(connection: AsyncConnection[TupleRow]) -> dict[str, NDArray[np.float32]]:
            # Half a thousand numbers are read much sooner as they are than from a text.
            cursor = connection.cursor(binary=True, row_factory=tuple_row)
            rows = await (await cursor.execute(self._queries["vectors_of"], parameters)).fetchall()
            return {media_id: vector.to_numpy() for media_id, vector in rows}

        return await self._reads.read(fetch, "vectors_of", client=client_id)

    async def cosines_of(
        self, client_id: str, media_ids: Sequence[str], vectors: Sequence[ArrayLike]
    ) -> dict[str, list[float]]:
        """By the media's id: its cosines with these vectors, float[D] of unit length. Without those that have none."""
        texts = [str(halves(vector, self._space.dimensions).to_list()) for vector in vectors]
        parameters = {"client_id": client_id, "media_ids": media_ids, "vectors": texts}
        rows = await self._reads.fetch(
            self._queries["cosines_of"], parameters, tuple_row, "cosines_of", client=client_id
        )
        return dict(rows)

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

    def know_no_indexes(self) -> None:
        """Search exactly from now on, for whoever measures what an index gives."""
        self._known, self._known_at = {}, float("inf")

    async def _known_indexes(self) -> Mapping[str, Index]:
        """The indexes that are complete, by name. An outdated answer costs time, never matches."""
        if time.monotonic() - self._known_at > INDEXES_KNOWN_FOR:
            listed = await self._reads.read(self._indexes.listed, "indexes")
            self._known = {index.name: index for index in listed if index.valid}
            self._known_at = time.monotonic()
        return self._known


def check(query: Query) -> None:
    """Raises BadParameter where what is asked for makes no sense, alone or together."""
    if not 1 <= query.limit <= MOST_MATCHES:
        raise BadParameter(f"The limit must be from 1 to {MOST_MATCHES:,}.")
    if len(query.bonuses) > MOST_BONUSES:
        raise BadParameter(f"At most {MOST_BONUSES:,} products can have a bonus in one search.")
    if query.grouped and query.max_per_product is not None:
        raise BadParameter("maxPerProduct: with groupBy there is one row a product; leave it out.")
    if query.distinct is not None and query.after is not None:
        raise BadParameter("distinct: such a list has one page. Ask for a larger limit in place of a cursor.")


def _chosen_from(query: Query) -> bool:
    """Whether some matches are not listed because of others."""
    return query.grouped or query.max_per_product is not None or query.distinct is not None


def _form(query: Query) -> str:
    """What the statement is to give of its candidates."""
    return "products_of_matches" if query.grouped else "search"


def _row(query: Query) -> Callable[[Any], RowMaker[Row[Any]]]:
    """What makes its rows."""
    return product_row if query.grouped else ranked_row


def _enough(query: Query) -> int:
    """How many matches tell that others follow, too."""
    return query.limit if query.distinct is not None else query.limit + 1


def _found(query: Query, listed: _Listed, plan: Plan) -> Found:
    ranked = listed.ranked[: query.limit]
    # Of queries with bonuses the statement has left out what is too far.
    least = None if query.bonuses else query.least
    near = [one for one in ranked if least is None or one.match.cosine >= least]
    # Without bonuses the order is that of the cosines: what follows a match that is too far is too far as well.
    more = (listed.more or len(listed.ranked) > query.limit) and len(near) == len(ranked) == query.limit
    return Found(
        [one.match for one in near],
        plan,
        end=near[-1].key if more and query.distinct is None else None,
        others=near_enough({one.match.product_id: listed.others.get(one.match.product_id, ()) for one in near}, least)
        if query.grouped
        else {},
        candidates=listed.candidates,
    )
