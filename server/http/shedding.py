"""A flood of requests with one key is refused before anything is made of them.

Once a key was refused because its requests are used up, all that it sends until it may go on, for a second at most, is
answered here, without a look at routes, bodies or limits, for about half of what a refusal costs further inside.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

from server.errors import RateLimited
from server.http import problems
from server.http.request import CODE

SHED_SECONDS = 1.0
"""For so long at most, so that a changed limit is heeded soon."""

_MOST = 10_000

# Whatever is asked for below these needs a key. Below a prefix nothing is shed, and all else is as it is here.
_PATHS = ("/v1/", "/embed-image", "/api/search/")

_REFUSALS = "refusals"


@dataclass(frozen=True, slots=True)
class _Refusal:
    due: float
    error: RateLimited
    headers: list[tuple[bytes, bytes]]


class Refusals:
    """The keys that were refused just now, as requests bring them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[bytes, _Refusal] = {}

    def note(self, scope: Scope, error: RateLimited, headers: list[tuple[bytes, bytes]]) -> None:
        """Refuse what comes with this request's key until it is due. `headers`: of the answer."""
        if (key := _key(scope)) is None:
            return
        if len(self._known) >= _MOST:
            # Each is refused at the door once more; to look which are due would cost as much as they do.
            self._known.clear()
        self._known[key] = _Refusal(self._clock() + min(error.retry_after, SHED_SECONDS), error, headers)

    def of(self, scope: Scope) -> _Refusal | None:
        """Why this request is refused; None where it is not."""
        if not self._known or (key := _key(scope)) is None or (known := self._known.get(key)) is None:
            return None
        if known.due > self._clock():
            return known
        del self._known[key]
        return None


def _key(scope: Scope) -> bytes | None:
    """What tells the keys of requests apart; None where there is none, or where it may be that none is looked at."""
    if scope["type"] != ScopeType.HTTP or scope["method"] == "OPTIONS" or not scope["path"].startswith(_PATHS):
        return None
    if b"signature=" in scope["query_string"]:  # the address of a picture, which is judged by that alone
        return None
    given = [value for name, value in scope["headers"] if name in (b"authorization", b"x-api-key")]
    return given[0] if len(given) == 1 else None


def shedding(app: ASGIApp) -> ASGIApp:
    """Answer here what is refused for now. Goes around the whole app, inside of what counts answers."""
    refusals = Refusals()

    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await app(scope, receive, send)
            return
        if (known := refusals.of(scope)) is None:
            scope["state"][_REFUSALS] = refusals
            await app(scope, receive, send)
            return
        scope["state"][CODE] = known.error.code
        status, headers, body = problems.raw(known.error, scope["state"]["request_id"])
        await send({"type": "http.response.start", "status": status, "headers": [*headers, *known.headers]})
        await send({"type": "http.response.body", "body": body, "more_body": False})

    return middleware


def refusals_of(scope: Scope) -> Refusals | None:
    """Where to note that a request was refused."""
    refusals: Refusals | None = scope["state"].get(_REFUSALS)
    return refusals
