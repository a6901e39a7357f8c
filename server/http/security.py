"""Headers by which browsers keep apart what does not belong together: on every answer, unless it has its own.

Answers are for programs unless they are pages: a browser that is led to one shows nothing of it, runs nothing, and lets
no page of another origin take it in. Pictures are the exception, since a shop shows them on its pages.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

RESOURCE_POLICY = "Cross-Origin-Resource-Policy"
_POLICY = "Content-Security-Policy"

EMBEDDABLE: Mapping[str, str] = {RESOURCE_POLICY: "cross-origin"}
"""For a picture: pages of any origin may show it in an `<img>`, though not read it."""

_EVERYWHERE: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    RESOURCE_POLICY: "same-origin",
    _POLICY: "default-src 'none'; frame-ancestors 'none'",
}


PAGE: Mapping[str, str] = {
    # Nothing is sent by a form itself: what a person types, such as a key, must not get into an address.
    _POLICY: "default-src 'self'; img-src 'self' blob: data:; base-uri 'self'; form-action 'none'; "
    "object-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
}
"""Of a page and of what it loads, all of it from this server."""


def page_with_styles(hashes: Iterable[str]) -> Mapping[str, str]:
    """As `PAGE`, of one that opens a document of ours with these styles written into it, known by their hashes."""
    styles = " ".join(("style-src 'self'", *(f"'{one}'" for one in hashes)))
    return {**PAGE, _POLICY: f"{PAGE[_POLICY]}; {styles}"}


def document_with_styles(hashes: Iterable[str]) -> Mapping[str, str]:
    """Of a document that is whole by itself: it has its own styles and pictures, runs nothing, asks for nothing."""
    styles = " ".join(f"'{one}'" for one in hashes) or "'none'"
    return {
        **PAGE,
        _POLICY: f"default-src 'none'; style-src {styles}; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'",
    }


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
