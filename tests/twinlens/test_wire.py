"""The library's own types, compared with what the server says of itself at `/schema`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import msgspec
import pytest

from tests.support.served import Served
from twinlens import AsyncClient, wire
from twinlens.calls import Calls
from twinlens.methods import call, listing

Schema = Mapping[str, Any]

OURS = {
    kind.__name__: kind for kind in vars(wire).values() if isinstance(kind, type) and issubclass(kind, msgspec.Struct)
}
BODIES = {
    "SearchBody": "SearchRequest",
    "QueryPart": "QueryPart",
    "TextsBody": "TextsToEmbed",
    "ProductBody": "ProductRequest",
    "AttributesBody": "AttributesRequest",
    "PatchBody": "ProductPatch",
    "UrlBody": "MediaByUrl",
    "Upsert": "UpsertItem",
    "Delete": "DeleteItem",
    "BatchBody": "BatchRequest",
    "MoveBody": "MediaPatch",
}
"""What the server calls the bodies that it is asked with."""

ANSWERS = [name for name in OURS if not name.startswith("_") and name not in BODIES]

ELSEWHERE = {"clientId"}
"""Fields of bodies that the library never sends: the client goes into the query."""

NOT_OURS = {"embedImage", "searchByImage", "metrics", "operator"}
"""Operations that the library leaves out: those of the legacy service, what Prometheus and the operator's page read."""


@pytest.fixture(scope="module")
def schema(served: Served) -> Schema:
    found: Schema = httpx.get(f"{served.url}/schema").raise_for_status().json()
    return found


@pytest.fixture(scope="module")
def ours() -> Schema:
    named = [OURS[name] for name in (*ANSWERS, *BODIES)]
    _, found = msgspec.json.schema_components(named, ref_template="#/components/schemas/{name}")
    return {"components": {"schemas": found}}


def resolved(schema: Schema, node: Schema) -> Schema:
    if "$ref" in node:
        found: Schema = schema["components"]["schemas"][node["$ref"].rsplit("/", 1)[1]]
        return found
    return node


def kinds(schema: Schema, node: Schema) -> dict[str, Schema]:
    """The kinds of JSON that a schema allows, each with the part that says more of it; empty where it allows all."""
    node = resolved(schema, node)
    found: dict[str, Schema] = {}
    for one in node.get("anyOf", [node]):
        one = resolved(schema, one)
        if "enum" in one:
            found["string"] = one
        for kind in [one["type"]] if isinstance(one.get("type"), str) else one.get("type", []):
            found["number" if kind == "integer" else kind] = one
    return found


def misread(written: tuple[Schema, Schema], read: tuple[Schema, Schema], at: str = "") -> list[str]:
    """Where a reader would not take what a writer may write; each is a document and a schema in it."""
    may, takes = kinds(*written), kinds(*read)
    if not takes:  # anything
        return []
    found = [f"{at}: {kind}" for kind in (may or {"anything": {}}) if kind not in takes]
    for kind in may.keys() & takes.keys():
        one, other = may[kind], takes[kind]
        if "items" in other:
            found += misread((written[0], one.get("items", {})), (read[0], other["items"]), f"{at}[]")
        properties = one.get("properties", {})
        values = other.get("additionalProperties")
        for name, of in properties.items():
            if name in other.get("properties", {}):
                found += misread((written[0], of), (read[0], other["properties"][name]), f"{at}.{name}")
            elif isinstance(values, Mapping):
                found += misread((written[0], of), (read[0], values), f"{at}.{name}")
        certain = {*one.get("required", ())}
        found += [f"{at}.{name} is needed" for name in other.get("required", ()) if name not in certain]
    return found


def fields(schema: Schema, name: str) -> set[str]:
    return {*schema["components"]["schemas"][name]["properties"]}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_has_every_field_of_the_servers_and_reads_each(schema: Schema, ours: Schema, name: str) -> None:
    theirs = schema["components"]["schemas"][name]
    assert fields(ours, name) - {"etag"} == fields(schema, name)  # that is a header
    assert not misread((schema, theirs), (ours, ours["components"]["schemas"][name]), name)


