"""Boosts: what a product's attributes add to the cosines of its media, to rank by.

    [{"attribute": "inStock", "equals": true, "weight": 0.1},
     {"attribute": "margin", "from": 0, "to": 0.5, "weight": 0.05},
     {"attribute": "added", "from": "2026-01-01", "to": "2026-12-31", "weight": 0.05}]

A match is ranked by its cosine plus the sum of weight * f, where f is 1 where the attribute equals the value, and else
0; or, between two bounds, (value - from) / (to - from), but no less than 0 and no more than 1. With `from` above `to`,
less is more. A product without the attribute, or with one of another kind, has f = 0. Where the attribute is a list,
its value with the highest f counts. What attributes are declared as holds here as in filters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from server.catalogue.filters import (
    NO_TYPES,
    AttributeType,
    Bound,
    Key,
    Scalar,
    Types,
    dates_at,
    equal_to,
    moment,
    numbers_at,
)
from server.catalogue.similarity import MILLIONTHS
from server.errors import BadParameter
from server.wording import plainly

MOST_BOOSTS = 8

LARGEST_WEIGHT = 10.0


class Boost(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", kw_only=True):
    """What an attribute adds: `weight` where it equals a value, or a share of it between two bounds, which are both
    numbers or both dates."""

    attribute: Key
    weight: Annotated[float, msgspec.Meta(ge=-LARGEST_WEIGHT, le=LARGEST_WEIGHT)]
    equals: Scalar | None = None
    from_: Bound | None = msgspec.field(name="from", default=None)
    to: Bound | None = None

    def __post_init__(self) -> None:
        whose = f"the boost of {self.attribute!r}"
        if (self.equals is None) == (self.from_ is None and self.to is None):
            raise ValueError(f"{whose} takes equals, or from and to")
        if self.equals is not None:
            return
        if self.from_ is None or self.to is None:
            raise ValueError(f"{whose} takes from and to together")
        if isinstance(self.from_, str) != isinstance(self.to, str):
            raise ValueError(f"{whose} goes from a number to a number, or from a date to a date")
        for bound in (self.from_, self.to):
            try:
                finite = isinstance(bound, str) or math.isfinite(bound)
                _ = moment(bound) if isinstance(bound, str) else None
            except (ValueError, OverflowError) as exc:
                raise ValueError(f"{whose}: {exc}") from exc
            if not finite:
                raise ValueError(f"{whose} goes from a number to a number")
        if self._number(self.from_) == self._number(self.to):
            raise ValueError(f"{whose} goes from one bound to another, and these are equal")

    @staticmethod
    def _number(bound: Bound) -> float:
        """As it is, or a moment in seconds since 1970."""
        return moment(bound).timestamp() if isinstance(bound, str) else float(bound)

    def parameters(self, declared: AttributeType | None) -> list[tuple[str, str, float | None, float | None]]:
        """What finds its f in the attributes of a product, as the statement `boost` takes it: the kind, a jsonpath and
        the bounds, once for each way in which the attribute may be written."""
        if self.equals is not None:
            return [("equals", equal_to(self.attribute, self.equals, declared), None, None)]
        if self.from_ is None or self.to is None:
            return []
        kind, paths = ("date", dates_at(self.attribute)) if isinstance(self.to, str) else (
            "number", numbers_at(self.attribute, declared)
        )  # fmt: skip
        return [(kind, path, self._number(self.from_), self._number(self.to)) for path in paths]


Boosts = Annotated[tuple[Boost, ...], msgspec.Meta(max_length=MOST_BOOSTS)]


class _Named(msgspec.Struct):
    """So that what is wrong is said to be at `boosts`."""

    boosts: Boosts


def read_boosts(text: str) -> tuple[Boost, ...]:
    """From JSON, as a form's field has it. Raises BadParameter."""
    try:
        return msgspec.convert({"boosts": msgspec.json.decode(text)}, _Named).boosts
    except msgspec.ValidationError as exc:
        raise BadParameter(plainly(str(exc))) from exc
    except (msgspec.DecodeError, RecursionError) as exc:
        raise BadParameter(f"boosts is not JSON that can be read: {exc}.") from exc


def names_of(boosts: Sequence[Boost]) -> frozenset[str]:
    """The attributes that they look at."""
    return frozenset(one.attribute for one in boosts)


def most_of(boosts: Sequence[Boost]) -> int:
    """The most that they can add, in millionths."""
    return math.ceil(sum(max(0.0, one.weight) for one in boosts) * MILLIONTHS) + 1


def parameters_of(boosts: Sequence[Boost], types: Types = NO_TYPES) -> dict[str, Any]:
    """The parameters of the statement `boost`."""
    ways = [
        (number, float(one.weight), *way)
        for number, one in enumerate(boosts)
        for way in one.parameters(types.get(one.attribute))
    ]
    names = ("boost_numbers", "boost_weights", "boost_kinds", "boost_paths", "boost_lows", "boost_highs")
    return {name: [way[place] for way in ways] for place, name in enumerate(names)}
