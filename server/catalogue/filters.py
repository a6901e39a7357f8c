"""What narrows a search beyond the client: products, the kind of media, and attributes of products.

In JSON:

    {"productIds": ["p-1", "p-2"],
     "kind": "image",
     "attributes": {"category": "shoes", "colour": ["red", "blue"], "price": {"gte": 10, "lt": 50},
                    "brand": {"not": "Acme"}, "tags": {"containsAll": ["new", "sale"]}, "added": {"gte": "2026-01-01"}}}

A match must meet all of these conditions. The condition on an attribute is a value that it must equal, a list of values
of which it must equal one, or operators that all hold. Where a product's attribute is a list itself, one of its values
must meet the condition.

All conditions on attributes are one jsonpath, which PostgreSQL evaluates on what is stored. Each is an `exists(...)`,
which is true or false and never unknown, whatever is stored: a value of another type, or a text that is no date, does
not meet the condition. So `not` is exactly its opposite. The index on attributes (GIN, jsonb_path_ops) finds what must
equal a value: values, lists of values, and the kinds of `contains`, unless the attribute is declared as numbers, dates
or true and false, where a text may equal it as well. For ranges, `exists` and `not` alone, the
attributes of each product of the client are looked at.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec

from server.errors import BadParameter
from server.wording import explained

Kind = Literal["image", "video"]
Number = int | float
Scalar = str | Number | bool

AttributeType = Literal["number", "text", "boolean", "date", "list"]
"""What an attribute is declared as. Only texts are then compared otherwise: as numbers, dates, true and false."""

Types = Mapping[str, AttributeType]
"""By the attribute's name, of those that are declared."""

NO_TYPES: Types = {}

MOST_PRODUCTS = 1000

MOST_ATTRIBUTES = 100
"""With a condition each; a product written here has no more. Some thousands exceed PostgreSQL's stack."""

Key = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]


Values = Annotated[tuple[Scalar, ...], msgspec.Meta(min_length=1, max_length=100)]

Bound = Number | str
"""A number, or a text that is a date or a time with its zone, as RFC 3339 has them."""


class PlainCondition(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", omit_defaults=True, kw_only=True
):
    """What an attribute must be, by operators that all hold; at least one is given.

    Above (`gt`), from (`gte`), below (`lt`) or up to (`lte`) a bound: all numbers, or all dates. `exists`: whether it
    has a value other than null. `contains`: among its values is this one; `containsAny`: one of these; `containsAll`:
    each of these.
    """

    gt: Bound | None = None
    gte: Bound | None = None
    lt: Bound | None = None
    lte: Bound | None = None
    exists: bool | None = None
    contains: Scalar | None = None
    contains_any: Values | None = None
    contains_all: Values | None = None

    def __post_init__(self) -> None:
        if all(getattr(self, name) is None for name in self.__struct_fields__):
            raise ValueError(f"a condition needs at least one of {', '.join(self.__struct_encode_fields__)}")
        texts = [bound for _, bound in self.bounds if isinstance(bound, str)]
        if texts and len(texts) < len(self.bounds):
            raise ValueError("the bounds of a range are all numbers or all dates")
        for text in texts:
            moment(text)

    @property
    def bounds(self) -> list[tuple[str, Bound]]:
        """Those that are given, each behind the sign that compares with it."""
        named = ((">", self.gt), (">=", self.gte), ("<", self.lt), ("<=", self.lte))
        return [(sign, bound) for sign, bound in named if bound is not None]


class Condition(
    PlainCondition, frozen=True, forbid_unknown_fields=True, rename="camel", omit_defaults=True, kw_only=True
):
    """The same operators, and `not`: what the attribute must not be. A product without the attribute passes that."""

    not_: Scalar | Values | PlainCondition | None = msgspec.field(name="not", default=None)


OfAttributes = Annotated[dict[Key, Scalar | Values | Condition], msgspec.Meta(max_length=MOST_ATTRIBUTES)]
"""By the attribute's name: the value that it must equal, some of which it must equal one, or operators."""


