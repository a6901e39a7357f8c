"""What narrows a search beyond the client: products, the kind of media, and attributes of products.

In JSON:

    {"productIds": ["p-1", "p-2"],
     "kind": "image",
     "attributes": {"category": "shoes", "colour": ["red", "blue"], "price": {"gte": 10, "lt": 50}}}

A match must meet all of these conditions. The condition on an attribute is a value that it must equal, a list of values
of which it must equal one, or a range. Where a product's attribute is a list itself, one of its values must meet the
condition.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec

from server.errors import BadParameter

Kind = Literal["image", "video"]
Number = int | float
Scalar = str | Number | bool

MOST_PRODUCTS = 1000

MOST_ATTRIBUTES = 100
"""With a condition each; a product written here has no more. Some thousands exceed PostgreSQL's stack."""

Key = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]


class Range(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Numbers above (`gt`), from (`gte`), below (`lt`) or up to (`lte`) a bound; at least one bound is given."""

    gt: Number | None = None
    gte: Number | None = None
    lt: Number | None = None
    lte: Number | None = None

    def __post_init__(self) -> None:
        if (self.gt, self.gte, self.lt, self.lte) == (None, None, None, None):
            raise ValueError("a range needs at least one of gt, gte, lt and lte")


class Filter(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", omit_defaults=True, kw_only=True):
    """What a match must be. Without conditions, every media matches."""

    product_ids: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=MOST_PRODUCTS)] | None = None
    kind: Kind | None = None
    attributes: (
        Annotated[
            dict[Key, Scalar | Annotated[tuple[Scalar, ...], msgspec.Meta(min_length=1, max_length=100)] | Range],
            msgspec.Meta(max_length=MOST_ATTRIBUTES),
        ]
        | None
    ) = None

    @classmethod
    def read(cls, text: str) -> Filter:
        """From JSON, as a form's field has it. Raises BadParameter."""
        try:
            return msgspec.json.decode(text, type=cls)
        except (msgspec.DecodeError, RecursionError) as exc:  # a ValidationError is one, too
            raise BadParameter(f"The filter cannot be read: {exc}.") from exc

    @classmethod
    def of(cls, plain: Mapping[str, Any] | None) -> Filter:
        """The filter from its `plain` form. Raises BadParameter."""
        return cls() if plain is None else cls.read(json.dumps(plain))

    @property
    def plain(self) -> dict[str, Any] | None:
        """The filter in JSON's types; None where it has no conditions."""
        return msgspec.to_builtins(self) or None

    @property
    def without_conditions(self) -> bool:
        """Whether every media passes."""
        return self.product_ids is None and self.kind is None and not self.attributes

    @property
    def jsonpath(self) -> str | None:
        """The conditions on attributes as PostgreSQL's jsonpath; None where there are none."""
        if not self.attributes:
            return None
        return " && ".join(f"({_condition(key, value)})" for key, value in sorted(self.attributes.items()))


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a match must be to pass several filters, in the form that the statements take it."""

    product_ids: list[str] | None
    kind: str | None
    jsonpath: str | None
    contradictory: bool
    """Nothing can pass: the filters have no product, or no kind, in common."""

    @classmethod
    def of(cls, *filters: Filter) -> Conditions:
        """All filters at once. Each may have a condition of its own on the same attribute: all of them hold."""
        kinds = {one.kind for one in filters if one.kind is not None}
        listed = [set(one.product_ids) for one in filters if one.product_ids is not None]
        products = sorted(set.intersection(*listed)) if listed else None
        paths = [path for one in filters if (path := one.jsonpath) is not None]
        return cls(
            products,
            min(kinds, default=None),
            " && ".join(paths) or None,
            contradictory=products == [] or len(kinds) > 1,
        )

    @property
    def any(self) -> bool:
        """Whether every media passes."""
        return self.product_ids is None and self.kind is None and self.jsonpath is None


_WITHIN = "within"


def kept(asked: Filter, within: Filter) -> dict[str, Any] | None:
    """A query's two filters in JSON's types, for those who repeat it; None where neither has conditions."""
    beyond = within.plain
    plain = asked.plain
    return plain if beyond is None else {**(plain or {}), _WITHIN: beyond}


def kept_filters(plain: Mapping[str, Any] | None) -> tuple[Filter, Filter]:
    """The two filters again. Raises BadParameter."""
    asked = dict(plain or {})
    within = asked.pop(_WITHIN, None)
    return Filter.of(asked), Filter.of(within)


def _condition(key: str, value: Scalar | tuple[Scalar, ...] | Range) -> str:
    at = f"$.{_literal(key)}"
    if isinstance(value, Range):
        bounds = (("> ", value.gt), (">= ", value.gte), ("< ", value.lt), ("<= ", value.lte))
        within = " && ".join(f"@ {sign}{_literal(bound)}" for sign, bound in bounds if bound is not None)
        return f"exists({at} ? ({within}))"
    values = value if isinstance(value, tuple) else (value,)
    return " || ".join(f"{at} == {_literal(one)}" for one in values)


def _literal(value: Any) -> str:
    """A jsonpath literal: its strings are those of JSON, and its numbers may have a sign and an exponent, too."""
    return json.dumps(value, allow_nan=False)
