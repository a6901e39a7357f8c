"""The API's description: that it is valid, complete, and true of what the server takes and gives."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from server.http import examples
from server.http.routes.page import WEB
from server.http.rules import RULES
from tests import DEMO_PICTURES, ROOT
from tests.support.picture_host import PictureHost
from tests.support.picture_host import answer as answered
from tests.support.serving import Client

KEYBOARD = (DEMO_PICTURES / "keyboard.webp").read_bytes()
JSON, FORM, MERGE_PATCH = "application/json", "multipart/form-data", "application/merge-patch+json"
HEALTH = {"live", "ready", "metrics"}

Document = dict[str, Any]
Operation = tuple[str, str, dict[str, Any]]


@pytest.fixture(scope="module")
def schema(api: Client) -> Document:
    found: Document = api.get("/schema").json()
    return found


def operations(schema: Document) -> dict[str, Operation]:
    """By operation id: method, path and description."""
    return {
        call["operationId"]: (method, path, call)
        for path, methods in schema["paths"].items()
        for method, call in methods.items()
    }


def resolved(schema: Document, node: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in node:
        found: Any = schema
        for step in node["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        return dict(found)
    return node


def body_of(schema: Document, name: str, kind: str) -> dict[str, Any]:
    content = operations(schema)[name][2]["requestBody"]["content"]
    return resolved(schema, content[kind]["schema"])


def complaints(schema: Document, kind: dict[str, Any], value: Any) -> Sequence[str]:
    """How a value differs from a schema of the document."""
    validator = Draft202012Validator({**kind, "components": schema["components"]})
    return [error.message for error in validator.iter_errors(value)]


# --- what it says -----------------------------------------------------------------------------------------------------


def test_it_is_openapi_by_the_letter(schema: Document) -> None:
    validate(schema)


def test_both_addresses_give_it_and_say_what_it_is(api: Client, schema: Document) -> None:
    document = api.get("/schema/openapi.json")
    assert document.headers["content-type"] == "application/vnd.oai.openapi+json"
    assert document.json() == schema
    assert api.get("/schema/").json() == schema


def test_it_names_every_call_as_generators_like_it(schema: Document) -> None:
    assert {name: f"{method} {path}" for name, (method, path, _) in operations(schema).items()} == {
        "embedImage": "post /embed-image",
        "embed": "post /v1/embeddings",
        "searchByImage": "post /api/search/by-image",
        "search": "post /v1/search",
        "listProducts": "get /v1/products",
        "putProduct": "put /v1/products/{productId}",
        "patchProduct": "patch /v1/products/{productId}",
        "getProduct": "get /v1/products/{productId}",
        "deleteProduct": "delete /v1/products/{productId}",
        "listMedia": "get /v1/products/{productId}/media",
        "batchProducts": "post /v1/products:batch",
        "getAttributes": "get /v1/attributes",
        "putAttributes": "put /v1/attributes",
        "addMedia": "post /v1/products/{productId}/media",
        "putMedia": "put /v1/media/{mediaId}",
        "patchMedia": "patch /v1/media/{mediaId}",
        "getMedia": "get /v1/media/{mediaId}",
        "deleteMedia": "delete /v1/media/{mediaId}",
        "listDuplicates": "get /v1/media/{mediaId}/duplicates",
        "listRegions": "get /v1/media/{mediaId}/regions",
        "getThumbnail": "get /v1/media/{mediaId}/thumbnail",
        "getFile": "get /v1/media/{mediaId}/file",
        "live": "get /health/live",
        "ready": "get /health/ready",
        "metrics": "get /metrics",
        "operator": "get /v1/operator",
    }


def test_every_error_has_the_one_body_and_examples_of_its_codes(schema: Document) -> None:
    for name, (_, _, call) in operations(schema).items():
        refused = {status: answer for status, answer in call["responses"].items() if int(status) >= 400}
        if name not in HEALTH:
            assert {"422", "500", "503"} <= set(refused), name
        for status, answer in refused.items():
            assert answer["description"], (name, status)
            waits = status in ("429", "503") or "idempotency_key_in_use" in _codes(answer)
            assert ("Retry-After" in answer["headers"]) == waits, (name, status)
            (content,) = answer["content"].values()
            body = "NotReadyProblem" if (name, status) == ("ready", "503") else "Problem"
            assert content["schema"] == {"$ref": f"#/components/schemas/{body}"}
            assert content["examples"], (name, status)
            for code, example in content["examples"].items():
                problem = resolved(schema, example)["value"]
                assert problem["code"] == code
                assert problem["error"].endswith(".") or ":" in problem["error"]
                assert not complaints(schema, content["schema"], problem)
    problem = schema["components"]["schemas"]["Problem"]
    assert set(problem["properties"]) == set(problem["required"]) == {"error", "code", "requestId"}
    health = {"model_stuck", "model_failing", "disk_full"}
    telling = {
        name
        for name, (_, _, call) in operations(schema).items()
        for one in call["responses"].values()
        if health & _codes(one)
    }
    assert telling == {"ready"}


def test_it_says_which_calls_need_a_key_and_of_which_scope(schema: Document) -> None:
    assert set(schema["components"]["securitySchemes"]) == {"bearer", "apiKey"}
    for name, (method, path, call) in operations(schema).items():
        codes = {code for answer in call["responses"].values() for code in _codes(answer)}
        assert "host_refused" in codes, name
        assert ("origin_refused" in codes) == (method != "get"), name
        rule = RULES[method.upper(), re.sub(r"\{(\w+)Id\}", r"{\1_id}", path)]
        if rule.open:
            assert call["security"] == [], name
            assert not codes & {"key_missing", "key_invalid", "scope_missing", "client_mismatch", "rate_limited"}, name
            continue
        assert call["security"] == [{"bearer": []}, {"apiKey": []}], name
        assert all(f"`{scope}`" in call["description"] for scope in rule.scopes), name
        assert {"key_missing", "key_invalid", "scope_missing", "keys_unknown", "rate_limited"} <= codes, name
        assert ("client_required" in codes) == rule.client, name
        assert ("client_mismatch" in codes) == (name not in ("metrics", "operator")), name


def _codes(answer: dict[str, Any]) -> set[str]:
    return {code for content in answer.get("content", {}).values() for code in content.get("examples", {})}


def test_its_codes_are_those_of_the_documentation_but_for_one_that_nobody_reads(schema: Document) -> None:
    table = (ROOT / "docs" / "operations.md").read_text("utf-8").split("\n## Errors\n")[1]
    documented = set(re.findall(r"^\| \d{3} \| `(\w+)` \|", table, re.MULTILINE))
    codes = schema["components"]["schemas"]["ErrorCode"]["enum"]
    assert set(codes) == documented - {"caller_left"}


WRITES = (
    "putProduct",
    "patchProduct",
    "deleteProduct",
    "batchProducts",
    "putAttributes",
    "addMedia",
    "putMedia",
    "patchMedia",
    "deleteMedia",
)


def test_every_write_takes_an_idempotency_key_and_says_what_comes_of_it(schema: Document) -> None:
    for name, (_, _, call) in operations(schema).items():
        codes = {code for answer in call["responses"].values() for code in _codes(answer)}
        assert ({"idempotency_key_reused", "idempotency_key_in_use"} <= codes) == (name in WRITES), name
        for status, answer in call["responses"].items():
            replayed = name in WRITES and int(status) < 300
            assert ("Idempotency-Replayed" in answer["headers"]) == replayed, (name, status)


def test_every_call_declares_its_parameters(schema: Document) -> None:
    for name, (_, path, call) in operations(schema).items():
        declared = {(one["name"], one["in"]): one["required"] for one in call.get("parameters", [])}
        expected = {(one, "path"): True for one in re.findall(r"\{(\w+)\}", path)}
        if name not in HEALTH:
            expected |= {("Twinlens-Deadline", "header"): False, ("X-Request-Id", "header"): False}
            if "embed" not in name and name != "operator":  # a vector is nobody's, and a server is everybody's
                expected[("clientId", "query")] = False
        if name in ("embed", "embedImage", "search", "searchByImage"):  # an upload is bulk work anyway
            expected[("Twinlens-Lane", "header")] = False
        if name in ("listDuplicates", "listProducts", "listMedia"):
            expected[("limit", "query")] = False
        if name in ("listProducts", "listMedia"):
            expected[("cursor", "query")] = False
        if name == "listProducts":
            expected |= dict.fromkeys(
                ((one, "query") for one in ("updatedSince", "isActive", "sku", "attributes")), False
            )
        if name in ("putProduct", "patchProduct", "deleteProduct"):
            expected[("If-Match", "header")] = False
        if name in ("putProduct", "getProduct"):
            expected[("If-None-Match", "header")] = False
        if name in WRITES:
            expected[("Idempotency-Key", "header")] = False
        if name == "putMedia":
            expected[("productId", "query")] = False
        if name in ("getThumbnail", "getFile"):  # of a signed address
            expected |= {("expires", "query"): False, ("signature", "query"): False}
        assert declared == expected, name


ANSWERS = {
    "embedImage": {"200": {JSON: "EmbeddedImage"}},
    "embed": {"200": {JSON: "Embeddings", "application/octet-stream": "binary"}},
    "search": {"200": {JSON: "SearchAnswer"}},
    "searchByImage": {"200": {JSON: "SearchAnswer"}},
    "listProducts": {"200": {JSON: "ProductPage"}},
    "getProduct": {"200": {JSON: "ProductWithMedia"}, "304": {}},
    "patchProduct": {"200": {JSON: "Product"}},
    "putProduct": {"200": {JSON: "Product"}, "201": {JSON: "Product"}},
    "deleteProduct": {"200": {JSON: "Product"}},
    "listMedia": {"200": {JSON: "MediaPage"}},
    "addMedia": {"200": {JSON: "Media"}, "201": {JSON: "Media"}},
    "batchProducts": {"200": {JSON: "BatchAnswer"}},
    "getAttributes": {"200": {JSON: "DeclaredAttributes"}},
    "putAttributes": {"200": {JSON: "DeclaredAttributes"}},
    "putMedia": {"200": {JSON: "Media"}, "201": {JSON: "Media"}},
    "patchMedia": {"200": {JSON: "Media"}},
    "getMedia": {"200": {JSON: "Media"}},
    "deleteMedia": {"200": {JSON: "Media"}},
    "listDuplicates": {"200": {JSON: "Duplicates"}},
    "listRegions": {"200": {JSON: "Regions"}},
    "getThumbnail": {"200": {"image/webp": "binary"}, "304": {}},
    "getFile": {
        "200": dict.fromkeys(
            (
                "application/octet-stream",
                "image/jpeg",
                "image/png",
                "image/webp",
                "image/gif",
                "image/bmp",
                "image/tiff",
                "image/avif",
                "image/heic",
                "image/heif",
            ),
            "binary",
        ),
        "304": {},
    },
    "live": {"200": {JSON: "Health"}},
    "ready": {"200": {JSON: "Readiness"}},
    "metrics": {"200": {"text/plain": "string"}},
    "operator": {"200": {JSON: "OperatorOverview"}},
}


def test_it_declares_what_each_call_answers(schema: Document) -> None:
    def of(body: dict[str, Any]) -> str:
        kind = body["schema"]
        return str(
            kind["$ref"].removeprefix("#/components/schemas/") if "$ref" in kind else kind.get("format", "string")
        )

    assert {
        name: {
            status: {kind: of(body) for kind, body in answer.get("content", {}).items()}
            for status, answer in call["responses"].items()
            if int(status) < 400
        }
        for name, (_, _, call) in operations(schema).items()
    } == ANSWERS


def test_it_declares_the_headers_of_vectors_that_come_as_bytes(schema: Document) -> None:
    headers = operations(schema)["embed"][2]["responses"]["200"]["headers"]
    limits = {"RateLimit", "RateLimit-Policy"}
    assert {"Twinlens-Space", "Twinlens-Dimensions", "Server-Timing", "X-Request-Id"} | limits == set(headers)


def test_it_declares_both_bodies_of_a_call_that_reads_by_content_type(schema: Document) -> None:
    for name in ("search", "embed", "addMedia"):
        assert set(operations(schema)[name][2]["requestBody"]["content"]) == {FORM, JSON}
    by_form, by_json = (body_of(schema, "search", kind)["properties"] for kind in (FORM, JSON))
    for fields in (by_form, by_json):
        assert repr(fields["limit"]["maximum"]) == "1000"  # whole, as the limit is
    arranged = {"groupBy", "groupSize", "maxPerProduct", "distinct", "boosts", "cursor", "explain", "mode"}
    both = {
        "limit", "minSimilarity", "minGrade", "filter", "query", "crop", "fields", "facets", "facetsOver", "clientId",
        *arranged,
    }  # fmt: skip
    assert set(by_form) == {"file", *both}
    assert set(by_json) == {"text", "mediaId", "embedding", "space", *both}
    numbers = by_json["crop"]
    assert (numbers["minItems"], numbers["maxItems"]) == (4, 4)
    grades = resolved(schema, by_json["minGrade"])
    assert grades["enum"] == ["identical", "near-duplicate", "similar", "weak"]


def test_it_declares_how_long_a_text_may_be(schema: Document) -> None:
    assert body_of(schema, "search", JSON)["properties"]["text"]["maxLength"] == 10_000
    assert body_of(schema, "embed", JSON)["properties"]["texts"]["items"]["maxLength"] == 10_000


@pytest.mark.parametrize("name", ["embedImage", "searchByImage", "addMedia", "putMedia"])
def test_a_picture_in_a_form_is_binary(schema: Document, name: str) -> None:
    file = body_of(schema, name, FORM)["properties"]["file"]
    assert (file["type"], file["format"]) == ("string", "binary")


@pytest.mark.parametrize("name", ["embed", "search"])
def test_many_pictures_in_a_form_are_a_list_of_binaries(schema: Document, name: str) -> None:
    files = body_of(schema, name, FORM)["properties"]["file"]
    assert (files["type"], files["items"]["format"]) == ("array", "binary")


# --- that it is true --------------------------------------------------------------------------------------------------


def filled(value: Any, known: dict[str, str]) -> Any:
    """A value of JSON with what stands in the place of some texts."""
    if isinstance(value, dict):
        return {name: filled(one, known) for name, one in value.items()}
    if isinstance(value, list):
        return [filled(one, known) for one in value]
    return known.get(value, value) if isinstance(value, str) else value


def request_of(kind: str, value: dict[str, Any], known: dict[str, str]) -> dict[str, Any]:
    """An example's body as httpx sends it; `known`: what stands in the place of some values."""
    if kind in (JSON, MERGE_PATCH):
        return {"headers": {"Content-Type": kind}, "json": filled(value, known)}
    assert kind == FORM
    files = value["file"] if isinstance(value["file"], list) else [value["file"]]
    assert set(files) == {examples.PICTURE}
    return {
        "files": [("file", ("shoe.webp", KEYBOARD, "image/webp")) for _ in files],
        "data": {name: str(one) for name, one in value.items() if name != "file"},
    }


