"""The API's description, OpenAPI 3.1: what each call takes and gives, as its handler's `contract` says.

Litestar's own generator cannot know of bodies that are read by Content-Type, nor of our errors, and it names operations
and leaves bodies nameless in ways that make generated clients hard to read. So the document is made here, from the
contracts and from msgspec's schemas of the structs in `wire.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
from litestar.handlers import HTTPRouteHandler
from litestar.routes import BaseRoute, HTTPRoute

from server import errors
from server.access.clients import MOST_CHARACTERS_OF_AN_ID
from server.access.idempotency import LONGEST_KEY
from server.artifact.grades import GRADES
from server.batching.fair_queue import LANES
from server.errors import TwinlensError
from server.http import examples, problems
from server.http.bodies import JSON
from server.http.examples import Example
from server.http.idempotency import IDEMPOTENCY_HEADER, REPLAYED_HEADER
from server.http.request import DEADLINE_HEADER, LANE_HEADER
from server.http.rules import ADMIN, Rule, rule_for
from server.http.wire import (
    ClientId,
    ComposedFields,
    ItemProblem,
    PlacedFields,
    Problem,
    SearchFields,
    UploadFields,
)

VERSION = "3.1.0"
MEDIA_TYPE = "application/vnd.oai.openapi+json"

Json = dict[str, Any]

# --- bodies ---------------------------------------------------------------------------------------------------------

# Generators look for `format`, as OpenAPI 3.0 had it; 3.1 says the same with `contentMediaType`.
_BYTES = {"type": "string", "format": "binary"}
_PICTURE = {
    **_BYTES,
    "contentMediaType": "application/octet-stream",
    "description": "A picture: JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF or HEIC.",
}


@dataclass(frozen=True, slots=True)
class Form:
    """A form with a picture in its part `file`, or with several such parts, and the fields of a struct beside it."""

    name: str
    fields: type[msgspec.Struct] | None = None
    several: bool = False

    def schema(self, fields: Mapping[str, Any]) -> Json:
        """`fields`: the schema's properties of the struct."""
        file = {"type": "array", "items": _PICTURE, "minItems": 1} if self.several else _PICTURE
        properties = {"file": file, **fields}
        return {
            "title": self.name,
            "type": "object",
            "properties": properties,
            "required": ["file"],
            "additionalProperties": False,
        }


PictureForm = Form("PictureForm")
PicturesForm = Form("PicturesForm", several=True)
UploadForm = Form("UploadForm", UploadFields)
PlacedForm = Form("PlacedForm", PlacedFields)
SearchForm = Form("SearchForm", SearchFields)
ComposedForm = Form("ComposedForm", ComposedFields, several=True)

Body = Form | type[Any]
"""A form, a struct, `str` for text, or `bytes`."""


# --- the contract of a call -----------------------------------------------------------------------------------------

# Codes that the body of a request can bring about.
JSON_BODY: tuple[type[TwinlensError], ...] = (
    errors.MalformedRequest,
    errors.UploadTooLarge,
    *(error for error in problems.answered_with(415) if not issubclass(error, errors.MediaRejected)),
)
STORED_PICTURE: tuple[type[TwinlensError], ...] = (
    errors.UnreadablePicture,
    errors.MediaRejected,
    errors.NotAPicture,
    errors.UnsupportedPicture,
    errors.PictureTooLarge,
)
PICTURE: tuple[type[TwinlensError], ...] = (errors.NoPicture, *STORED_PICTURE, *JSON_BODY)
BY_URL: tuple[type[TwinlensError], ...] = (errors.UrlRefused, errors.FetchFailed)
TEXT: tuple[type[TwinlensError], ...] = (errors.NoTextTower, errors.NoText, errors.TextTooLong, errors.TextRejected)
# What may happen to every call, whatever it is.
_ANYWHERE: tuple[type[TwinlensError], ...] = (
    errors.BadParameter,
    errors.RateLimited,
    *problems.answered_with(500),
    # What only those find who ask for the server's health is no answer to others.
    *(error for error in problems.answered_with(503) if not issubclass(error, errors.Unhealthy)),
)

