"""Spans that tests look at: sent by OpenTelemetry's exporter to a collector in the process of the test."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter

import pytest

from bench.traces.collector import Collector, Span
from server.operations.otel import Exporting
from server.tracing import within
from tests.support.process import PATIENCE


@contextmanager
def told(variables: dict[str, str]) -> Iterator[None]:
    """These OTEL_ variables in the environment of a block, and no others."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("OTEL_")]:
            patch.delenv(name)
        for name, value in variables.items():
            patch.setenv(name, value)
        yield


def to(collector: Collector, **more: str) -> dict[str, str]:
    """The variables that send spans there, and soon."""
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "20", **more}


class Traced:
    """Begins traces in a test, and gives their spans."""

    def __init__(self, collector: Collector, exporting: Exporting) -> None:
        self._collector = collector
        self._exporting = exporting

    @contextmanager
    def request(self, name: str) -> Iterator[None]:
        """A block that runs as if within a request."""
        with within(self._exporting.begin(name, [], {}, began=perf_counter())):
            yield

    def spans(self, count: int) -> list[Span]:
        """The spans, once so many have come. Raises TimeoutError."""
        return self._collector.wait(lambda spans: len(spans) >= count, PATIENCE)

    def until(self, name: str) -> list[Span]:
        """The spans, once one of this name has come. Raises TimeoutError."""
        return self._collector.wait(lambda spans: any(span.name == name for span in spans), PATIENCE)


@contextmanager
def traced() -> Iterator[Traced]:
    """Spans of a block, at a collector of its own."""
    with Collector() as collector, told(to(collector)):
        exporting = Exporting.as_told(to(collector))
        try:
            yield Traced(collector, exporting)
        finally:
            exporting.close()


def named(spans: Sequence[Span], name: str) -> Span:
    """The one span of this name. Raises ValueError where there is none, or more than one."""
    (found,) = [span for span in spans if span.name == name]
    return found


def below(spans: Sequence[Span], parent: Span) -> list[str]:
    """The names of the spans right below this one, as they began."""
    found = [span for span in spans if (span.trace, span.parent) == parent.place]
    return [span.name for span in sorted(found, key=lambda span: span.began)]
