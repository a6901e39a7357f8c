"""A shop's own web server: pages and scripts of another origin than Twinlens'."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

import pytest

from tests import ROOT, STARTER
from tests.support.access import fill
from tests.support.databases import fresh_database
from tests.support.keys import new_key
from tests.support.process import Process
from twinlens import derive_search_key

WEB = ROOT / "server" / "http" / "web"
EMBEDDING = ROOT / "tests" / "server" / "http" / "embedding"
DOCUMENTED = "https://search.shop.example"
"""The server in the examples of docs/embed.md."""

needs_npm = pytest.mark.skipif(
    not (shutil.which("npm") and shutil.which("node")) and not os.environ.get("CI"), reason="needs node and npm"
)

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


class Shop(NamedTuple):
    site: Site
    process: Process
    write: str
    """A key that may read and write."""
    key: str
    """A search key for the site's pages."""
    media: dict[str, str]


@contextmanager
def shop(postgres_url: str, template_database: str, data: Path, model: Path = STARTER, **bounds: Any) -> Iterator[Shop]:
    """A server that the site's pages may call, with keys and a small catalogue; `bounds`: of the search key."""
    with site() as pages, fresh_database(postgres_url, template_database) as url:
        parent, write = new_key(url, "search,read").key, new_key(url, "read,write").key
        flags = ("--database-url", url, "--cors-origins", pages.origin, "--max-upload", "1MB")
        process = Process(data, *flags, model=model)
        try:
            process.ready()
            with process.client() as client:
                media = fill(client, write)
            yield Shop(pages, process, write, derive_search_key(parent, origins=[pages.origin], **bounds), media)
        finally:
            process.stop()


def run(*command: str, folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def installed(folder: Path) -> Path:
    """A folder with the packages that a shop's own project would have, ours among them."""
    project = shutil.copytree(EMBEDDING, folder / "embedding")
    run("npm", "pack", str(WEB), folder=project)
    (packed,) = project.glob("twinlens-search-*.tgz")
    quietly = ("--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier")
    run("npm", "install", *quietly, f"./{packed.name}", folder=project)
    return project
