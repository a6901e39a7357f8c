"""Words alone, as people type them: what they name comes first in what the vectors find."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from time import perf_counter

from server.batching.embedder import Timings
from server.catalogue.rows import Query
from server.catalogue.words import Naming
from server.http.request import Request
from server.http.sought import Aim
from server.http.timing import note
from server.http.wire import Mode
from server.lifespan import Services


def words_of(aim: Aim, mode: Mode) -> str | None:
    """The words that may name products; None where something else is searched for, or the pictures alone are asked."""
    return aim.alone.text if aim.alone is not None and mode == "auto" else None


@dataclass(frozen=True, slots=True)
class Named:
    """A query within what its caller may find, with a bonus for each product that words name."""

    query: Query
    naming: Naming = field(default_factory=Naming)
    timings: Timings = field(default_factory=dict)
    """In seconds; empty where no words were looked up."""


async def named(request: Request, services: Services, query: Query, words: str | None) -> Named:
    """The query as it is where there are no words."""
    if words is None:
        return Named(query)
    started = perf_counter()
    naming = await services.catalogue.words.find(query, words, is_word=services.embedder.is_word)
    timings = {"words": perf_counter() - started}
    note(request.scope, timings)
    return Named(replace(query, bonuses=naming.bonuses), naming, timings)