# What may happen where a key is needed.
_WITH_KEY: tuple[type[TwinlensError], ...] = (
    *problems.answered_with(401),
    errors.ScopeMissing,
    errors.RateLimited,
    errors.KeysUnknown,
)
# And to those for whoever runs the server: they have a deadline as well, by the header or the server's own.
_IN_TIME: tuple[type[TwinlensError], ...] = (errors.BadParameter, errors.DeadlineMissed)

_KEY = "contract"

_STATUSES = {
    400: "No picture, an unreadable one, or a body that cannot be read.",
    403: "Not with this key, or not from the page or by the name that the server was called.",
    401: "No key that is good here, or an address whose signature is wrong or expired.",
    404: "No such thing in this client's catalogue.",
    409: "It does not fit what the catalogue holds, the vector is of another space, or the same request is under way.",
    412: "The product is not what the request expects.",
    413: "Too large.",
    415: "Not a picture, or not a body that this call reads.",
    422: "A parameter that makes no sense.",
    424: "The picture could not be fetched from its URL.",
    429: "More than the limits of the key or the client allow: go on after `Retry-After` seconds.",
    500: "A fault of ours.",
    503: "Too busy, or not in time: try again after `Retry-After` seconds.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """What a call takes and gives."""

    name: str
    """The operation id, which generators make the name of a function of."""
    errors: Sequence[type[TwinlensError]]
    answers: Mapping[int, tuple[str, Mapping[str, Body]]]
    """By status: what the answer means, and its bodies by content type."""
    accepts: Mapping[str, Body] = field(default_factory=dict)
    """The request's bodies by content type."""
    client: bool
    lane: bool
    query: Mapping[str, tuple[Any, Any]]
    """Further parameters in the query: their types and defaults; None for none."""
    ours: bool
    """Whether it is a call of the API proper, with a deadline, rather than one for those who run the server."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Names of headers that successful answers have, and what they say."""
    conditions: Mapping[str, str] = field(default_factory=dict)
    """Names of headers that requests may have, and what they say."""
    refused: Mapping[int, type[Problem]] = field(default_factory=dict)
    """By status: the body of errors that say more than others."""

    @property
    def bodies(self) -> Iterator[Body]:
        yield from self.accepts.values()
        yield from self.refused.values()
        for _, contents in self.answers.values():
            yield from contents.values()

    @property
    def statuses(self) -> dict[int, list[type[TwinlensError]]]:
        """The errors by status."""
        found: dict[int, list[type[TwinlensError]]] = {}
        for error in self.errors:
            found.setdefault(problems.status_of_class(error), []).append(error)
        return dict(sorted(found.items()))


def contract(
    name: str,
    *fails: type[TwinlensError],
    answers: Mapping[int, tuple[str, Body | Mapping[str, Body]]],
    accepts: Mapping[str, Body] | None = None,
    client: bool = True,
    lane: bool = False,
    query: Mapping[str, tuple[Any, Any]] | None = None,
    headers: Mapping[str, str] | None = None,
    conditions: Mapping[str, str] | None = None,
    refused: Mapping[int, type[Problem]] | None = None,
    ours: bool = True,
) -> dict[str, Any]:
    """A handler's part of the OpenAPI document, as keyword arguments of its decorator.

    `fails`: its errors, beside those of every call where it is one of `ours`; an answer's body without a content type
    is JSON.
    """
    made = Contract(
        name=name,
        errors=(*fails, *(_ANYWHERE if ours else _IN_TIME)),
        answers={
            status: (meaning, body if isinstance(body, Mapping) else {JSON: body})
            for status, (meaning, body) in answers.items()
        },
        accepts=accepts or {},
        client=client and ours,
        lane=lane,
        query=query or {},
        headers=headers or {},
        conditions=conditions or {},
        refused=refused or {},
        ours=ours,
    )
    return {"operation_id": name, _KEY: made}  # a name that Litestar does not know becomes a key of the handler's `opt`


# --- the document ---------------------------------------------------------------------------------------------------

_REF = "#/components/schemas/{name}"
_REQUEST_ID = {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"}
_TAGS = {
    "search": "From a picture, words, a media, a vector, or several of them, to matches.",
    "embeddings": "From pictures and words to vectors.",
    "products": "A client's products.",
    "media": "The pictures of products.",
    "health": "For those who run the server.",
}
# Sets of values that come more than once, or that programs will want by name.
_ENUMS = {"ErrorCode": problems.codes(), "Grade": [*GRADES], "Lane": [*LANES]}
_RATE_LIMIT = ("RateLimit", "RateLimit-Policy")
_HEADERS = {
    problems.REQUEST_ID_HEADER: (
        "The id of this request, which the log has too: the caller's own, or a new one.",
        _REQUEST_ID,
    ),
    "Server-Timing": ("Milliseconds by stage.", {"type": "string"}),
    "RateLimit": (
        "What is left of each limit (draft-ietf-httpapi-ratelimit-headers): `r` of it, for `t` seconds. Only where "
        "there are limits.",
        {"type": "string"},
    ),
    "RateLimit-Policy": (
        "The limits of this caller: `q` within `w` seconds. Only where there are limits.",
        {"type": "string"},
    ),
    REPLAYED_HEADER: (
        "`true` where this answer was given before, to the same request with the same `Idempotency-Key`.",
        {"type": "string"},
    ),
    "Retry-After": ("Seconds after which another try is likely to succeed.", {"type": "integer", "minimum": 1}),
}


_SECURITY_SCHEMES: Json = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "A key, as `python -m server keys create` prints it. Where keys are off, none is needed.",
    },
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same key."},
}


