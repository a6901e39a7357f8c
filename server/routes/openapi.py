"""OpenAPI for calls that read their body by Content-Type: Litestar can only describe the one that it binds."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
from litestar.openapi.spec import OpenAPIMediaType, Operation, RequestBody, Schema
from litestar.openapi.spec.enums import OpenAPIFormat, OpenAPIType

_PICTURE = Schema(
    type=OpenAPIType.STRING,
    format=OpenAPIFormat.BINARY,
    description="A picture: JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF.",
)
_CLIENT = Schema(type=OpenAPIType.STRING, description="The client; `demo` when not given.")


def _form(properties: dict[str, Schema]) -> Schema:
    return Schema(type=OpenAPIType.OBJECT, properties={**properties}, required=["file"])


PictureForm = _form({"file": _PICTURE})
FilesForm = _form({"file": Schema(type=OpenAPIType.ARRAY, items=_PICTURE)})
UploadForm = _form({"file": _PICTURE, "clientId": _CLIENT})
SearchForm = _form(
    {
        "file": _PICTURE,
        "clientId": _CLIENT,
        "limit": Schema(type=OpenAPIType.INTEGER, minimum=1, maximum=1000, default=24),
        "minSimilarity": Schema(type=OpenAPIType.NUMBER, minimum=0, maximum=100),
    }
)


def taking(bodies: dict[str, Schema | type[msgspec.Struct]]) -> type[Operation]:
    """An operation class whose request body is one of these, by content type."""
    content = {
        kind: OpenAPIMediaType(schema=body if isinstance(body, Schema) else _schema_of(body))
        for kind, body in bodies.items()
    }

    @dataclass
    class Taking(Operation):
        def __post_init__(self) -> None:
            self.request_body = RequestBody(content=content, required=True)

    return Taking


def _schema_of(struct: type[msgspec.Struct]) -> Schema:
    """A struct's schema in place: the fields that our request bodies have, no references."""
    (_, components) = msgspec.json.schema_components([struct])
    (described,) = components.values()
    return Schema(
        type=OpenAPIType.OBJECT,
        description=described.get("description"),
        properties={name: _property(one) for name, one in described["properties"].items()},
        required=described.get("required") or None,
    )


def _property(described: dict[str, object]) -> Schema:
    options = described.get("anyOf")
    if isinstance(options, list):
        # `X | None`: an optional field
        described = next(one for one in options if one.get("type") != "null")
    items = described.get("items")
    return Schema(
        type=OpenAPIType(str(described["type"])),
        items=_property(items) if isinstance(items, dict) else None,
        default=described.get("default"),
        minimum=_number(described.get("minimum")),
        maximum=_number(described.get("maximum")),
        min_length=_whole(described.get("minLength")),
        max_length=_whole(described.get("maxLength")),
        min_items=_whole(described.get("minItems")),
        max_items=_whole(described.get("maxItems")),
    )


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) else None
