"""Traces of the whole app, as a collector gets them: from a request to its SQL, and nothing that must stay secret."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import httpx
import pytest

from bench.traces.collector import Collector, Span
from server.lifespan import Services
from tests import DEMO_PICTURES, PHOTOGRAPHS
from tests.support.picture_host import PictureHost, answer, fetched_from
from tests.support.pictures import unseen
from tests.support.process import PATIENCE
from tests.support.serving import Client, NewShop, serving
from tests.support.traces import below, named, to, told

KEYBOARD = (DEMO_PICTURES / "keyboard.webp").read_bytes()
RACCOON = (PHOTOGRAPHS / "raccoon.jpg").read_bytes()


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


@pytest.fixture(scope="module")
def api(collector: Collector, new_shop: NewShop, pictures: PictureHost) -> Iterator[Client]:
    """An app that sends its traces, as an operator's variables say."""
    variables = to(
        collector,
        OTEL_SERVICE_NAME="shop-search",
        OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=tests",
        OTEL_EXPORTER_OTLP_HEADERS="x-tenant=seven",
        OTEL_EXPORTER_OTLP_COMPRESSION="gzip",
    )
    with (
        told(variables),
        fetched_from(pictures) as hosts,
        new_shop() as shop,
        serving(*shop, demo=True, **hosts) as client,
    ):
        yield client


class Asked:
    """A request that named its trace."""

    def __init__(self, api: Client, collector: Collector, method: str, path: str, **sent: Any) -> None:
        self.trace, self.caller = secrets.token_hex(16), secrets.token_hex(8)
        headers = {"traceparent": f"00-{self.trace}-{self.caller}-01", **sent.pop("headers", {})}
        self.answer: httpx.Response = api.request(method, path, headers=headers, **sent)
        self._collector = collector

    def spans(self, *names: str) -> list[Span]:
        """The spans of its trace, once its own and those of these names have come."""

        def of_trace(spans: Sequence[Span]) -> list[Span]:
            return [span for span in spans if span.trace == self.trace]

        def enough(spans: Sequence[Span]) -> bool:
            came = of_trace(spans)
            return {"server", *names} <= {span.kind for span in came} | {span.name for span in came}

        return of_trace(self._collector.wait(enough, PATIENCE))


def search(api: Client, collector: Collector, picture: bytes, **sent: Any) -> Asked:
    return Asked(api, collector, "POST", "/v1/search", files={"file": picture}, **sent)


def test_a_search_by_picture_is_one_trace_from_the_request_to_its_sql(api: Client, collector: Collector) -> None:
    asked = search(api, collector, unseen(KEYBOARD))
    spans = asked.spans("batch")
    request = named(spans, "POST /v1/search")
    assert (request.kind, request.parent) == ("server", asked.caller)
    assert below(spans, request) == ["read", "embed", "search"]
    embed, batch = named(spans, "embed"), named(spans, "batch")
    assert below(spans, embed) == ["wait", "decode", "resize", "queue", "batch"]
    assert below(spans, batch) == ["encode"]
    sql = named(spans, "SQL search_exactly")
    assert (sql.parent, sql.kind, sql.attributes["db.system.name"]) == (
        named(spans, "search").id,
        "client",
        "postgresql",
    )
    assert below(spans, sql) == ["connection"]
    assert batch.links == (embed.place,)


def test_the_spans_of_a_request_lie_within_each_other_and_follow_each_other(api: Client, collector: Collector) -> None:
    spans = search(api, collector, unseen(KEYBOARD)).spans("batch")
    by_id = {span.id: span for span in spans}
    for span in spans:
        assert span.began <= span.ended
        # A batch is over for its runner a moment after it is for those whom it answers.
        if (around := by_id.get(span.parent or "")) is not None and span.name != "batch":
            assert around.began <= span.began, span.name
            assert around.name == "batch" or span.ended <= around.ended, span.name
    stages = [named(spans, name) for name in ("read", "decode", "resize", "queue", "encode", "search")]
    assert all(one.ended <= after.began for one, after in pairwise(stages))


