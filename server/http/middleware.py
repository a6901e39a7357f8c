"""What happens around every request: it gets an id and a deadline, and is counted and timed."""

from __future__ import annotations

import asyncio
import re
import uuid
from time import perf_counter

from litestar.datastructures import MutableScopeHeaders
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Middleware, Receive, Scope, Send

from server.errors import DeadlineMissed
from server.http import problems, timing
from server.http.request import Request, keep_deadline
from server.lifespan import Services

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")

# Any word can be sent as a method, and each would make a series of its own in the metrics.
_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH")


def observed(app: ASGIApp) -> ASGIApp:
    """Give each request an id (the caller's own, where that is short and plain), and count and time its answer.

    Goes around the whole app, so that an address that does not exist has its id and is counted as well.
    """

    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await app(scope, receive, send)
            return
        asked = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        request_id = asked.decode() if _REQUEST_ID.fullmatch(asked) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        started = timing.begin(scope)
        method = scope["method"] if scope["method"] in _METHODS else "other"

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableScopeHeaders(message)
                headers[problems.REQUEST_ID_HEADER] = request_id
                if stages := timing.header(scope):
                    headers["Server-Timing"] = stages
                services: Services | None = getattr(scope["litestar_app"].state, "services", None)
                if services is not None:
                    # The template, not the path: each id in a path would make a series of its own.
                    route = scope.get("path_template") or "(none)"
                    services.metrics.requests.labels(method, route, message["status"]).inc()
                    services.metrics.request_seconds.labels(route).observe(perf_counter() - started)
            await send(message)

        await app(scope, receive, counted)

    return middleware


def in_time(most: float) -> Middleware:
    """Answer each request within its deadline, whatever is slow: the sender, the store, the database."""

    def create(app: ASGIApp) -> ASGIApp:
        async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                async with asyncio.timeout(keep_deadline(Request(scope), most)):
                    await app(scope, receive, send)
            except TimeoutError as exc:
                raise DeadlineMissed from exc

        return middleware

    return create
