"""What a search may be narrowed by beyond the client: products, the kind of media, and attributes of products.

In JSON:

    {"productIds": ["p-1", "p-2"],
     "kind": "image",
     "attributes": {"category": "shoes", "colour": ["red", "blue"], "price": {"gte": 10, "lt": 50}}}

All of it must hold. An attribute is given as the value it must equal, as a list of which it must equal one, or as a
range. Where a product's attribute is a list itself, one of its values must do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from server.errors import BadParameter

Kind = Literal["image", "video"]
Number = int | float
Scalar = str | Number | bool

MOST_PRODUCTS = 1000

Key = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]


class Range(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Numbers above (`gt`), from (`gte`), below (`lt`) or up to (`lte`) something; at least one is given."""

    gt: Number | None = None
    gte: Number | None = None
    lt: Number | None = None
    lte: Number | None = None

    def __post_init__(self) -> None:
        if (self.gt, self.gte, self.lt, self.lte) == (None, None, None, None):
            raise ValueError("a range needs at least one of gt, gte, lt and lte")


class Filter(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", omit_defaults=True, kw_only=True):
    """What a match must be. Nothing given lets all through."""

    product_ids: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=MOST_PRODUCTS)] | None = None
    kind: Kind | None = None
    attributes: (
        dict[Key, Scalar | Annotated[tuple[Scalar, ...], msgspec.Meta(min_length=1, max_length=100)] | Range] | None
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
        """From what `plain` gave. Raises BadParameter."""
        return cls() if plain is None else cls.read(json.dumps(plain))

    @property
    def plain(self) -> dict[str, Any] | None:
        """As JSON's types; None where nothing is asked."""
        return msgspec.to_builtins(self) or None

    @property
    def jsonpath(self) -> str | None:
        """What the attributes must fulfil, as PostgreSQL's jsonpath; None where they may be anything."""
        if not self.attributes:
            return None
        return " && ".join(f"({_condition(key, value)})" for key, value in sorted(self.attributes.items()))


def _condition(key: str, value: Scalar | tuple[Scalar, ...] | Range) -> str:
    at = f"$.{_literal(key)}"
    if isinstance(value, Range):
        bounds = (("> ", value.gt), (">= ", value.gte), ("< ", value.lt), ("<= ", value.lte))
        within = " && ".join(f"@ {sign}{_literal(bound)}" for sign, bound in bounds if bound is not None)
        return f"exists({at} ? ({within}))"
    values = value if isinstance(value, tuple) else (value,)
    return " || ".join(f"{at} == {_literal(one)}" for one in values)


def _literal(value: Any) -> str:
    """A jsonpath literal: its strings are JSON's, and neither a sign nor an exponent is in the way of its numbers."""
    return json.dumps(value, allow_nan=False)
