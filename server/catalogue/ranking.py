"""What searches are ranked by: rows of an answer in their one order, and how far down the order is sure.

The order is by rank, then the query's own media, then its own file, then media id. A rank is a whole number of
millionths, so that equal is equal. Whoever only looks at some candidates knows of the others no more than that none has
a higher rank than the lowest of these: so the order is sure down to there, and no further.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from operator import itemgetter
from typing import Any, NamedTuple

from psycopg.rows import RowMaker, no_result

from server.catalogue.rows import Key, Match
from server.catalogue.similarity import MILLIONTHS


class Ranked(NamedTuple):
    """A match and its place."""

    match: Match
    key: Key


class Row(NamedTuple):
    """A row of the answer: a match with its place, and what the statement says of all candidates."""

    ranked: Ranked | None
    """None in the only row of an answer without matches."""
    candidates: int
    """How many candidates there were, beside those that were there for a reason of their own."""
    edge: int | None
    """The lowest rank among these; None where there were none."""


@dataclass(frozen=True, slots=True)
class Given:
    """What a statement gave."""

    ranked: Sequence[Ranked]
    """In their order."""
    candidates: int
    """How many there were, beside those that were there for a reason of their own."""
    floor: float
    """From this rank on, the order is sure: nothing else has it, or a higher one."""
    ended: bool = False
    """Whether all that is no candidate is too far from the query to be a match."""

    @classmethod
    def of(
        cls,
        rows: Sequence[Row],
        asked: int,
        *,
        beyond: int = 0,
        whole: bool = False,
        least: float | None = None,
    ) -> Given:
        """`asked`: for how many candidates. `beyond`: by how much a media that is no candidate can rank above the
        lowest of them. `whole`: all media of the lowest rank are candidates. `least`: the least cosine of a match,
        where the ranks of candidates are their cosines."""
        ranked = [row.ranked for row in rows if row.ranked is not None]
        candidates, edge = (rows[0].candidates, rows[0].edge) if rows else (0, None)
        if candidates < asked or edge is None:
            return cls(ranked, candidates, float("-inf"))
        if least is not None and edge < round(least * MILLIONTHS):
            return cls(ranked, candidates, float("-inf"), ended=True)
        return cls(ranked, candidates, edge if whole else edge + beyond + 1)

    @property
    def all(self) -> bool:
        """Whether there were fewer candidates than asked for."""
        return self.floor == float("-inf")

    @property
    def sure(self) -> list[Ranked]:
        return [one for one in self.ranked if one.key.rank >= self.floor]


def ranked_row(cursor: Any) -> RowMaker[Row]:
    """A row factory of psycopg: rows by the names of their columns, which are looked up once for all rows of an answer.

    Every search makes its rows here, and a dictionary for each row would double their time.
    """
    if cursor.description is None:
        return no_result
    places = places_of(cursor)
    ranked, rank = ranked_of(places), places["rank"]
    candidates, edge = places["candidates"], places["edge"]

    def made(values: Sequence[Any]) -> Row:
        lowest = values[edge]
        return Row(
            ranked(values) if values[rank] is not None else None,
            values[candidates],
            None if lowest is None else int(lowest),
        )

    return made


def places_of(cursor: Any) -> dict[str, int]:
    """The places of the columns by their names."""
    return {column.name: place for place, column in enumerate(cursor.description)}


def ranked_of(places: Mapping[str, int]) -> Callable[[Sequence[Any]], Ranked]:
    """What makes a match and its place of the values of a row."""
    of_match = itemgetter(*(places[field.name] for field in fields(Match)))
    rank, own_media, own_file, media_id = (places[name] for name in Key._fields)

    def made(values: Sequence[Any]) -> Ranked:
        key = Key(int(values[rank]), values[own_media], values[own_file], values[media_id])
        return Ranked(Match(*of_match(values)), key)

    return made
