"""Traces: whether any are asked for, and by which of OpenTelemetry's own variables. Off unless one of them is set.

Nothing of OpenTelemetry is imported before that, and it need not be installed. Traces are an aid: whatever is wrong
with them is a line in the log, and the server serves.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from server.tracing import Tracer

if TYPE_CHECKING:
    from server.operations.otel import Exporting

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_EXPORTER = "OTEL_TRACES_EXPORTER"

# What was not sent by then is lost: a collector that is away must not hold up a stop.
_SENDING_SECONDS = 3.0

_log = logging.getLogger(__name__)


@asynccontextmanager
async def open_traces(environment: Mapping[str, str]) -> AsyncIterator[Tracer | None]:
    """What begins the spans of requests, where the variables ask for traces; the last spans are sent at the end."""
    if (by := asked_by(environment)) is None:
        yield None
        return
    try:
        exporting = _exporting(environment)
    except Exception as exc:  # of a library that reads its own variables, in its own way
        _log.warning("%s asks for traces, and there are none: %s", by, exc)
        yield None
        return
    _log.info("Traces are sent as %s says.", by)
    try:
        yield exporting
    finally:
        # A thread of its own: the process waits at its end for those of the event loop, however long they take.
        closing = threading.Thread(target=exporting.close, name="traces", daemon=True)
        closing.start()
        await asyncio.to_thread(closing.join, _SENDING_SECONDS)


def _exporting(environment: Mapping[str, str]) -> Exporting:
    try:
        from server.operations.otel import Exporting
    except ImportError as exc:
        raise LookupError(f"{exc.name} is not installed. It comes with the extra otel of twinlens.") from exc
    return Exporting.as_told(environment)


def asked_by(environment: Mapping[str, str]) -> str | None:
    """The variable that asks for traces; None where none does, or one forbids it. An empty one is as if not set."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    if named := environment.get(_EXPORTER, "").strip():
        return None if named == "none" else _EXPORTER
    return next((name for name in _ENDPOINTS if environment.get(name, "").strip()), None)
