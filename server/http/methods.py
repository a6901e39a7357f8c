"""The methods of an address: HEAD wherever GET is, and all of them named in Allow."""

from __future__ import annotations

from litestar.datastructures import MutableScopeHeaders
from litestar.enums import ScopeType
from litestar.exceptions import HTTPException
from litestar.types import ASGIApp, Message, Method, Receive, Scope, Send

ALLOW_HEADER = "Allow"

_METHODS: tuple[Method, ...] = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


def heads(app: ASGIApp) -> ASGIApp:
    """Answer HEAD as GET is answered, without the body; in Allow, name every method of the address."""

    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await app(scope, receive, send)
            return
        head, path = scope["method"] == "HEAD", scope["path"]
        if head:
            scope["method"] = "GET"

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableScopeHeaders(message)
                if ALLOW_HEADER in headers:
                    headers[ALLOW_HEADER] = ", ".join(_methods_of(scope, path))
            elif message["type"] == "http.response.body" and head:
                message = {**message, "body": b""}
            await send(message)

        await app(scope, receive, answer)

    return middleware


def _methods_of(scope: Scope, path: str) -> list[str]:
    """Litestar's own list has only the methods of one handler where an address has several."""
    found: list[str] = []
    for method in _METHODS:
        try:
            scope["litestar_app"].asgi_router.handle_routing(path=path.rstrip("/") or "/", method=method)
        except HTTPException:
            continue
        found += ["GET", "HEAD"] if method == "GET" else [method]
    return found