def test_a_span_says_what_it_was_about(api: Client, collector: Collector) -> None:
    spans = search(api, collector, unseen(KEYBOARD), params={"clientId": "demo"}, data={"limit": 5}).spans("batch")
    request = named(spans, "POST /v1/search").attributes
    assert (request["http.route"], request["http.request.method"]) == ("/v1/search", "POST")
    assert (request["http.response.status_code"], request["twinlens.client"]) == (200, "demo")
    assert named(spans, "decode").attributes == {"twinlens.format": "webp", "twinlens.pixels": 256 * 256}
    assert named(spans, "embed").attributes["twinlens.lane"] == "interactive"
    assert named(spans, "batch").attributes == {"twinlens.batch.size": 1}
    assert named(spans, "search").attributes == {
        "twinlens.limit": 5,
        "twinlens.plan": "exact",
        "twinlens.matches": 5,
    }


def test_the_answer_names_the_span_of_its_request_beside_its_timings(api: Client, collector: Collector) -> None:
    asked = search(api, collector, unseen(KEYBOARD))
    request = named(asked.spans(), "POST /v1/search")
    *stages, last = asked.answer.headers["Server-Timing"].split(", ")
    assert last == f'traceparent;desc="00-{asked.trace}-{request.id}-01"'
    assert [stage.split(";")[0] for stage in stages][-1] == "total"


@pytest.mark.parametrize("given", [None, "00-nonsense", f"00-{'0' * 32}-{'1' * 16}-01"], ids=["none", "broken", "zero"])
def test_a_request_that_names_no_trace_begins_one(api: Client, collector: Collector, given: str | None) -> None:
    headers = {} if given is None else {"traceparent": given}
    answer = api.get("/v1/products/demo-keyboard", headers=headers)
    trace = answer.headers["Server-Timing"].split('desc="00-')[1][:32]
    spans = collector.wait(lambda spans: any((one.trace, one.kind) == (trace, "server") for one in spans), PATIENCE)
    (request,) = [span for span in spans if (span.trace, span.kind) == (trace, "server")]
    assert request.parent is None
    assert trace.strip("0")


def test_a_caller_that_does_not_trace_its_request_is_not_traced_here(api: Client, collector: Collector) -> None:
    trace = secrets.token_hex(16)
    answer = api.post(
        "/v1/search", files={"file": KEYBOARD}, headers={"traceparent": f"00-{trace}-{secrets.token_hex(8)}-00"}
    )
    assert "traceparent" not in answer.headers["Server-Timing"]
    search(api, collector, unseen(KEYBOARD)).spans("batch")
    assert trace not in {span.trace for span in collector.spans()}


def test_what_a_tracing_system_keeps_in_tracestate_stays_with_every_span(api: Client, collector: Collector) -> None:
    spans = search(api, collector, unseen(KEYBOARD), headers={"tracestate": "vendor=opaque,other=1"}).spans("batch")
    assert {span.state for span in spans} == {"vendor=opaque,other=1"}


def test_the_standard_variables_say_who_sends_and_how(api: Client, collector: Collector) -> None:
    resource = search(api, collector, KEYBOARD).spans()[0].resource
    assert resource["service.name"] == "shop-search"
    assert resource["deployment.environment.name"] == "tests"
    assert resource["service.instance.id"]
    assert collector.headers["x-tenant"] == "seven"
    assert collector.headers["content-encoding"] == "gzip"


def test_a_picture_whose_vector_was_kept_says_so_and_is_not_embedded(api: Client, collector: Collector) -> None:
    picture = unseen(KEYBOARD)
    search(api, collector, picture)
    spans = search(api, collector, picture).spans()
    request = named(spans, "POST /v1/search")
    assert request.attributes["twinlens.cache"] == "hit"
    assert below(spans, request) == ["read", "search"]


def test_a_search_by_words_is_tokenized_queued_and_encoded(api: Client, collector: Collector) -> None:
    text = f"a red shoe {secrets.token_hex(4)}"
    spans = Asked(api, collector, "POST", "/v1/search", json={"text": text}).spans("batch")
    embed = named(spans, "embed")
    assert embed.attributes["twinlens.tower"] == "text"
    assert below(spans, embed) == ["wait", "tokenize", "queue", "batch"]
    assert not [span for span in spans if text in span.attributes.values()]


def test_a_search_through_an_index_whose_statements_go_in_a_pipeline_has_its_span(
    api: Client, collector: Collector
) -> None:
    services: Services = api.app.state.services
    with api.portal() as portal:
        portal.call(services.catalogue.maintain_indexes, 100)
        try:
            spans = search(api, collector, unseen(KEYBOARD), data={"limit": 3}).spans("batch")
        finally:
            portal.call(services.catalogue.maintain_indexes)
    assert named(spans, "search").attributes["twinlens.plan"] == "index"
    assert below(spans, named(spans, "SQL search_by_index")) == ["connection"]


