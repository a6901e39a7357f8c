"""Counts beside a search: how many of what it is among have which value of an attribute, or one within a range.

    ["category", {"attribute": "price", "ranges": [{"lt": 20}, {"gte": 20, "lt": 50}], "stats": true}]

A value of a facet is one that a filter takes: with it as the condition on the attribute, exactly what was counted
passes. So a text is read as what its attribute is declared as (declared.py), and bounds are those of filters.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal

import msgspec
from psycopg.rows import namedtuple_row

from server.catalogue.declared import types_of
from server.catalogue.filters import (
    Bound,
    Conditions,
    Key,
    PlainCondition,
    Scalar,
    Types,
    as_dates,
    as_number,
    is_equal,
    lies_within,
)
from server.catalogue.rows import Query, SpaceRow
from server.catalogue.vectors import halves
from server.database.queries import Queries
from server.database.replica import Replica
from server.database.runner import Runner
from server.errors import BadParameter

MOST_FACETS = 20
MOST_RANGES = 20
"""Of one facet."""
DEFAULT_VALUES = 20
MOST_VALUES = 100
"""Of one facet: those that most have."""

MOST_AT_ONCE = 3
"""Counts that one process has under way; of its pool's eight connections, five are left to searches. The others wait,
and hold no connection meanwhile."""

NO_LEAST = "facetsOver: without minSimilarity or minGrade, all that passes the filter is a match; leave it out."

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Range(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Above (`gt`), from (`gte`), below (`lt`) or up to (`lte`) a bound: all numbers or all dates, as in a filter."""

    gt: Bound | None = None
    gte: Bound | None = None
    lt: Bound | None = None
    lte: Bound | None = None

    def __post_init__(self) -> None:
        if all(getattr(self, name) is None for name in self.__struct_fields__):
            raise ValueError("a range needs at least one of gt, gte, lt, lte")
        _ = self.condition

    @property
    def condition(self) -> PlainCondition:
        """The same as a filter has it. Raises ValueError where the bounds are none."""
        return PlainCondition(gt=self.gt, gte=self.gte, lt=self.lt, lte=self.lte)


