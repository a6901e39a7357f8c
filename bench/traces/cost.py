"""What traces cost: each call where nothing is traced, and a search where everything is."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path
from time import perf_counter
from typing import Any

from bench import machine, pictures
from bench.serving import UNCACHED, Serving, serving
from bench.traces.collector import Collector
from server.tracing import current, record, span

_CALLS = 200_000
_WARM_UP = 40
_SEARCHES = 600

_SPANS = 9
_RECORDS = 3
_OTHERS = 8
"""Calls for a search by picture: blocks with a span; spans of what is over; attributes and questions for the span."""


def measure(model: Path) -> dict[str, Any]:
    """The report. Raises RuntimeError, TimeoutError."""
    block, over, other = (_nanoseconds(call) for call in (_block, _record, _other))
    off = (_SPANS * block + _RECORDS * over + _OTHERS * other) / 1e6
    with ExitStack() as stack:
        collector = stack.enter_context(Collector())
        plain = stack.enter_context(serving(model, demo=True, arguments=UNCACHED))
        variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
        tracing = stack.enter_context(serving(model, demo=True, arguments=UNCACHED, environment=variables))
        medians = _beside_each_other(plain, tracing)
        spans = len(collector.spans())
    without, with_all = medians
    about = (
        f"off: {block:.0f} ns a block, {off * 1000:.1f} us a search, {off / without:.4%} of its {without:.2f} ms; on, "
        f"with every request traced: {with_all:.2f} ms, {with_all / without - 1:.1%} more; {machine.sentence()}"
    )
    figures = {"nanoseconds": {"block": block, "record": over, "other": other}, "milliseconds": medians}
    return {"about": about, "machine": machine.describe(), **figures, "spans": spans}


def _beside_each_other(*servers: Serving) -> list[float]:
    """The median of the milliseconds that a search takes at each server; they are asked in turn."""
    bodies = [pictures.form(data) for data in pictures.distinct(_WARM_UP + _SEARCHES)]
    taken: list[list[float]] = [[] for _ in servers]
    connections = [HTTPConnection("127.0.0.1", server.port, timeout=60) for server in servers]
    for body in bodies:
        for connection, times in zip(connections, taken, strict=True):
            began = perf_counter()
            connection.request("POST", "/v1/search", body, {"Content-Type": pictures.FORM_TYPE})
            answer = connection.getresponse()
            answer.read()
            times.append((perf_counter() - began) * 1000)
            if answer.status != 200:
                raise RuntimeError(f"a search was answered with {answer.status}")
    for connection in connections:
        connection.close()
    return [statistics.median(times[_WARM_UP:]) for times in taken]


def _nanoseconds(call: Callable[[], None]) -> float:
    """That a call takes, less what calling takes: the best of five rounds."""

    def rounds(one: Callable[[], None]) -> Iterator[float]:
        for _ in range(5):
            began = perf_counter()
            for _ in range(_CALLS):
                one()
            yield (perf_counter() - began) / _CALLS * 1e9

    return min(rounds(call)) - min(rounds(_nothing))


def _nothing() -> None: ...


def _block() -> None:
    with span("decode", {"twinlens.bytes": 1}):
        pass


def _record() -> None:
    record("wait", 0.0)


def _other() -> None:
    current().set("twinlens.cache", "hit")
