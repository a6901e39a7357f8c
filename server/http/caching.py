"""Caches between the server and its callers: none may give one client's answer to another.

A cache that several callers share must not keep answers to requests with `Authorization` (RFC 9111, 3.5), but knows
nothing of `X-API-Key`. So every answer that depends on who calls says so itself.
"""

from __future__ import annotations

from litestar.datastructures import MutableScopeHeaders
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from server.http.rules import rule_of

_WHO_CALLS = ("Authorization", "X-API-Key")


def kept_apart(app: ASGIApp) -> ASGIApp:
    """Have each answer to a GET that not everybody may have name the headers that it depends on; no cache keeps it,
    unless its handler says otherwise."""

    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP or scope["method"] != "GET" or rule_of(scope).open:
            await app(scope, receive, send)
            return

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableScopeHeaders(message)
                headers["Vary"] = ", ".join(filter(None, (headers.get("Vary"), *_WHO_CALLS)))
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await app(scope, receive, marked)

    return middleware
