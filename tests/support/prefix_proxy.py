"""A reverse proxy that shows a server below a prefix, as nginx, Traefik and the like do."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx


@dataclass
class Proxy:
    url: str
    """Its own address, without the prefix."""
    strays: list[str] = field(default_factory=list)
    """The paths outside the prefix that somebody asked for, and that would be another program's."""


@contextmanager
def proxied(server: str, prefix: str, *, named: bool) -> Iterator[Proxy]:
    """The server's calls at `prefix`, which is taken off; `named`: the proxy says so in `X-Forwarded-Prefix`."""
    with httpx.Client(base_url=server, timeout=60) as upstream:

        class Handler(BaseHTTPRequestHandler):
            def forward(self) -> None:
                path, _, query = self.path.partition("?")
                if not f"{path}/".startswith(f"{prefix}/"):
                    if path != "/favicon.ico":  # browsers ask for it by themselves
                        proxy.strays.append(path)
                    self.send_error(404)
                    return
                asked = path.removeprefix(prefix) or "/"
                headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}
                if named:
                    headers["X-Forwarded-Prefix"] = prefix
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                url = f"{asked}?{query}" if query else asked
                answer = upstream.request(self.command, url, headers=headers, content=body)
                self.send_response(answer.status_code)
                for name, value in answer.headers.multi_items():
                    if name not in HOP_BY_HOP:
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer.content)))
                self.end_headers()
                self.wfile.write(answer.content)

            do_GET = do_POST = do_PUT = do_DELETE = forward  # noqa: N815  # the names that the library calls

            def log_message(self, format: str, *args: object) -> None:
                """Tests are quiet."""

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
            proxy = Proxy(f"http://127.0.0.1:{listening.server_port}")
            thread = threading.Thread(target=listening.serve_forever)
            thread.start()
            try:
                yield proxy
            finally:
                listening.shutdown()
                thread.join()


HOP_BY_HOP = {"connection", "content-length", "host", "keep-alive", "transfer-encoding", "accept-encoding"}
