"""Words alone, as people type them: what they name comes first in what the vectors find."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from time import perf_counter

from server.batching.embedder import Timings
from server.catalogue.rows import Query
from server.catalogue.words import Naming
from server.http.sought import Aim
from server.http.wire import ComposedFields, SearchFields, SearchRequest
from server.lifespan import Services


def words_of(aim: Aim, asked: SearchFields | ComposedFields | SearchRequest) -> str | None:
    """The words that may name products; None where something else is searched for, or the pictures alone are asked."""
    if isinstance(asked, SearchFields) or asked.mode == "visual" or aim.alone is None:
        return None
    return aim.alone.text


@dataclass(frozen=True, slots=True)
class Named:
    """A query within what its caller may find, with a bonus for each product that words name."""

    query: Query
    naming: Naming | None = None
    """None where no words were looked up."""
    timings: Timings = field(default_factory=dict)
    """In seconds; empty where no words were looked up."""


async def named(services: Services, query: Query, words: str | None) -> Named:
    """The query as it is where there are no words."""
    if words is None:
        return Named(query)
    started = perf_counter()
    naming = await services.catalogue.words.find(query, words, is_word=services.embedder.is_word)
    return Named(replace(query, bonuses=naming.bonuses), naming, {"words": perf_counter() - started})
