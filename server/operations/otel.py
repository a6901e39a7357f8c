"""OpenTelemetry: our spans as its spans, sent as the OTEL_ variables say. Imported only where they ask for traces."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import entry_points
from time import perf_counter, time_ns

from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import Getter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Link, SpanKind, Status, StatusCode

from server import __version__
from server.errors import TwinlensError
from server.tracing import NOTHING, Attributes, Span, Value

Headers = Iterable[tuple[bytes, bytes]]

_EXPORTERS = "opentelemetry_traces_exporter"
"""The group of entry points under which packages offer exporters."""

_OTLP = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}
"""What `otlp` is called there, by the protocol."""


class Exporting:
    """Begins the spans of requests, and sends them on from a thread of its own, many at a time."""

    def __init__(self, exporters: Iterable[SpanExporter]) -> None:
        """Sampler, limits, resource and batches are as OpenTelemetry's SDK reads them from its variables."""
        self._provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        for exporter in exporters:
            self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("twinlens")

    @classmethod
    def as_told(cls, environment: Mapping[str, str]) -> Exporting:
        """With the exporters that the variables name. Raises LookupError for one that no package offers."""
        # Each attempt that is tried again would be a line; the last one is.
        logging.getLogger("opentelemetry.exporter").setLevel(logging.ERROR)
        named = environment.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp"
        return cls([_exporter(name.strip(), environment) for name in named.split(",")])

    def begin(self, name: str, headers: Headers, attributes: Attributes, *, began: float) -> Span:
        """As `Tracer` has it."""
        zero = time_ns() - _nanoseconds(perf_counter())
        made = self._tracer.start_span(
            name,
            propagate.extract(list(headers), Context(), _HEADERS),
            SpanKind.SERVER,
            attributes,
            start_time=zero + _nanoseconds(began),
        )
        return _Traced(self._tracer, made, zero) if made.is_recording() else NOTHING

    def close(self) -> None:
        """Send what was not sent yet, and end."""
        self._provider.shutdown()


class _Traced:
    """A span of OpenTelemetry's.

    All spans of a request have the times of one clock, which never jumps, as nanoseconds of the epoch.
    """

    __slots__ = ("_context", "_span", "_tracer", "_zero")

    def __init__(self, tracer: trace.Tracer, span: trace.Span, zero: int) -> None:
        """`zero`: when `perf_counter` was 0, in nanoseconds of the epoch."""
        self._tracer = tracer
        self._span = span
        self._zero = zero
        self._context: Context | None = None

    @property
    def traceparent(self) -> str | None:
        at = self._span.get_span_context()
        return f"00-{at.trace_id:032x}-{at.span_id:016x}-{at.trace_flags:02x}"

    def __bool__(self) -> bool:
        return True

    def child(
        self,
        name: str,
        attributes: Attributes | None = None,
        *,
        began: float | None = None,
        outgoing: bool = False,
        links: Iterable[Span] = (),
    ) -> Span:
        if self._context is None:
            self._context = trace.set_span_in_context(self._span, Context())
        made = self._tracer.start_span(
            name,
            self._context,
            SpanKind.CLIENT if outgoing else SpanKind.INTERNAL,
            attributes,
            [Link(one._span.get_span_context()) for one in links if isinstance(one, _Traced)],
            start_time=self._at(began),
        )
        return _Traced(self._tracer, made, self._zero)

    def rename(self, name: str) -> None:
        self._span.update_name(name)

    def set(self, name: str, value: Value) -> None:
        self._span.set_attribute(name, value)

    def link(self, other: Span) -> None:
        if isinstance(other, _Traced):
            self._span.add_link(other._span.get_span_context())

    def fail(self, error: BaseException | str) -> None:
        # Of foreign errors the kind alone: their words may hold a value, an address or a secret.
        said = error.sentence if isinstance(error, TwinlensError) else None
        self._span.set_attribute("error.type", error if isinstance(error, str) else _kind(error))
        self._span.set_status(Status(StatusCode.ERROR, said))

    def end(self, at: float | None = None) -> None:
        self._span.end(self._at(at))

    def _at(self, seconds: float | None) -> int:
        return self._zero + _nanoseconds(perf_counter() if seconds is None else seconds)


class _Getter(Getter[Sequence[tuple[bytes, bytes]]]):
    """How OpenTelemetry reads the headers of a request, whose names are in small letters."""

    def get(self, carrier: Sequence[tuple[bytes, bytes]], key: str) -> list[str] | None:
        wanted = key.lower().encode()
        return [value.decode("latin-1") for name, value in carrier if name == wanted] or None

    def keys(self, carrier: Sequence[tuple[bytes, bytes]]) -> list[str]:
        return [name.decode("latin-1") for name, _ in carrier]


_HEADERS = _Getter()


def _kind(error: BaseException) -> str:
    """What kind of error: our own code, PostgreSQL's SQLSTATE, or the name of its class."""
    if isinstance(error, TwinlensError):
        return error.code
    return getattr(error, "sqlstate", None) or type(error).__name__


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)


def _resource() -> Resource:
    """What sends the spans; what the variables say of it goes before what we do."""
    ours = {
        "service.name": "twinlens",
        "service.instance.id": str(uuid.uuid4()),
        "service.version": __version__,
    }
    return Resource.create({**ours, **OTELResourceDetector().detect().attributes})


def _exporter(name: str, environment: Mapping[str, str]) -> SpanExporter:
    """Raises LookupError where no package that is installed offers it."""
    if name == "otlp":
        protocol = environment.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "").strip()
        protocol = protocol or environment.get("OTEL_EXPORTER_OTLP_PROTOCOL", "").strip() or "http/protobuf"
        name = _OTLP.get(protocol, protocol)
    for offered in entry_points(group=_EXPORTERS, name=name):
        made: SpanExporter = offered.load()()
        return made
    raise LookupError(f"no package that is installed offers an exporter called {name}.")