def agrees(schema: Document, name: str, response: httpx.Response) -> None:
    """The answer is one that the document has for this call: its status, its type, its body and its headers."""
    declared = operations(schema)[name][2]["responses"]
    status = str(response.status_code)
    assert status in declared, (name, status, response.text)
    kind = response.headers["content-type"].partition(";")[0]
    assert kind in declared[status]["content"], (name, kind)
    body = declared[status]["content"][kind]
    if kind == JSON:
        assert not complaints(schema, body["schema"], response.json()), (name, response.text)
    assert {"X-Request-Id"} <= set(declared[status]["headers"])
    ours = {one for one in response.headers if one.startswith(("twinlens-", "x-request", "retry-", "server-timing"))}
    assert ours <= {one.lower() for one in declared[status]["headers"]}, (name, status)
    if response.is_error:
        assert response.json()["code"] in body["examples"], (name, response.text)


def test_every_example_is_accepted_and_every_answer_agrees_with_the_document(
    api: Client, schema: Document, pictures: PictureHost
) -> None:
    calls = operations(schema)
    media_id = examples.MEDIA
    pictures.answers["/shoe-42.jpg"] = answered(KEYBOARD)
    sent: list[str] = []

    def send(name: str, body: dict[str, Any]) -> httpx.Response:
        method, path, call = calls[name]
        for one in call.get("parameters", []):
            if one["in"] == "path":
                value = media_id if one["example"] == examples.MEDIA else one["example"]
                path = path.replace(f"{{{one['name']}}}", value)
        response = api.request(method, path, params={} if body else {"clientId": examples.CLIENT}, **body)
        assert response.status_code in (200, 201), (name, body, response.text)
        agrees(schema, name, response)
        sent.append(name)
        return response

    def every_example(name: str) -> Iterator[httpx.Response]:
        content = calls[name][2]["requestBody"]["content"]
        for kind, described in content.items():
            assert described["examples"], (name, kind)
            for example in described["examples"].values():
                assert not complaints(schema, described["schema"], example["value"]), (name, example)
                known = {examples.MEDIA: media_id, examples.PICTURE_URL: pictures.url("/shoe-42.jpg")}
                yield send(name, request_of(kind, example["value"], known))

    def first_and_again(name: str) -> None:
        """As any number of clients may do one after the other."""
        for response in [*every_example(name), *every_example(name)]:
            assert response.json()["clientId"] == examples.CLIENT

    first_and_again("putProduct")
    first_and_again("patchProduct")
    for _ in every_example("putProduct"):
        pass
    first_and_again("addMedia")
    media_id = [response.json()["id"] for response in every_example("addMedia")][-1]
    first_and_again("putMedia")
    first_and_again("patchMedia")
    for response in every_example("putAttributes"):
        assert response.json()["attributes"] or response.json()["searchable"]
    for response in every_example("batchProducts"):
        assert {one["status"] for one in response.json()["items"]} <= {200, 201, 404}
    for name in ("embedImage", "embed", "searchByImage", "search"):
        for response in every_example(name):
            found = response.json().get("results", [])
            assert "embed" in name or found == [] or found[0]["productId"] == examples.PRODUCT
    for name in (
        "getAttributes",
        "listProducts",
        "getProduct",
        "listMedia",
        "getMedia",
        "listDuplicates",
        "listRegions",
        "getThumbnail",
        "getFile",
        *HEALTH,
        "operator",
        "deleteMedia",
        "deleteProduct",
    ):
        send(name, {})
    assert set(sent) == set(calls)


