"""A shop's own web server: pages and scripts of another origin than Twinlens'."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, NamedTuple

from tests import ROOT

WEB = ROOT / "server" / "http" / "web"

TYPES = {".html": "text/html; charset=utf-8", ".js": "text/javascript", ".css": "text/css", ".map": "application/json"}


class Page(NamedTuple):
    data: bytes
    headers: Mapping[str, str] = {}


class Site(NamedTuple):
    origin: str
    pages: dict[str, Page]
    """By their paths, which end in `.html`, `.js` or `.css`. A test adds to them."""

    def put(self, path: str, text: str | bytes, **headers: str) -> str:
        """The address of this page. Underscores in the names of headers are hyphens."""
        data = text.encode() if isinstance(text, str) else text
        self.pages[path] = Page(data, {name.replace("_", "-"): value for name, value in headers.items()})
        return self.origin + path


@contextmanager
def site() -> Iterator[Site]:
    """A site without pages, on another host and port than the server's."""
    pages: dict[str, Page] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = pages.get(self.path.partition("?")[0])
            self.send_response(404 if page is None else 200)
            if page is not None:
                self.send_header("Content-Type", TYPES["." + self.path.partition("?")[0].rpartition(".")[2]])
                for name, value in page.headers.items():
                    self.send_header(name, value)
            self.end_headers()
            self.wfile.write(b"" if page is None else page.data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield Site(f"http://localhost:{server.server_port}", pages)
    finally:
        server.shutdown()
        server.server_close()


def example(language: str, heading: str = "") -> str:
    """The first block of this language in docs/embed.md, below the heading that is given."""
    text = (ROOT / "docs" / "embed.md").read_text()
    found = re.search(rf"^```{language}\n(.*?)^```$", text[text.index(heading) :], re.DOTALL | re.MULTILINE)
    if found is None:
        raise LookupError(f"docs/embed.md has no block of {language} below {heading!r}")
    return found[1]
