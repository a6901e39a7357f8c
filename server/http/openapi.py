"""What Litestar cannot derive for OpenAPI by itself: bodies that are read by Content-Type, and our errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from litestar.openapi import ResponseSpec
from litestar.openapi.spec import (
    OpenAPIMediaType,
    OpenAPIResponse,
    Operation,
    Parameter,
    Reference,
    RequestBody,
    Schema,
)
from litestar.openapi.spec.enums import OpenAPIFormat, OpenAPIType

from server.http.request import DEADLINE_HEADER
from server.http.wire import ClientId, Problem, SearchFields, UploadFields

# --- schemas --------------------------------------------------------------------------------------------------------


def _schema_of(kind: Any) -> Schema:
    """The schema of a struct or another type that msgspec knows, in place, with no references."""
    ((top,), components) = msgspec.json.schema_components([kind], ref_template="{name}")
    return _described(top, components)


def _described(one: Mapping[str, Any], components: Mapping[str, Any]) -> Schema:
    if "$ref" in one:
        return _described(components[one["$ref"]], components)
    # `X | None`: an optional field
    options = [_described(option, components) for option in one.get("anyOf", ()) if option.get("type") != "null"]
    if len(options) == 1:
        return options[0]
    fields: dict[str, Reference | Schema] = {}
    for name, field in one.get("properties", {}).items():
        fields[name] = _described(field, components)
    others, items = one.get("additionalProperties"), one.get("items")
    return Schema(
        type=OpenAPIType(one["type"]) if "type" in one else None,
        any_of=options or None,
        enum=one.get("enum"),
        description=one.get("description"),
        properties=fields or None,
        required=one.get("required") or None,
        additional_properties=_described(others, components) if isinstance(others, dict) else others,
        items=_described(items, components) if isinstance(items, dict) else None,
        default=one.get("default"),
        minimum=_number(one.get("minimum")),
        maximum=_number(one.get("maximum")),
        min_length=_whole(one.get("minLength")),
        max_length=_whole(one.get("maxLength")),
        min_items=_whole(one.get("minItems")),
        max_items=_whole(one.get("maxItems")),
        max_properties=_whole(one.get("maxProperties")),
    )


def _number(value: object) -> float | None:
    return value if isinstance(value, int | float) else None  # as it is: a bound of whole numbers is one


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) else None


_PICTURE = Schema(
    type=OpenAPIType.STRING,
    format=OpenAPIFormat.BINARY,
    description="A picture: JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF.",
)
_BYTES = Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.BINARY)


def _form(fields: type[msgspec.Struct] | None = None, file: Schema = _PICTURE) -> Schema:
    """A form with a `file` part, and the fields of a struct beside it."""
    beside = _schema_of(fields).properties if fields is not None else None
    return Schema(type=OpenAPIType.OBJECT, properties={"file": file, **(beside or {})}, required=["file"])


PictureForm = _form()
FilesForm = _form(file=Schema(type=OpenAPIType.ARRAY, items=_PICTURE))
UploadForm = _form(UploadFields)
SearchForm = _form(SearchFields)


# --- operations -----------------------------------------------------------------------------------------------------

_PROBLEMS = {
    400: "No picture, an unreadable one, or a body that cannot be read.",
    404: "No such thing in this client's catalogue.",
    409: "It does not fit what the catalogue holds, or the vector is of another space.",
    413: "Too large.",
    415: "Not a picture, or not a body that this call reads.",
    422: "A parameter that makes no sense.",
    500: "A fault of ours.",
    503: "Too busy, or not in time: try again after `Retry-After` seconds.",
}
_CLIENT_ID = Parameter(name="clientId", param_in="query", required=False, schema=_schema_of(ClientId))
_DEADLINE = Parameter(
    name=DEADLINE_HEADER,
    param_in="header",
    required=False,
    description="Seconds within which this request is answered or refused, if fewer than the server's own.",
    schema=Schema(type=OpenAPIType.NUMBER, exclusive_minimum=0),
)


def problems(*statuses: int) -> dict[int, ResponseSpec]:
    """The answers for these statuses: all have the one body of errors."""
    return {
        status: ResponseSpec(Problem, description=_PROBLEMS[status], generate_examples=False) for status in statuses
    }


def contract(
    *fails: int,
    accepts: Mapping[str, Schema | type[msgspec.Struct]] | None = None,
    also: Mapping[int, tuple[type[Any], str]] | None = None,
    raw: str | None = None,
    client: bool = True,
) -> dict[str, Any]:
    """A handler's part of the OpenAPI document, as keyword arguments of its decorator.

    `fails`: statuses of its errors beside 422, 500 and 503; `accepts`: its request bodies by content type; `also`:
    answers beside the one of its signature, by status; `raw`: a content type of bytes that it can answer in;
    `client`: whether it belongs to a client.
    """
    statuses = sorted({*fails, 422, 500, 503})
    responses = problems(*statuses)
    for status, (kind, description) in (also or {}).items():
        responses[status] = ResponseSpec(kind, description=description, generate_examples=False)
    content = {
        kind: OpenAPIMediaType(schema=body if isinstance(body, Schema) else _schema_of(body))
        for kind, body in (accepts or {}).items()
    }

    @dataclass
    class Described(Operation):
        def __post_init__(self) -> None:
            if content:
                self.request_body = RequestBody(content=content, required=True)
            self.parameters = [*(self.parameters or []), *([_CLIENT_ID] if client else []), _DEADLINE]
            answers = self.responses or {}
            if 400 not in statuses:
                answers.pop("400", None)  # Litestar's own, which never leaves this server
            success = answers.get("200")
            if raw and isinstance(success, OpenAPIResponse) and success.content is not None:
                success.content[raw] = OpenAPIMediaType(schema=_BYTES)

    return {"operation_class": Described, "responses": responses}
