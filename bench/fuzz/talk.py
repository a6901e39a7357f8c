"""Requests as bytes: what no client would send is sent as well, and answers are read as a client reads them."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from typing import Any

PATIENCE = 60.0

Headers = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request. Its path and its headers are the bytes that go over the wire."""

    title: str
    method: str
    path: bytes
    """With the query."""
    route: str = ""
    """The path as /schema has it; empty for one that it has not."""
    headers: Headers = ()
    body: bytes = b""
    raw: bool = False
    """Whether it may be no HTTP at all: then the layer below ours may refuse it in its own way."""

    @property
    def wire(self) -> bytes:
        given = {name.lower() for name, _ in self.headers}
        headers = [(b"Host", b"127.0.0.1")] if b"host" not in given else []
        headers += self.headers
        if self.body and not given & {b"content-length", b"transfer-encoding"}:
            headers.append((b"Content-Length", b"%d" % len(self.body)))
        headers.append((b"Connection", b"close"))
        lines = b"".join(b"%s: %s\r\n" % header for header in headers)
        return b"%s %s HTTP/1.1\r\n%s\r\n%s" % (self.method.encode(), self.path, lines, self.body)


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer; status 0: the connection was closed without one."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body; None where it is no JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


def ask(port: int, asked: Asked) -> Answered:
    """Send a request on a connection of its own. Raises OSError where the server does not listen, or is silent."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as connection:
        with suppress(BrokenPipeError, ConnectionResetError):  # refused half-way: the answer may be there
            connection.sendall(asked.wire)
        answer = HTTPResponse(connection, method=asked.method)
        try:
            answer.begin()
            return Answered(answer.status, dict(answer.headers), answer.read())
        except (HTTPException, ConnectionResetError):
            return Answered(0, {}, b"")
