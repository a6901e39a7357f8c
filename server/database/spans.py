"""The span of one piece of work on a connection: of a statement, a transaction or a pipeline.

Ours, since OpenTelemetry's instrumentation of psycopg sees neither the waiting for a connection of a pool nor what is
sent in a pipeline.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

from server.tracing import Attributes, Span, span

_PRIMARY: Attributes = {"db.system.name": "postgresql"}
_STANDBY: Attributes = {"db.system.name": "postgresql", "twinlens.replica": True}

CONNECTION = "connection"
"""The name of the span in which that work waits for its connection."""


def of_work(name: str, *, standby: bool = False) -> AbstractContextManager[Span, None]:
    """A span for a block that waits for a connection and does work on it.

    Neither SQL nor a value of its parameters becomes part of a trace.
    """
    return span("SQL " + name, _STANDBY if standby else _PRIMARY, outgoing=True)