class Filter(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", omit_defaults=True, kw_only=True):
    """What a match must be. Without conditions, every media of an active product matches."""

    product_ids: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=MOST_PRODUCTS)] | None = None
    kind: Kind | None = None
    attributes: OfAttributes | None = None
    is_active: Literal["any"] | None = None
    """`any`: media of products that are not active match as well. It is for operators only."""

    @classmethod
    def read(cls, text: str) -> Filter:
        """From JSON, as a form's field has it. Raises BadParameter."""
        try:
            return msgspec.json.decode(text, type=cls)
        except msgspec.ValidationError as exc:
            raise BadParameter(f"The filter cannot be read: {explained(exc, text, cls)}") from exc
        except (msgspec.DecodeError, RecursionError) as exc:
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
        """Whether it leaves no media out."""
        return self.product_ids is None and self.kind is None and not self.attributes

    @property
    def names(self) -> frozenset[str]:
        """Of the attributes for which it matters what they are declared as. Whether there is a value, or this text,
        which is no date, is asked in the same way whatever is declared; so are ranges of dates."""
        return frozenset(name for name, value in (self.attributes or {}).items() if _depends_on_type(value))

    def jsonpath(self, types: Types = NO_TYPES) -> str | None:
        """The conditions on attributes as PostgreSQL's jsonpath; None where there are none.

        `types`: what those attributes are declared as that are declared.
        """
        if not self.attributes:
            return None
        conditions = sorted(self.attributes.items())
        return " && ".join(f"({_condition(key, value, types.get(key))})" for key, value in conditions)


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a match must be to pass several filters, in the form that the statements take it."""

    product_ids: list[str] | None
    kind: str | None
    jsonpath: str | None
    contradictory: bool
    """Nothing can pass: the filters have no product, or no kind, in common."""
    inactive: bool = False
    """Media of products that are not active pass as well."""

    @classmethod
    def of(cls, *filters: Filter, types: Types = NO_TYPES) -> Conditions:
        """All filters at once. Each may have a condition of its own on the same attribute: all of them hold."""
        kinds = {one.kind for one in filters if one.kind is not None}
        listed = [set(one.product_ids) for one in filters if one.product_ids is not None]
        products = sorted(set.intersection(*listed)) if listed else None
        paths = [path for one in filters if (path := one.jsonpath(types)) is not None]
        return cls(
            products,
            min(kinds, default=None),
            " && ".join(paths) or None,
            contradictory=products == [] or len(kinds) > 1,
            inactive=any(one.is_active == "any" for one in filters),
        )

    @property
    def any(self) -> bool:
        """Whether every media of an active product passes, and no other."""
        return self.product_ids is None and self.kind is None and self.jsonpath is None and not self.inactive


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


def moment(text: str) -> datetime:
    """A date or a time with its zone, in UTC. Raises ValueError where it is none."""
    found = _moment_of(text)
    if found is None:
        raise ValueError(
            "a bound is a number, a date such as 2026-01-31, or a time with its zone such as 2026-01-31T09:30:00Z"
        )
    return found


def _moment_of(text: str) -> datetime | None:
    """A date or a time with its zone (RFC 3339), in UTC; a date is the beginning of its day there. None for others."""
    if not _RFC_3339.fullmatch(text):
        return None
    try:
        read = datetime.fromisoformat(text)
        return read.replace(tzinfo=UTC) if len(text) == _LENGTH_OF_A_DATE else read.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


# No month and no day is 0: PostgreSQL would take 0000-00-00, which other databases write for none, as a date.
_DATE = "[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
_LENGTH_OF_A_DATE = len("2026-01-31")
_TIME = "T[0-9]{2}:[0-9]{2}:[0-9]{2}"
_FRACTION = "[.][0-9]{1,6}"
_OFFSET = "[+-][0-9]{2}:[0-9]{2}"
_RFC_3339 = re.compile(f"{_DATE}({_TIME}({_FRACTION})?(Z|{_OFFSET}))?")

# How a stored text may be written that is a date: a regular expression, and PostgreSQL's template for the same. Only
# what matches the expression is read by the template: with a type that needs the session's time zone, PostgreSQL would
# fail instead of saying that it does not match (findings/postgresql-jsonpath-dates.sh). Times without a zone, as feeds
# may have them, are taken as UTC.
_DATE_FORMS = [(_DATE, "YYYY-MM-DD", False)] + [
    (f"{_DATE}{_TIME}{fraction}{zone}", f'YYYY-MM-DD"T"HH24:MI:SS{us}{template}', zone == _OFFSET)
    for fraction, us in (("", ""), (_FRACTION, ".US"))
    for zone, template in (("", ""), ("Z", '"Z"'), (_OFFSET, "TZH:TZM"))
]
_BOUND_FORM = 'YYYY-MM-DD"T"HH24:MI:SS.US'


# A text that is a number, wherever one is declared. The server's own feeds write no others.
_LARGEST = 1e300
_NUMBER = "^[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]{1,3})?$"


def _depends_on_type(value: Scalar | tuple[Scalar, ...] | PlainCondition) -> bool:
    """Whether the condition compares otherwise where its attribute is declared as one type or another."""
    if isinstance(value, PlainCondition):
        asked: list[Any] = [value.contains, value.contains_any, value.contains_all]
        asked += [value.not_] if isinstance(value, Condition) else []
        numbers = any(not isinstance(bound, str) for _, bound in value.bounds)
        return numbers or any(_depends_on_type(one) for one in asked if one is not None)
    if isinstance(value, tuple):
        return any(map(_depends_on_type, value))
    return not isinstance(value, str) or _moment_of(value) is not None


def _condition(key: str, value: Scalar | tuple[Scalar, ...] | PlainCondition, declared: AttributeType | None) -> str:
    at = f"$.{_literal(key)}"
    if not isinstance(value, PlainCondition):
        return _one_equals(at, value if isinstance(value, tuple) else (value,), declared)
    held: list[str] = []
    if value.bounds:
        held.append(f"exists({at} ? ({_within(value.bounds, declared)}))")
    if value.exists is not None:
        held.append(f"{'' if value.exists else '!'}exists({at} ? (@ != null))")
    if value.contains is not None:
        held.append(_one_equals(at, (value.contains,), declared))
    if value.contains_any is not None:
        held.append(_one_equals(at, value.contains_any, declared))
    held += [_one_equals(at, (one,), declared) for one in value.contains_all or ()]
    if isinstance(value, Condition) and value.not_ is not None:
        held.append(f"!({_condition(key, value.not_, declared)})")
    return " && ".join(held)


# --- the same of a value that is at hand, for those who count values -------------------------------------------------


def lies_within(range_: PlainCondition, declared: AttributeType | None) -> str:
    """A jsonpath: whether a value, or one of a list of values, lies within the bounds of this condition."""
    return f"exists($ ? ({_within(range_.bounds, declared)}))"


def is_equal(value: Scalar, declared: AttributeType | None) -> str:
    """A jsonpath: whether a value equals this one, as a filter has it."""
    return _one_equals("$", (value,), declared)


def as_number() -> str:
    """The jsonpath that gives the number that a text is, where numbers are declared."""
    return _read_as_number("$")


def as_dates() -> list[str]:
    """The jsonpaths that give the date that a text is, where dates are declared: one for each way to write it."""
    return _read_as_dates("$")


# --- of a product's attribute ----------------------------------------------------------------------------------------


def equal_to(key: str, value: Scalar, declared: AttributeType | None) -> str:
    """The jsonpath that says whether an attribute, or one of its values, equals this one."""
    return _condition(key, value, declared)


def numbers_at(key: str, declared: AttributeType | None) -> list[str]:
    """The jsonpaths that give an attribute's numbers, one for each way in which they may be written."""
    at = f"$.{_literal(key)}"
    return [f'{at} ? (@.type() == "number")', *([_read_as_number(at)] if declared == "number" else [])]


