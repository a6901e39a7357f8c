"""Answers that come before the request's body was read: the rest of the body is read and dropped after them.

granian closes a connection when an app has answered and left a part of the body unread, and a client that is still
writing then sees a broken connection in place of the answer (findings/granian-answers-early.sh). Here the answer is
sent at once, and the connection is read on for a while: a client that reads as it writes has its answer early, and one
that writes everything first finds it at the end.
"""

from __future__ import annotations

import asyncio

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send
from litestar.types.asgi_types import HTTPReceiveMessage

_SECONDS = 10.0
# A sender who stops for longer has read the answer, or waits for it.
_PAUSE_SECONDS = 1.0


def draining(app: ASGIApp, *, most: int) -> ASGIApp:
    """Read on after an early answer: at most `most` bytes, for a few seconds. The outermost of all that wraps the app.

    Not where the client waits for leave to send its body (`Expect: 100-continue`) and nobody has asked for the body.
    """

    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP or not _has_body(scope):
            await app(scope, receive, send)
            return
        body = _Body(receive, expected=any(name == b"expect" for name, _ in scope["headers"]))
        await app(scope, body.receive, send)
        await body.drain(most)

    return middleware


def _has_body(scope: Scope) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
        for name, value in scope["headers"]
    )


class _Body:
    """A request's body, and how far it was read."""

    def __init__(self, receive: Receive, *, expected: bool) -> None:
        """`expected`: the client sends its body only once it is asked for, which the server does at the first look."""
        self._receive = receive
        self._held_back = expected
        self._ended = False

    async def receive(self) -> HTTPReceiveMessage:
        self._held_back = False
        message: HTTPReceiveMessage = await self._receive()  # type: ignore[assignment]
        self._ended = self._ended or message["type"] != "http.request" or not message.get("more_body")
        return message

    async def drain(self, most: int) -> None:
        clock = asyncio.get_running_loop().time
        end = clock() + _SECONDS
        try:
            while not self._ended and not self._held_back and most > 0:
                async with asyncio.timeout_at(min(end, clock() + _PAUSE_SECONDS)):
                    message = await self.receive()
                most -= len(message["body"]) if message["type"] == "http.request" else 0
        except TimeoutError:
            return