@pytest.mark.parametrize(("name", "theirs"), BODIES.items())
def test_a_body_has_every_field_that_the_server_reads_and_none_that_it_refuses(
    schema: Schema, ours: Schema, name: str, theirs: str
) -> None:
    assert fields(ours, name) | ELSEWHERE == fields(schema, theirs) | ELSEWHERE
    found = misread((ours, ours["components"]["schemas"][name]), (schema, schema["components"]["schemas"][theirs]))
    # What is left at its default is not sent, and a mapping is checked by the server, whose sentences are better.
    loose = re.compile(r"\.((query\[\]\.)?\w+: null|filter.*|attributes.*|boosts.*|facets.*)")
    assert [one for one in found if not loose.fullmatch(one)] == []


def test_a_search_by_picture_has_the_fields_of_the_form(schema: Schema) -> None:
    legacy = {"limit", "minSimilarity", "minGrade", "filter"}
    sent = {
        *legacy,
        "groupBy",
        "groupSize",
        "maxPerProduct",
        "distinct",
        "boosts",
        "cursor",
        "explain",
        "fields",
        "mode",
        "facets",
        "facetsOver",
    }
    assert fields(schema, "SearchForm") == {"file", *legacy} | ELSEWHERE
    assert fields(schema, "ComposedForm") == {"file", "query", "crop", *sent} | ELSEWHERE
    request = Calls.search(
        None,
        b"picture",
        crop=[0, 0, 0.5, 1],
        limit=1,
        min_similarity=2.0,
        min_grade="similar",
        filter={"kind": "image"},
        fields=["sku", "attributes.price"],
        group_by="product",
        group_size=2,
        max_per_product=1,
        distinct=0.9,
        boosts=[{"attribute": "new", "equals": True, "weight": 0.1}],
        cursor="next",
        explain=True,
        mode="visual",
        facets=["colour"],
        facets_over="matches",
    )
    assert request.body is not None
    assert {*getattr(request.body, "fields", {})} == {"crop", *sent}


def test_every_operation_of_the_server_is_a_method_of_this_name(schema: Schema) -> None:
    named = {call["operationId"] for methods in schema["paths"].values() for call in methods.values()}
    ours = {name for name, value in vars(Calls).items() if isinstance(value, call | listing)}
    assert {re.sub("([A-Z])", lambda big: f"_{big[1].lower()}", name) for name in named - NOT_OURS} == ours
    assert all(hasattr(AsyncClient, name) for name in ours)


def test_fields_that_a_later_server_adds_are_ignored() -> None:
    document = (
        b'{"id": "p", "clientId": "c", "name": "P", "sku": null, "isActive": true, "attributes": {"a": [1, null]}, '
    )
    document += b'"createdAt": "2026-01-01T00:00:00Z", "updatedAt": "2026-01-01T00:00:00Z", "colour": {"new": 1}}'
    product = msgspec.json.decode(document, type=wire.Product)
    assert product.attributes == {"a": [1, None]}
    with pytest.raises(AttributeError):
        product.name = "Q"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("written", "read", "wrong"),
    [
        ({"type": "string"}, {"type": "string"}, []),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, {"type": "string"}, [": null"]),
        ({"type": "integer"}, {"type": "number"}, []),
        ({}, {"type": "string"}, [": anything"]),
        ({"type": "object", "properties": {"a": {"type": "null"}}}, {"properties": {"a": {"type": "string"}}}, []),
        (
            {"type": "object", "properties": {"a": {"type": "null"}}, "required": ["a"]},
            {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a", "b"]},
            [".a: null", ".b is needed"],
        ),
        ({"type": "array", "items": {"type": "null"}}, {"type": "array", "items": {"type": "number"}}, ["[]: null"]),
    ],
)
def test_the_comparison_itself_finds_what_differs(written: Schema, read: Schema, wrong: list[str]) -> None:
    assert misread(({}, written), ({}, read)) == wrong


def methods() -> list[tuple[str, Callable[..., Any]]]:
    return [(name, getattr(Calls, name)) for name, value in vars(Calls).items() if isinstance(value, call | listing)]


@pytest.mark.parametrize(("name", "build"), methods())
def test_every_method_says_what_it_does(name: str, build: Callable[..., Any]) -> None:
    assert len((build.__doc__ or "").split()) > 3
