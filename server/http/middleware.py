"""What happens around every request: it gets an id and a deadline, and is counted and timed."""

from __future__ import annotations

import asyncio
import re
import uuid
from time import perf_counter

from litestar.datastructures import MutableScopeHeaders
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Middleware, Receive, ReceiveMessage, Scope, Send
from litestar.utils.scope.state import ScopeState

from server.database import outcome
from server.errors import DeadlineMissed, OutcomeUnknown
from server.http import problems, spans, timing
from server.http.account import account_of
from server.http.overdue import Overdue
from server.http.request import CODE, Request, keep_deadline
from server.lifespan import Services
from server.tracing import within

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")

# Any word can be sent as a method, and each would make a series of its own in the metrics.
_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH")

# How much longer an answer may take that was begun before its deadline, and how long an overdue handler is waited for.
_SENDING_SECONDS = 10.0
_ENDING_SECONDS = 0.05


def observed(app: ASGIApp) -> ASGIApp:
    """Give each request an id (the caller's own, where that is short and plain); count, time and trace its answer.

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
        services: Services | None = getattr(scope["litestar_app"].state, "services", None)
        span = spans.begin(services, scope, method, request_id, started)

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableScopeHeaders(message)
                headers[problems.REQUEST_ID_HEADER] = request_id
                if (account := account_of(scope)) is not None:
                    headers.update(account.headers())
                if stages := timing.header(scope, span.traceparent):
                    headers["Server-Timing"] = stages
                spans.answered(span, scope, method, message["status"])
                if services is not None:
                    # The template, not the path: each id in a path would make a series of its own.
                    route = scope.get("path_template") or "(none)"
                    code = scope["state"].get(CODE, "")
                    services.metrics.answered(method, route, message["status"], code, perf_counter() - started)
            await send(message)

        with within(span):
            await app(scope, receive, counted)

    return middleware


def in_time(most: float, overdue: Overdue) -> Middleware:
    """Answer each request within its deadline, whatever is slow: the sender, the store, the database.

    The handler runs as a task of its own. Where it is not done by then it is left to `overdue`, since to end it may
    take as long as what it waits for. Raises DeadlineMissed, or OutcomeUnknown where it may have written something.
    """

    def create(app: ASGIApp) -> ASGIApp:
        async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
            request: Request = Request(scope)
            left = keep_deadline(request, most)
            if left <= 0:
                raise DeadlineMissed
            connection = _Connection(receive, send)
            with outcome.watched() as writes:
                handling = asyncio.ensure_future(app(scope, connection.receive, connection.send))
            try:
                await asyncio.wait((handling,), timeout=left)
                if connection.answering and not handling.done():
                    await asyncio.wait((handling,), timeout=_SENDING_SECONDS)
                if handling.done():
                    handling.result()
                    return
            finally:
                connection.open = False
                if not handling.done():
                    overdue.end(handling, f"{request.method} {request.url.path!r}")
            # Most handlers end at once, and then nothing of them is left when their answer is sent.
            await asyncio.wait((handling,), timeout=_ENDING_SECONDS)
            if connection.answering:
                return  # a second answer cannot follow; the server closes the connection after half of one
            # A handler that was done just now may have answered, which went nowhere: ours is the first answer.
            ScopeState.from_scope(scope).response_started = False
            if writes.possible:
                raise OutcomeUnknown(
                    "The change was not confirmed within the request's deadline, and may still be made; please ask "
                    "again whether it was."
                )
            raise DeadlineMissed

        return middleware

    return create


class _Connection:
    """The connection of a request as its handler sees it: once it is not open any more, the caller has left."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self.open = True
        self.answering = False
        """Whether an answer was begun."""

    async def receive(self) -> ReceiveMessage:
        return await self._receive() if self.open else {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if self.open:
            self.answering = True
            await self._send(message)
