"""A server on loopback that answers as a test says, one answer after the other: for what no real server does if asked.

It stands where a network is at fault, or a proxy; what Twinlens itself answers is asked of Twinlens.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

_OF_A_CONNECTION = frozenset({"accept-encoding", "connection", "content-length", "host"})


@dataclass(frozen=True)
class Reply:
    """One answer. `cut`: the connection is closed after so many bytes of it; `after`: what is waited for first."""

    status: int = 200
    body: bytes = b"{}"
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None
    after: threading.Event | None = None
    asks: str | None = None
    """A real server, whose answer is given in place of this one."""


CLOSED = Reply(cut=-1)
"""No answer at all: the connection is closed once the request was read."""


@dataclass(frozen=True)
class Asked:
    """A request as it came."""

    method: str
    path: str
    headers: Mapping[str, str]
    """By their names in small letters."""
    body: bytes


@dataclass
class Scripted:
    """The server, and what it was asked."""

    url: str
    asked: list[Asked] = field(default_factory=list)


@contextmanager
def scripted(*replies: Reply) -> Iterator[Scripted]:
    """A server that gives these answers in turn, and the last one for ever after."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            with lock:
                reply = replies[min(len(server.asked), len(replies) - 1)]
                server.asked.append(Asked(self.command, self.path, headers, body))
            if reply.after is not None:
                reply.after.wait(60)
            if reply.asks is not None:
                passed = {name: value for name, value in headers.items() if name not in _OF_A_CONNECTION}
                url = f"{reply.asks}{self.path}"
                real = httpx.request(self.command, url, headers=passed, content=body, timeout=60)
                reply = replace(reply, status=real.status_code, body=real.content)
            if reply.cut == -1:
                self.close_connection = True
                return
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body[: reply.cut])
            self.close_connection = reply.cut is not None

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815  # the names that the library calls

        def log_message(self, format: str, *args: object) -> None:
            """Tests are quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        server = Scripted(f"http://127.0.0.1:{listening.server_port}")
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            listening.shutdown()
            thread.join()


def headers_of(asked: Sequence[Asked], name: str) -> list[str | None]:
    """This header of each request."""
    return [one.headers.get(name) for one in asked]