def test_the_examples_of_answers_agree_with_the_document(schema: Document) -> None:
    for name, (_, _, call) in operations(schema).items():
        for status, answer in call["responses"].items():
            for kind, body in answer.get("content", {}).items():
                shown = [resolved(schema, one)["value"] for one in body.get("examples", {}).values()]
                assert shown or kind.startswith("image/") or kind == "application/octet-stream", (name, status, kind)
                for value in shown:
                    assert not complaints(schema, body["schema"], value), (name, status, kind)


@pytest.mark.parametrize(
    ("name", "path", "request_", "status"),
    [
        ("embedImage", "/embed-image", {"files": {"file": b"text"}}, 415),
        ("embedImage", "/embed-image", {"files": {"file": KEYBOARD[:200]}}, 400),
        ("embedImage", "/embed-image", {"files": {"file": b"x" * 5_000_000}}, 413),
        ("embedImage", "/embed-image", {"content": b"x"}, 415),
        ("embed", "/v1/embeddings", {"json": {"texts": []}}, 422),
        ("embed", "/v1/embeddings", {"json": {"texts": ["x" * 20_000]}}, 422),
        ("embed", "/v1/embeddings", {"files": {"file": KEYBOARD}, "headers": {"Twinlens-Deadline": "1e-7"}}, 503),
        ("search", "/v1/search", {"json": {"text": " "}}, 422),
        ("search", "/v1/search", {"json": {"mediaId": "none"}}, 404),
        ("search", "/v1/search", {"json": {"embedding": [1.0], "space": "other"}}, 409),
        ("search", "/v1/search", {"content": b"{", "headers": {"content-type": JSON}}, 400),
        ("searchByImage", "/api/search/by-image", {"data": {"limit": "1"}, "files": {"other": b""}}, 422),
        ("putProduct", "/v1/products/another-abacus", {"json": {"name": "x", "sku": "DEMO-0001"}}, 409),
        ("putProduct", "/v1/products/x", {"json": {"naem": "x"}}, 422),
        ("putProduct", "/v1/products/x", {"json": {"name": "x"}, "headers": {"If-Match": "*"}}, 412),
        ("patchProduct", "/v1/products/none", {"json": {"name": "x"}}, 404),
        ("patchProduct", "/v1/products/none", {"json": {"name": None}}, 422),
        ("listProducts", "/v1/products?cursor=x", {}, 422),
        ("listMedia", "/v1/products/none/media", {}, 404),
        ("addMedia", "/v1/products/none/media", {"files": {"file": KEYBOARD}}, 404),
        ("addMedia", "/v1/products/demo-abacus/media", {"json": {"url": "https://elsewhere.example"}}, 422),
        ("addMedia", "/v1/products/demo-abacus/media", {"json": {"url": "(the host)/never-there"}}, 424),
        ("batchProducts", "/v1/products:batch", {"json": {"items": {}}}, 422),
        ("batchProducts", "/v1/products:batch", {"json": {"items": [{"op": "delete", "id": "none"}]}}, 200),
        (
            "batchProducts",
            "/v1/products:batch",
            {"json": {"items": [{"op": "delete", "id": "none"}], "atomic": True}},
            404,
        ),
        ("putMedia", "/v1/media/m?productId=none", {"files": {"file": KEYBOARD}}, 404),
        ("putMedia", "/v1/media/m", {"files": {"file": KEYBOARD}}, 422),
        ("patchMedia", "/v1/media/none", {"json": {"productId": "p"}}, 404),
        ("patchMedia", "/v1/media/none", {"content": b"x"}, 415),
        ("deleteMedia", "/v1/media/none", {"headers": {"Idempotency-Key": ""}}, 422),
        ("getProduct", "/v1/products/none", {}, 404),
        ("deleteProduct", "/v1/products/none", {}, 404),
        ("getMedia", "/v1/media/none", {}, 404),
        ("deleteMedia", "/v1/media/none", {}, 404),
        ("listDuplicates", "/v1/media/none/duplicates?limit=0", {}, 422),
        ("listDuplicates", "/v1/media/none/duplicates", {}, 404),
        ("listRegions", "/v1/media/none/regions", {}, 404),
        ("getThumbnail", "/v1/media/none/thumbnail", {}, 404),
        ("getThumbnail", "/v1/media/none/thumbnail?signature=x", {}, 401),
        ("getFile", "/v1/media/none/file", {}, 404),
        ("getFile", "/v1/media/none/file?signature=x&expires=1&clientId=demo", {}, 401),
    ],
)
def test_every_error_is_one_that_the_document_has_for_its_call(
    api: Client,
    schema: Document,
    pictures: PictureHost,
    name: str,
    path: str,
    request_: dict[str, Any],
    status: int,
) -> None:
    method, _, _ = operations(schema)[name]
    if request_.get("json", {}).get("url", "").startswith("(the host)"):
        request_ = {"json": {"url": pictures.url("/never-there")}}
    response = api.request(method, path, **request_)
    assert response.status_code == status, response.text
    agrees(schema, name, response)


