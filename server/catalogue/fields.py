"""What the fields of a product may hold, wherever they come from: a call, or a feed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from server.catalogue.filters import MOST_ATTRIBUTES
from server.errors import BadParameter
from server.wording import plainly

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=500)]
Sku = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]

MOST_VALUES = 100
"""Of an attribute that is a list."""

AttributeName = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
Attribute = str | int | float | bool | None
Value = Attribute | Annotated[list[Attribute], msgspec.Meta(max_length=MOST_VALUES)]
Attributes = Annotated[dict[AttributeName, Value], msgspec.Meta(max_length=MOST_ATTRIBUTES)]
"""Facts about a product that searches filter by: a value, or a list of values, under each name."""


class _Facts(msgspec.Struct, omit_defaults=True):
    name: Name | None = None
    sku: Sku | None = None
    attributes: Attributes | None = None


def check_fields(name: str | None, sku: str | None, attributes: Mapping[str, Any] | None) -> None:
    """Make sure that a product may have these; None is not looked at. Raises BadParameter."""
    try:
        msgspec.convert({"name": name, "sku": sku, "attributes": attributes}, _Facts)
    except msgspec.ValidationError as exc:
        raise BadParameter(_of_one_attribute(attributes) or plainly(str(exc))) from exc


def _of_one_attribute(attributes: Mapping[str, Any] | None) -> str | None:
    """What is wrong with the first attribute that may not be; msgspec does not name it."""
    for name, value in (attributes or {}).items():
        try:
            msgspec.convert(name, AttributeName)
            msgspec.convert(value, Value)
        except msgspec.ValidationError as exc:
            shown = name if len(name) <= 100 else f"{name[:100]}..."
            return f"The attribute {shown!r}: {plainly(str(exc).partition(' - at')[0])}"
    return None