def test_an_upload_shows_the_store_and_each_statement(api: Client, collector: Collector, client_id: str) -> None:
    where = {"clientId": client_id}
    put = Asked(api, collector, "PUT", "/v1/products/p", json={"name": "P"}, params=where)
    assert {"SQL put_product", "PUT /v1/products/{product_id}"} < {span.name for span in put.spans()}
    sent = {"files": {"file": unseen(KEYBOARD)}, "params": where}
    spans = Asked(api, collector, "POST", "/v1/products/p/media", **sent).spans("batch")
    request = named(spans, "POST /v1/products/{product_id}/media")
    assert below(spans, request) == [
        "read",
        "SQL get_product",
        "SQL find_media_by_digest",
        "embed",
        "store write",
        "store write",
        "SQL add_media",
    ]
    assert named(spans, "embed").attributes["twinlens.lane"] == "bulk"


def test_a_picture_by_url_shows_how_long_it_was_fetched_and_from_where(
    api: Client, collector: Collector, client_id: str, pictures: PictureHost
) -> None:
    api.put("/v1/products/p", json={"name": "P", "clientId": client_id})
    pictures.answers["/traced.webp?token=secret"] = answer(KEYBOARD)
    body = {"url": pictures.url("/traced.webp?token=secret"), "clientId": client_id}
    spans = Asked(api, collector, "POST", "/v1/products/p/media", json=body).spans("SQL add_media")
    fetch = named(spans, "fetch")
    assert (fetch.attributes["server.address"], fetch.attributes["server.port"]) == ("localhost", pictures.port)
    assert fetch.attributes["twinlens.bytes"] == len(KEYBOARD)
    body["url"] = "https://elsewhere.example/secret"
    fetch = named(Asked(api, collector, "POST", "/v1/products/p/media", json=body).spans("fetch"), "fetch")
    assert (fetch.attributes["error.type"], fetch.failed) == ("url_refused", True)
    assert b"secret" not in b"".join(collector.bodies)


def test_a_refusal_is_no_failure_of_the_server_but_says_its_code(api: Client, collector: Collector) -> None:
    spans = search(api, collector, b"no picture").spans("embed")
    request, embed = named(spans, "POST /v1/search"), named(spans, "embed")
    assert (request.attributes["twinlens.code"], request.failed) == ("not_a_picture", False)
    assert (embed.attributes["error.type"], embed.failed) == ("not_a_picture", True)


def test_a_deadline_that_is_missed_is_a_failure_of_its_request(api: Client, collector: Collector) -> None:
    asked = search(api, collector, unseen(RACCOON), headers={"Twinlens-Deadline": "0.001"})
    assert asked.answer.status_code == 503
    request = named(asked.spans(), "POST /v1/search")
    assert request.failed
    assert request.attributes["error.type"] == asked.answer.json()["code"]


def test_a_request_of_no_route_has_the_name_of_its_method(api: Client, collector: Collector) -> None:
    spans = Asked(api, collector, "GET", "/nothing/here").spans()
    assert [(span.name, span.attributes["url.path"]) for span in spans] == [("GET", "/nothing/here")]


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/metrics"])
def test_what_watches_the_server_is_not_traced(api: Client, collector: Collector, path: str) -> None:
    answer = api.get(path)
    assert answer.status_code == 200
    assert "Server-Timing" not in answer.headers
    search(api, collector, KEYBOARD).spans()
    assert path not in {span.attributes.get("url.path") for span in collector.spans()}


def test_neither_signatures_nor_keys_nor_vectors_become_part_of_a_trace(api: Client, collector: Collector) -> None:
    found = search(api, collector, KEYBOARD).answer.json()["results"][0]
    signature = found["thumbnailUrl"].rpartition("signature=")[2]
    headers = {"Authorization": "Bearer twl_secret-of-a-caller", "X-API-Key": "twl_another-secret"}
    asked = Asked(api, collector, "GET", found["thumbnailUrl"], headers=headers)
    assert asked.answer.status_code == 200
    assert {"store read", "SQL get_media"} <= {span.name for span in asked.spans("store read")}
    search(api, collector, RACCOON, headers=headers).spans()
    told = b"".join(collector.bodies)
    for secret in (signature, "secret-of-a-caller", "another-secret", "embedding <#>", "SELECT"):
        assert secret.encode() not in told, secret
