"""Which request the log's lines are about, and a line for each request once it was answered: the access log."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

from server.access.limits import Bucket
from server.access.scopes import Principal
from server.http import timing
from server.http.request import CLIENT, CODE, PRINCIPAL
from server.limits import Allowance
from server.operations.lines import FIELDS, Fields, about

REFUSED_EACH_SECOND = 50.0
REFUSED_AT_ONCE = 500.0
"""Of refused requests so many have a line of their own, so that a flood of them does not fill the log."""

_log = logging.getLogger(__name__)

# Asked every few seconds, by those who say aloud when they are not answered: a line at the level DEBUG, which is off.
_PROBES = ("/health/live", "/health/ready", "/metrics", "/v1/operator")

_LONGEST = 420
"""Characters of a path. An id that can be in the catalogue has at most 128, and each may be a slash, as `%2F`."""

_SUMMED_UP_EACH_SECONDS = 1.0


def logged(app: ASGIApp, *, each: bool) -> ASGIApp:
    """Have every line that is written during a request say which one it is; with `each`, write one for each request.

    Within what gives each request its id and starts its clock.
    """
    access_log = AccessLog()

    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await app(scope, receive, send)
            return
        status: int | None = None

        async def seen(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        with about(partial(_request, scope)):
            try:
                await app(scope, receive, seen if each else send)
            finally:
                if each:
                    access_log.add(scope, status)

    return middleware


def _request(scope: HTTPScope) -> Fields:
    """Which request it is, as far as that is known by now."""
    state: Mapping[str, Any] = scope["state"]
    principal: Principal | None = state.get(PRINCIPAL)
    return {
        "requestId": state["request_id"],
        "client": state.get(CLIENT) or (principal.client_id if principal is not None else None),
        "method": scope["method"],
        "route": scope.get("path_template") or "(none)",
    }


class AccessLog:
    """Writes a line for each request; of a flood of refused ones for some, and of the rest how many they were."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._refused = Bucket(Allowance(REFUSED_EACH_SECOND, REFUSED_AT_ONCE), clock)
        self._summed_up_at = clock()
        self._left_out: Counter[tuple[int, str | None]] = Counter()

    def add(self, scope: HTTPScope, status: int | None) -> None:
        """`status`: None where nothing was answered."""
        if self._left_out and self._clock() - self._summed_up_at >= _SUMMED_UP_EACH_SECONDS:
            self._sum_up()
        if status is not None and (400 <= status < 500 or status == 503) and not self._refused.take():
            self._left_out[status, scope["state"].get(CODE)] += 1
            return
        level = logging.DEBUG if status == 200 and scope.get("path_template") in _PROBES else logging.INFO
        if _log.isEnabledFor(level):
            _write(level, scope, status)

    def _sum_up(self) -> None:
        counts, self._left_out = self._left_out, Counter()
        self._summed_up_at = self._clock()
        for (status, code), count in counts.items():
            fields = {"event": "requests_refused", "status": status, "code": code, "count": count}
            said = "Refused requests that have no line of their own: %s of %d %s"
            _log.info(said, f"{count:,}", status, code, extra={FIELDS: fields})


def _write(level: int, scope: HTTPScope, status: int | None) -> None:
    state: Mapping[str, Any] = scope["state"]
    principal: Principal | None = state.get(PRINCIPAL)
    code, path, timings = state.get(CODE), scope["path"][:_LONGEST], timing.stages(scope)
    fields = {
        "event": "request",
        "path": path,
        "key": principal.key_id if principal is not None else None,
        "status": status,
        "code": code,
        "timings": timings,
    }
    _log.log(
        level,
        "%s %r %s%s: %s",
        scope["method"],
        path,
        status or "no answer",
        f" {code}" if code else "",
        ", ".join(f"{stage} {value}" for stage, value in timings.items()),
        extra={FIELDS: {name: value for name, value in fields.items() if value is not None}},
    )
