"""The span of a request, as a trace has it: what came, and what was answered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from litestar.types import HTTPScope

from server.http.request import CLIENT, CODE
from server.lifespan import Services
from server.tracing import NOTHING, Attributes, Span

# Asked every few seconds by programs that watch the server, with answers that nobody needs a trace of.
_LEFT_OUT = ("/health/live", "/health/ready", "/metrics", "/v1/operator")


def begin(services: Services | None, scope: HTTPScope, method: str, request_id: str, started: float) -> Span:
    """The span of a request that has just come; NOTHING where it is not traced. `method`: one that is known.

    Neither the query, which may hold a signature, nor the caller's address becomes part of a trace.
    """
    if services is None or services.tracer is None or scope["path"] in _LEFT_OUT:
        return NOTHING
    attributes: Attributes = {
        "http.request.method": method,
        "url.scheme": scope["scheme"],
        "url.path": scope["path"],
        "twinlens.request_id": request_id,
    }
    return services.tracer.begin(method, scope["headers"], attributes, began=started)


def answered(span: Span, scope: HTTPScope, method: str, status: int) -> None:
    """Say what a request turned out to be: its answer begins now."""
    if not span:
        return
    state: Mapping[str, Any] = scope["state"]
    if route := scope.get("path_template"):
        span.rename(f"{method} {route}")
        span.set("http.route", route)
    span.set("http.response.status_code", status)
    if client := state.get(CLIENT):
        span.set("twinlens.client", client)
    if code := state.get(CODE):
        span.set("twinlens.code", code)
    if status >= 500:
        span.fail(code or str(status))
