"""Where a request's time went: each stage notes its own, and the `Server-Timing` header reports them."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter
from typing import Any

from litestar.types import Scope

from server import tracing

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


def note_read(scope: Scope) -> None:
    """The time until now went into receiving and reading the body."""
    seconds = passed(scope)
    note(scope, {"read": seconds})
    began = perf_counter() - seconds
    tracing.record("read", began, began + seconds)


def note(scope: Scope, timings: Mapping[str, float]) -> None:
    """Stages of this request, in seconds."""
    _of(scope).update(timings)


def note_vector(scope: Scope, timings: Mapping[str, float]) -> None:
    """The stages of making a vector, in seconds; none where the vector was in the cache."""
    _of(scope).update(timings or {"cache": 0.0})
    if not timings:
        tracing.current().set("twinlens.cache", "hit")


def header(scope: Scope, traceparent: str | None = None) -> str | None:
    """The stages, and `total` until now, as the header has them; None for a request of which nothing was noted.

    `traceparent`: of the request's span, where it is traced; it stands there as well.
    """
    said = []
    if scope.get("state", {}).get(_KEY):
        said = ["cache;desc=hit" if one == "cache" else f"{one};dur={value}" for one, value in stages(scope).items()]
    if traceparent is not None:
        said.append(f'traceparent;desc="{traceparent}"')
    return ", ".join(said) or None


def stages(scope: Scope) -> dict[str, float]:
    """The stages that were noted, and `total` until now, in milliseconds; `cache`, in place of the model's, is 0."""
    timings: dict[str, float] = scope.get("state", {}).get(_KEY, {})
    return {stage: ms(seconds) for stage, seconds in {**timings, "total": passed(scope)}.items()}


def ms(seconds: float) -> float:
    return round(seconds * 1000, 2)


def _of(scope: Scope) -> dict[str, Any]:
    timings: dict[str, Any] = scope["state"].setdefault(_KEY, {})
    return timings