def dates_at(key: str) -> list[str]:
    """The jsonpaths that give an attribute's dates, likewise."""
    return _read_as_dates(f"$.{_literal(key)}")


# --- from conditions to jsonpath -------------------------------------------------------------------------------------


def _read_as_number(at: str) -> str:
    every = [(">=", -_LARGEST), ("<=", _LARGEST)]
    return f'{at} ? (@.type() == "string" && {_as_number(every)}).double()'


def _read_as_dates(at: str) -> list[str]:
    every = [(">=", datetime.min.replace(tzinfo=UTC))]
    return [
        f"{at} ? ({_within_dates(every, pattern, template, zoned)}).datetime({_literal(template)})"
        for pattern, template, zoned in _DATE_FORMS
    ]


def _one_equals(at: str, values: tuple[Scalar, ...], declared: AttributeType | None) -> str:
    return f"exists({at} ? ({' || '.join(_equals(one, declared) for one in values)}))"


def _equals(value: Scalar, declared: AttributeType | None) -> str:
    plainly = f"@ == {_literal(value)}"
    if isinstance(value, bool):
        text = _literal(f"^{str(value).lower()}$")
        return f'{plainly} || @ like_regex {text} flag "i"' if declared == "boolean" else plainly
    if isinstance(value, str):
        if declared == "date" and (day := _moment_of(value)) is not None:
            return f"{plainly} || {_on_dates([('>=', day), ('<=', day)])}"
        return plainly
    return f"{plainly} || {_as_number([('==', value)])}" if declared == "number" else plainly


def _within(bounds: list[tuple[str, Bound]], declared: AttributeType | None) -> str:
    dates = [(sign, moment(bound)) for sign, bound in bounds if isinstance(bound, str)]
    if dates:
        return _on_dates(dates)
    plainly = " && ".join(f"@ {sign} {_literal(bound)}" for sign, bound in bounds)
    return f"({plainly}) || {_as_number(bounds)}" if declared == "number" else plainly


def _as_number(bounds: Sequence[tuple[str, Bound]]) -> str:
    """Whether a text is a number within the bounds. What is too large for a double is none."""
    within = " && ".join(f"@.double() {sign} {_literal(bound)}" for sign, bound in bounds)
    return f"(@ like_regex {_literal(_NUMBER)} && {within})"


def _on_dates(bounds: list[tuple[str, datetime]]) -> str:
    """Whether a text is a date within the bounds, however it is written."""
    return " || ".join(_within_dates(bounds, *form) for form in _DATE_FORMS)


def _within_dates(bounds: list[tuple[str, datetime]], pattern: str, template: str, zoned: bool) -> str:
    """Whether a text that is written in this form lies within the bounds."""
    read = f"@.datetime({_literal(template)})"
    form = _literal(_BOUND_FORM + "TZH:TZM" * zoned)
    zone = "+00:00" * zoned
    within = " && ".join(f"{read} {sign} {_literal(_written(bound) + zone)}.datetime({form})" for sign, bound in bounds)
    return f"(@ like_regex {_literal(f'^{pattern}$')} && {within})"


def _written(bound: datetime) -> str:
    return bound.replace(tzinfo=None).isoformat(timespec="microseconds")


def _literal(value: Any) -> str:
    """A jsonpath literal: its strings are those of JSON, and its numbers may have a sign and an exponent, too."""
    return json.dumps(value, allow_nan=False)