def test_vectors_as_bytes_agree_with_the_document(api: Client, schema: Document) -> None:
    accept = {"Accept": "application/octet-stream"}
    response = api.post("/v1/embeddings", files={"file": KEYBOARD}, headers=accept)
    agrees(schema, "embed", response)
    assert len(response.content) == 4 * int(response.headers["Twinlens-Dimensions"])


# --- below a prefix ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "server"),
    [
        ([], "/"),
        (["/search"], "/search"),
        (["/search/"], "/search"),
        (["/shop/search-2.0/~a_b"], "/shop/search-2.0/~a_b"),
        (["/caf%C3%A9"], "/caf%C3%A9"),
        (["/shop, /search"], "/shop/search"),
        (["/shop", "/search"], "/shop/search"),
        (["/"], "/"),
        # What nobody else may put into an answer of ours:
        (["search"], "/"),
        (["//elsewhere.example"], "/"),
        (["/, //elsewhere.example"], "/"),
        (["/\\elsewhere.example"], "/"),
        (["https://elsewhere.example/"], "/"),
        (["/a/../b"], "/"),
        (["/a/%2e%2E/b"], "/"),
        (["/a/."], "/"),
        (["/a//b"], "/"),
        (['/"><script>alert(1)</script>'], "/"),
        (["/a b"], "/"),
        (["/a?b"], "/"),
        (["/a#b"], "/"),
        (["/a%"], "/"),
        (["/" + "a" * 600], "/"),
    ],
)
def test_its_server_is_the_prefix_that_a_proxy_names_if_that_is_a_plain_path(
    api: Client, sent: list[str], server: str
) -> None:
    headers = [("X-Forwarded-Prefix", value) for value in sent]
    response = api.get("/schema", headers=headers)
    assert response.json()["servers"] == [{"url": server}]
    assert response.headers["Vary"] == "X-Forwarded-Prefix"
    page = api.get("/", headers=headers)
    assert re.findall(r"<base[^>]*>", page.text) == ([] if server == "/" else [f'<base href="{server}/">'])
    assert "alert(1)" not in page.text
    assert page.headers["Vary"] == "X-Forwarded-Prefix"


# --- the page that shows it -------------------------------------------------------------------------------------------


def test_the_page_that_shows_it_takes_its_files_from_this_server(api: Client) -> None:
    page = api.get("/schema/swagger")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    files = re.findall(r'(?:href|src)="([^"]+)"', page.text)
    assert len(files) == 5
    for file in files:
        assert not file.startswith(("/", "http"))
        assert api.get(f"/schema/{file}").status_code == 200, file


def test_with_a_slash_at_its_end_the_address_of_that_page_leads_to_the_page(api: Client) -> None:
    response = api.get("/schema/swagger/", follow_redirects=False)
    assert (response.status_code, response.headers["Location"]) == (307, "../swagger")


def test_the_files_of_swagger_ui_are_with_their_licence() -> None:
    folder = WEB / "swagger-ui"
    assert "Apache License" in (folder / "LICENSE").read_text("utf-8")
    assert "swagger-ui" in (folder / "NOTICE").read_text("utf-8")
    bundle = (folder / "swagger-ui-bundle.js").read_text("utf-8")
    assert (folder / re.findall(r"please see (\S+)", bundle)[0]).exists()