class Facet(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """What to count of an attribute: its values, or ranges of them."""

    attribute: Key
    limit: Annotated[int, msgspec.Meta(ge=1, le=MOST_VALUES, description="At most so many values.")] = DEFAULT_VALUES
    ranges: (
        Annotated[
            tuple[Range, ...],
            msgspec.Meta(min_length=1, max_length=MOST_RANGES, description="Count within these, in place of values."),
        ]
        | None
    ) = None
    stats: Annotated[bool, msgspec.Meta(description="Also the least and the greatest number.")] = False


FacetsOver = Literal["filter", "matches"]
"""What is counted: all that passes the filter, or of that what reaches the query's least similarity."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What to count, and of what. Raises BadParameter where an attribute is named twice."""

    facets: Sequence[Facet]
    over: FacetsOver = "filter"

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for facet in self.facets:
            if facet.attribute in seen:
                raise BadParameter(f"facets: {facet.attribute!r} is named twice.")
            seen.add(facet.attribute)


@dataclass(frozen=True, slots=True)
class ValueCount:
    """A value of an attribute, and how many have it."""

    value: Scalar
    count: int


@dataclass(frozen=True, slots=True)
class RangeCount:
    """How many have a value within a range."""

    range: Range
    count: int


@dataclass(frozen=True, slots=True)
class Stats:
    """The least and the greatest number of an attribute, or date where dates are declared; None where there is none."""

    min: int | float | str | None
    max: int | float | str | None
    count: int
    """How many have one."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What was counted. `facets` and `stats` are by attribute, in the order in which they were asked for."""

    total: int
    facets: Mapping[str, Sequence[ValueCount] | Sequence[RangeCount]] = field(default_factory=dict)
    stats: Mapping[str, Stats] = field(default_factory=dict)


def none_of(asked: Asked) -> Counts:
    """The counts where nothing is counted."""
    return Counts(
        0,
        {facet.attribute: [RangeCount(one, 0) for one in facet.ranges or ()] for facet in asked.facets},
        {facet.attribute: Stats(None, None, 0) for facet in asked.facets if facet.stats},
    )


class FacetCounter:
    """Counts in one embedding space. Every method may raise CatalogueUnavailable."""

    def __init__(self, queries: Queries, runner: Runner, space: SpaceRow, replica: Replica | None = None) -> None:
        """`queries`: of the catalogue. `replica`: what counts run on; without it `runner`."""
        self._reads = replica or runner
        self._space = space
        own = Queries.read("facets.sql").of(space.table).borrowing(queries, "product_api_id")
        own = own.including("cosine").including("read_moment").including("read")
        products = queries.composed("products_under_policy" if runner.role else "products_of_client")
        passing = own.composed("passing", products=products)
        self._statement = own.composed("facets", passing=passing).as_bytes(None)
        self._turns = asyncio.Semaphore(MOST_AT_ONCE)

    async def count(self, query: Query, asked: Asked) -> Counts:
        """Count what `Searcher.search` with this query could list, were its limit high enough.

        That is each media with a vector that passes both of the query's filters and, over matches, reaches its least
        similarity and cosine; or, of a grouped query, each product that has such a media. Raises BadParameter,
        VectorRefused.
        """
        named = query.filter.names | query.within.names | {facet.attribute for facet in asked.facets}
        async with self._turns:
            types = await types_of(self._reads, query.client_id, named)
            conditions = Conditions.of(query.filter, query.within, types=types)
            if conditions.contradictory:
                return none_of(asked)
            parameters = {**self._of_query(query, conditions, asked), **_of_facets(asked.facets, types)}
            rows = await self._reads.fetch(
                self._statement, parameters, namedtuple_row, "facets", client=query.client_id
            )
        return _counts(asked, types, rows)

    def _of_query(self, query: Query, conditions: Conditions, asked: Asked) -> dict[str, Any]:
        matches = asked.over == "matches"
        return {
            "client_id": query.client_id,
            "embedding": halves(query.vector, self._space.dimensions),
            "product_ids": conditions.product_ids,
            "kind": conditions.kind,
            "attributes": conditions.jsonpath,
            "inactive": conditions.inactive,
            "grouped": query.grouped,
            "least": _least(query) if matches else None,
            "least_named": query.least_named,
            "named": [*query.bonuses],
            "without_blank": matches and query.without_blank,
        }


def _least(query: Query) -> float:
    """The least cosine of a match. Raises BadParameter where the query names none."""
    if (least := query.least) is None:
        raise BadParameter(NO_LEAST)
    return least


def _of_facets(facets: Sequence[Facet], types: Types) -> dict[str, Any]:
    """The parameters that say what is counted. Facets and ranges have the numbers of their places, from 1."""
    ranges = [
        (number, lies_within(one.condition, types.get(facet.attribute)))
        for number, facet in enumerate(facets, 1)
        for one in facet.ranges or ()
    ]
    return {
        "names": [facet.attribute for facet in facets],
        "types": [types.get(facet.attribute) for facet in facets],
        "limits": [facet.limit for facet in facets],
        "counting": [facet.ranges is None for facet in facets],
        "measuring": [facet.stats for facet in facets],
        "range_facets": [number for number, _ in ranges],
        "range_paths": [path for _, path in ranges],
        "number": as_number(),
        "dates": as_dates(),
        "true": is_equal(True, "boolean"),
        "false": is_equal(False, "boolean"),
    }


def _counts(asked: Asked, types: Types, rows: Sequence[Any]) -> Counts:
    """What the rows of the statement say."""
    of = dict(enumerate(asked.facets, 1))
    values: dict[str, list[ValueCount]] = {facet.attribute: [] for facet in asked.facets if facet.ranges is None}
    within: dict[str, list[RangeCount]] = {facet.attribute: [] for facet in asked.facets if facet.ranges is not None}
    stats: dict[str, Stats] = {}
    total = 0
    for row in rows:
        if row.what == "total":
            total = row.count
            continue
        facet = of[row.facet]
        if row.what == "value":
            values[facet.attribute].append(ValueCount(_value(row.value, row.measure), row.count))
        elif row.what == "range":
            ranges = facet.ranges or ()
            within[facet.attribute].append(RangeCount(ranges[len(within[facet.attribute])], row.count))
        else:
            dates = types.get(facet.attribute) == "date"
            stats[facet.attribute] = Stats(_measured(row.measure, dates), _measured(row.most, dates), row.count)
    named = [facet.attribute for facet in asked.facets]
    return Counts(total, {name: values.get(name) or within.get(name) or [] for name in named}, stats)


def _value(value: Scalar, measure: Decimal | None) -> Scalar:
    """A value as a filter would have it; its measure says that it is a number, or a date."""
    found = _measured(measure, isinstance(value, str))
    return value if found is None else found


def _measured(measure: Decimal | None, date: bool) -> int | float | str | None:
    """A number, or the date that is so many seconds after the beginning of 1970."""
    if measure is None:
        return None
    if date:
        return _written(_EPOCH + timedelta(microseconds=int(measure * 1_000_000)))
    return int(measure) if measure == measure.to_integral_value() else float(measure)


def _written(moment: datetime) -> str:
    """A day where it is the beginning of one, else a time, as RFC 3339 has them."""
    if moment == moment.replace(hour=0, minute=0, second=0, microsecond=0):
        return moment.date().isoformat()
    return moment.replace(tzinfo=None).isoformat() + "Z"
