"""Where a request's time went: noted on the way by whoever knows, and told in the `Server-Timing` header."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter
from typing import Any

from litestar.types import Scope

from server.http.request import Request

_KEY = "timings"
_STARTED = "started"


def begin(scope: Scope) -> float:
    """Start a request's clock."""
    started = perf_counter()
    scope.setdefault("state", {})[_STARTED] = started
    return started


def passed(scope: Scope) -> float:
    """Seconds since the request's clock was started."""
    now = perf_counter()
    return now - float(scope.get("state", {}).get(_STARTED, now))


def note_read(request: Request) -> None:
    """What passed until now went into receiving and reading the body."""
    note(request, {"read": passed(request.scope)})


def note(request: Request, timings: Mapping[str, float]) -> None:
    """Stages of this request, in seconds."""
    _of(request.scope).update(timings)


def note_kept(request: Request) -> None:
    """The vector was not made, but known."""
    _of(request.scope)["cache"] = 0.0


def header(scope: Scope) -> str | None:
    """The stages, and `total` until now, as the header has them; None for a request of which nothing was noted."""
    state = scope.get("state", {})
    if not (timings := state.get(_KEY)):
        return None
    stages = {**timings, "total": passed(scope)}
    return ", ".join("cache;desc=hit" if one == "cache" else f"{one};dur={ms(value)}" for one, value in stages.items())


def ms(seconds: float) -> float:
    return round(seconds * 1000, 2)


def _of(scope: Scope) -> dict[str, Any]:
    timings: dict[str, Any] = scope["state"].setdefault(_KEY, {})
    return timings
