"""A host of pictures on loopback that answers as a test says, byte for byte, and counts who calls it."""

from __future__ import annotations

import contextlib
import socketserver
import ssl
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from server.settings import TEST_PREFIX

Raw = bytes | Iterable[bytes]
"""What is sent for one request: all of it, or piece by piece."""


def answer(
    body: bytes = b"", status: int = 200, headers: Mapping[str, str] | None = None, *, length: bool = True
) -> bytes:
    """An answer as it is sent. `length`: whether it says how long it is."""
    said = {**({"Content-Length": str(len(body))} if length else {}), **(headers or {})}
    head = "".join([f"HTTP/1.1 {status} So\r\n", *(f"{name}: {value}\r\n" for name, value in said.items()), "\r\n"])
    return head.encode() + body


def redirect(to: str, status: int = 302) -> bytes:
    return answer(status=status, headers={"Location": to})


@dataclass(frozen=True, slots=True)
class Asked:
    path: str
    headers: Mapping[str, str]
    """By name in small letters."""


@dataclass
class PictureHost:
    """What it answers is decided by the path; a path that it does not know is 404."""

    port: int = 0
    """Of 127.0.0.1; `url` has it."""
    answers: dict[str, Raw] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0
    gone: threading.Event = field(default_factory=threading.Event)
    """Set once a caller has gone before its answer was complete."""

    def url(self, path: str) -> str:
        return f"http://localhost:{self.port}{path}"

    def serve(self, connection: socketserver.StreamRequestHandler) -> None:
        self.connections += 1
        while line := connection.rfile.readline():
            headers = {}
            while field_ := connection.rfile.readline().strip():
                name, _, value = field_.decode().partition(":")
                headers[name.lower()] = value.strip()
            path = line.decode().split(" ")[1]
            self.asked.append(Asked(path, headers))
            said = self.answers.get(path, answer(status=404))
            try:
                for piece in [said] if isinstance(said, bytes) else said:
                    connection.wfile.write(piece)
            except OSError:
                self.gone.set()
                return
            if not isinstance(said, bytes):
                return  # whether more follows is for the test to say


@contextmanager
def picture_host(certificate: ssl.SSLContext | None = None) -> Iterator[PictureHost]:
    """Such a host; with TLS where there is a certificate."""
    host = PictureHost()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):
                host.serve(self)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

        def get_request(self) -> tuple[Any, Any]:
            connection, address = super().get_request()
            if certificate is not None:
                connection = certificate.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
            return connection, address

        def handle_error(self, request: Any, client_address: Any) -> None: ...

    with Server(("127.0.0.1", 0), Handler) as server:
        host.port = server.server_address[1]
        running = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        running.start()
        try:
            yield host
        finally:
            server.shutdown()
            running.join()


@contextmanager
def fetched_from(host: PictureHost) -> Iterator[dict[str, Any]]:
    """A block in which servers that are started with these settings fetch pictures from this host."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(f"{TEST_PREFIX}FETCH_LOOPBACK", "on")
        yield {"fetch_hosts": (f"localhost:{host.port}",)}
