"""Headers by which browsers keep apart what does not belong together: on every answer, unless it has its own.

Answers are for programs unless they are pages: a browser that is led to one shows nothing of it, runs nothing, and lets
no page of another origin take it in. Pictures are the exception, since a shop shows them on its pages.
"""

from __future__ import annotations

from collections.abc import Mapping

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

RESOURCE_POLICY = "Cross-Origin-Resource-Policy"

EMBEDDABLE: Mapping[str, str] = {RESOURCE_POLICY: "cross-origin"}
"""For a picture: pages of any origin may show it in an `<img>`, though not read it."""

_EVERYWHERE: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    RESOURCE_POLICY: "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


PAGE: Mapping[str, str] = {
    # Nothing is sent by a form itself: what a person types, such as a key, must not get into an address.
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; base-uri 'self'; form-action 'none'; "
    "object-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
}
"""Of a page and of what it loads, all of it from this server."""


def secured(app: ASGIApp) -> ASGIApp:
    """Add to every answer those of these headers that it has not."""
    headers = [(name.lower().encode(), value.encode()) for name, value in _EVERYWHERE.items()]

    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = list(message.get("headers", ()))
                known = {name.lower() for name, _ in own}
                message["headers"] = own + [one for one in headers if one[0] not in known]
            await send(message)

        await app(scope, receive, answer if scope["type"] == ScopeType.HTTP else send)

    return middleware
