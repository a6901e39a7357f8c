"""A collector of traces on loopback: it takes OpenTelemetry's protocol over HTTP, and keeps the spans that come."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Condition, Thread
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1 import trace_pb2

_PATH = "/v1/traces"
_KIND = "application/x-protobuf"


@dataclass(frozen=True, slots=True)
class Span:
    """A span as it came. Ids are in hexadecimal digits, times in nanoseconds since 1970."""

    trace: str
    id: str
    parent: str | None
    name: str
    kind: str
    """`server`, `client` or `internal`."""
    began: int
    ended: int
    attributes: Mapping[str, Any]
    links: tuple[tuple[str, str], ...] = ()
    """Trace and id of each span that it links."""
    failed: bool = False
    said: str = ""
    """What its status says, where it failed."""
    state: str = ""
    """The `tracestate` of its trace."""
    resource: Mapping[str, Any] = field(default_factory=dict)

    @property
    def place(self) -> tuple[str, str]:
        return self.trace, self.id


class Collector:
    """Listens for as long as a block lasts; the address is `url`, to which exporters add the path."""

    def __init__(self) -> None:
        self._came = Condition()
        self._spans: list[Span] = []
        self.headers: dict[str, str] = {}
        """Of the last request, their names in small letters."""
        self.bodies: list[bytes] = []
        """As they came, unpacked."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Collector:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def spans(self) -> list[Span]:
        """All that have come until now."""
        with self._came:
            return list(self._spans)

    def wait(self, enough: Callable[[Sequence[Span]], bool], seconds: float = 30.0) -> list[Span]:
        """The spans, once they are enough. Raises TimeoutError."""
        with self._came:
            if not self._came.wait_for(lambda: enough(self._spans), seconds):
                raise TimeoutError(f"the spans that came: {sorted(span.name for span in self._spans)}")
            return list(self._spans)

    def _keep(self, body: bytes, headers: Mapping[str, str]) -> None:
        told = ExportTraceServiceRequest.FromString(body)
        with self._came:
            self.headers = {name.lower(): value for name, value in headers.items()}
            self.bodies.append(body)
            self._spans += _spans(told)
            self._came.notify_all()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        keep = self._keep

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.path != _PATH or self.headers["Content-Type"] != _KIND:
                    self.send_error(404)
                    return
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                keep(body, dict(self.headers.items()))
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("Content-Type", _KIND)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *arguments: object) -> None:
                """Say nothing."""

        return Handler


def _spans(told: ExportTraceServiceRequest) -> Iterator[Span]:
    for of_one in told.resource_spans:
        resource = _attributes(of_one.resource.attributes)
        for scope in of_one.scope_spans:
            for span in scope.spans:
                yield Span(
                    trace=span.trace_id.hex(),
                    id=span.span_id.hex(),
                    parent=span.parent_span_id.hex() or None,
                    name=span.name,
                    kind=trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
                    began=span.start_time_unix_nano,
                    ended=span.end_time_unix_nano,
                    attributes=_attributes(span.attributes),
                    links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
                    failed=span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
                    said=span.status.message,
                    state=span.trace_state,
                    resource=resource,
                )


def _attributes(given: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value") or "string_value") for one in given}