def document(routes: Iterable[BaseRoute]) -> Json:
    """The description of those calls of `routes` that have a contract, but for the server, which the reader decides."""
    calls = list(_calls(routes))
    components = _components([contract for *_, contract in calls])
    paths: dict[str, Json] = {}
    for path, method, handler, rule, made in calls:
        paths.setdefault(path, {})[method] = _operation(path, handler, rule, made)
    return {
        "openapi": VERSION,
        "info": {
            "title": "Twinlens",
            "version": "1",
            "description": "Search by image for product catalogues.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "tags": [{"name": name, "description": meaning} for name, meaning in _TAGS.items()],
        "paths": paths,
        "components": components,
    }


def _calls(routes: Iterable[BaseRoute]) -> Iterator[tuple[str, str, HTTPRouteHandler, Rule, Contract]]:
    for route in routes:
        if not isinstance(route, HTTPRoute):
            continue
        for handler in route.route_handlers:
            if (made := handler.opt.get(_KEY)) is None:
                continue
            path = re.sub(r"\{(\w+)\}", lambda name: f"{{{_camel(name[1])}}}", route.path_format)
            for method in sorted(handler.http_methods - {"HEAD", "OPTIONS"}):
                rule = rule_for(method, route.path_format)
                yield (
                    path,
                    method.lower(),
                    handler,
                    rule,
                    replace(made, errors=(*made.errors, *_of_access(method, rule, made))),
                )


def _of_access(method: str, rule: Rule, made: Contract) -> Iterator[type[TwinlensError]]:
    """The errors of a call that are not its handler's: of those who may not call."""
    found: list[type[TwinlensError]] = [errors.HostRefused]
    if rule.audited:
        found += (errors.IdempotencyKeyReused, errors.IdempotencyKeyInUse)
    if method not in ("GET", "HEAD"):
        found.append(errors.OriginRefused)
    if not rule.open:
        found += _WITH_KEY
        found += (errors.ClientMismatch,) if rule != ADMIN else ()
        found += (errors.ClientRequired,) if rule.client else ()
    return (error for error in found if error not in made.errors)


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(one.title() for one in others)


def _components(contracts: Sequence[Contract]) -> Json:
    bodies = [body for one in contracts for body in one.bodies]
    forms = {body.name: body for body in bodies if isinstance(body, Form)}
    structs = {body for body in bodies if not isinstance(body, Form) and body not in (str, bytes)} | {Problem}
    schemas = _schemas(sorted(structs, key=lambda struct: struct.__name__))
    for form in forms.values():
        beside = _schemas([form.fields]) if form.fields is not None else {}
        fields = beside.pop(form.fields.__name__)["properties"] if form.fields is not None else {}
        schemas |= {**beside, form.name: form.schema(fields)}
    problems: set[type[Problem]] = {Problem}.union(*(one.refused.values() for one in contracts))
    for name in (*(problem.__name__ for problem in problems), ItemProblem.__name__):
        if name in schemas:
            schemas[name]["properties"]["code"] = _named("ErrorCode")
    schemas |= {name: {"title": name, "type": "string", "enum": values} for name, values in _ENUMS.items()}
    failures = {error for one in contracts for error in one.errors}
    return {
        "securitySchemes": _SECURITY_SCHEMES,
        "schemas": dict(sorted(schemas.items())),
        "headers": {name: {"description": said, "schema": schema} for name, (said, schema) in _HEADERS.items()},
        "examples": {
            error.code: {"value": msgspec.to_builtins(examples.problem(error))}
            for error in sorted(failures, key=lambda error: error.code)
        },
    }


def _schemas(structs: Sequence[Any]) -> dict[str, Json]:
    """The schemas of these structs, and of those that they name, by name."""
    _, found = msgspec.json.schema_components(structs, ref_template=_REF)
    return {name: _tidy(schema) for name, schema in found.items()}


def _schema(kind: Any) -> Json:
    (found,), _ = msgspec.json.schema_components([kind], ref_template=_REF)
    return found


_NULL, _WHOLE, _NUMBER = {"type": "null"}, {"type": "integer"}, {"type": "number"}


def _tidy(schema: Any) -> Any:
    """A schema without what makes generated clients clumsy.

    A field that may be left out need not be told that it may be null, which a form could not say anyway; a whole number
    is a number; and a set of values that comes more than once gets a name.
    """
    if isinstance(schema, list):
        return [_tidy(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    tidied = {name: _tidy(value) if name != "default" else value for name, value in schema.items()}
    if isinstance(said := tidied.get("description"), str):  # a docstring, in lines
        tidied["description"] = " ".join(said.split())
    if options := tidied.get("anyOf"):
        left_out = [_WHOLE] if _NUMBER in options else []
        if tidied.get("default", ...) is None:
            del tidied["default"]
            left_out.append(_NULL)
        tidied["anyOf"] = [option for option in options if option not in left_out]
        if len(tidied["anyOf"]) == 1:
            tidied |= tidied.pop("anyOf")[0]
    return next((_named(name) for name, values in _ENUMS.items() if tidied.get("enum") == values), tidied)


def _named(name: str) -> Json:
    return {"$ref": _REF.format(name=name)}


def _operation(path: str, handler: HTTPRouteHandler, rule: Rule, made: Contract) -> Json:
    summary, _, description = (handler.fn.__doc__ or "").strip().partition("\n\n")
    operation: Json = {
        "operationId": made.name,
        "tags": list(handler.tags or ()),
        "summary": " ".join(summary.split()),
        "description": " ".join([*description.split(), *_scopes(rule)]),
        "parameters": [*_parameters(path, made), *_once(rule)],
        "requestBody": _request_body(made),
        "responses": {str(status): answer for status, answer in _responses(rule, made)},
    }
    # Each scheme alone is enough; an empty list says that none is needed.
    security: list[Json] = [] if rule.open else [{scheme: []} for scheme in _SECURITY_SCHEMES]
    return {**{name: value for name, value in operation.items() if value}, "security": security}


def _scopes(rule: Rule) -> Iterator[str]:
    if not rule.open:
        yield f"Where keys are on, the key needs the scope {' or '.join(f'`{one}`' for one in rule.scopes)}."


def _parameters(path: str, made: Contract) -> Iterator[Json]:
    for name in re.findall(r"\{(\w+)\}", path):
        example = examples.IN_PATH[name]
        # Others than these can be asked for, since older catalogues hold them, but not made.
        made_here = {"minLength": 1, "maxLength": MOST_CHARACTERS_OF_AN_ID} if made.accepts else {}
        schema = {"type": "string", **made_here}
        yield {"name": name, "in": "path", "required": True, "schema": schema, "example": example}
    for name, (kind, default) in made.query.items():
        schema = _schema(kind) if default is None else {**_schema(kind), "default": default}
        yield {"name": name, "in": "query", "required": False, "schema": schema}
    if made.client:
        yield _optional("clientId", "query", _schema(ClientId), "The client that this is about.")
    for name, said in made.conditions.items():
        yield _optional(name, "header", {"type": "string"}, said)
    if not made.ours:
        return
    seconds = {"type": "number", "exclusiveMinimum": 0}
    yield _optional(
        DEADLINE_HEADER,
        "header",
        seconds,
        "Seconds within which this request is answered or refused, if fewer than the server's own.",
    )
    if made.lane:
        said = f"`{LANES[1]}` lets those go first who wait at a screen; `{LANES[0]}` unless given."
        yield _optional(LANE_HEADER, "header", _named("Lane"), said)
    said = (
        "An id for this request, which its answer and the log then have: 1 to 64 letters, digits, `.`, `_` and `-`. "
        "Anything else is replaced."
    )
    yield _optional(problems.REQUEST_ID_HEADER, "header", {"type": "string"}, said)


def _once(rule: Rule) -> Iterator[Json]:
    """Every call that changes something takes a key under which it is made once."""
    if rule.audited:
        said = (
            "A key of the caller's own, such as a UUID: within 24 hours, the same request with the same key is carried "
            "out once, and answered as the first time."
        )
        yield _optional(
            IDEMPOTENCY_HEADER, "header", {"type": "string", "minLength": 1, "maxLength": LONGEST_KEY}, said
        )


def _optional(name: str, place: str, schema: Json, description: str) -> Json:
    return {"name": name, "in": place, "required": False, "description": description, "schema": schema}


def _request_body(made: Contract) -> Json | None:
    if not made.accepts:
        return None
    given = examples.REQUESTS[made.name]
    return {
        "required": True,
        "content": {
            kind: {"schema": _body(body), "examples": _examples(given[kind])} for kind, body in made.accepts.items()
        },
    }


def _responses(rule: Rule, made: Contract) -> Iterator[tuple[int, Json]]:
    usual = [problems.REQUEST_ID_HEADER, *(["Server-Timing", *_RATE_LIMIT] if made.ours else [])]
    for status, (meaning, contents) in made.answers.items():
        headers = _header_refs(*usual, *([REPLAYED_HEADER] if rule.audited else []))
        own = {name: {"description": said, "schema": {"type": "string"}} for name, said in made.headers.items()}
        content = {kind: {"schema": _body(body)} for kind, body in contents.items()}
        if not content:
            yield status, {"description": meaning, "headers": {**headers, **own}}
            continue
        if example := examples.ANSWERS.get(made.name):
            kind = next(iter(content))
            content[kind]["examples"] = _examples({f"{made.name}Answer": example})
        yield status, {"description": meaning, "headers": {**headers, **own}, "content": content}
    for status, raised in made.statuses.items():
        body = made.refused.get(status, Problem)
        content = {"schema": _body(body), "examples": {error.code: _example_ref(error) for error in raised}}
        waits = status in (429, 503) or errors.IdempotencyKeyInUse in raised
        headers = _header_refs(*usual, *(["Retry-After"] if waits else []))
        yield status, {"description": _STATUSES[status], "headers": headers, "content": {JSON: content}}


def _body(body: Body) -> Json:
    if isinstance(body, Form):
        return _named(body.name)
    if body is bytes:
        return dict(_BYTES)
    return _schema(body)


def _header_refs(*names: str) -> Json:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _example_ref(error: type[TwinlensError]) -> Json:
    return {"$ref": f"#/components/examples/{error.code}"}


def _examples(given: Mapping[str, Example]) -> Json:
    return {name: {"summary": one.summary, "value": one.value} for name, one in given.items()}
