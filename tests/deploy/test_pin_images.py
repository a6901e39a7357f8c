"""The script that pins images, against a registry of the test's own, which wants a token as Docker Hub does."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from deploy import pin_images
from deploy.pin_images import Image
from tests import ROOT

OLD, NEW = f"sha256:{'0' * 64}", f"sha256:{'a1' * 32}"


@dataclass
class Registry:
    host: str
    digests: dict[str, str] = field(default_factory=dict)
    """`name:tag` to what it is now."""


@pytest.fixture
def registry() -> Iterator[Registry]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the name that the library calls
            asked = self.path.partition("?")[2]
            known = asked == "service=test&scope=repository%3Ashop%2Fpython%3Apull"
            body = json.dumps({"token": "anybody"}).encode()
            self.send_response(200 if known else 403)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_HEAD(self) -> None:
            _, name, _, tag = self.path[1:].replace("shop/python", "shop+python").split("/")
            digest = made.digests.get(f"{name.replace('+', '/')}:{tag}")
            if self.headers["Authorization"] != "Bearer anybody":
                self.send_response(401)
                realm = f'Bearer realm="http://{made.host}/token",service="test",scope="repository:shop/python:pull"'
                self.send_header("WWW-Authenticate", realm)
            elif digest is None or "application/vnd.oci.image.index.v1+json" not in self.headers["Accept"]:
                self.send_response(404)
            else:
                self.send_response(200)
                self.send_header("Docker-Content-Digest", digest)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Tests are quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        made = Registry(f"127.0.0.1:{listening.server_port}", {"shop/python:3.11-slim": NEW})
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        try:
            yield made
        finally:
            listening.shutdown()
            thread.join()


def written(folder: Path, registry: Registry, *, digest: str = "") -> tuple[Path, Path]:
    dockerfile, compose = folder / "Dockerfile", folder / "compose.yaml"
    image = f"{registry.host}/shop/python:3.11-slim{digest}"
    dockerfile.write_text(f"# a base\nARG BASE={image}\n\nFROM ${{BASE}} AS build\nFROM ${{BASE}}\n")
    compose.write_text(f"services:\n  one:\n    image: {image}  # why\n  two:\n    image: ${{OWN:-x}}:1\n")
    return dockerfile, compose


@pytest.mark.parametrize("digest", ["", f"@{OLD}"], ids=["none yet", "an older one"])
def test_every_file_gets_the_digest_of_now(
    tmp_path: Path, registry: Registry, digest: str, capsys: pytest.CaptureFixture[str]
) -> None:
    files = written(tmp_path, registry, digest=digest)
    before = [path.read_text() for path in files]
    assert pin_images.main(["--check", *map(str, files)]) == 1
    assert [path.read_text() for path in files] == before
    assert pin_images.main([*map(str, files)]) == 0
    image = f"{registry.host}/shop/python:3.11-slim"
    assert [path.read_text() for path in files] == [text.replace(image + digest, f"{image}@{NEW}") for text in before]
    assert f"{image}@{NEW}" in capsys.readouterr().out
    assert pin_images.main(["--check", *map(str, files)]) == 0


def test_where_one_is_not_known_nothing_is_written(
    tmp_path: Path, registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    dockerfile, compose = written(tmp_path, registry)
    compose.write_text(compose.read_text().replace("3.11-slim", "3.11-gone"))
    before = dockerfile.read_text(), compose.read_text()
    assert pin_images.main([str(dockerfile), str(compose)]) == 2
    assert (dockerfile.read_text(), compose.read_text()) == before
    assert "shop/python:3.11-gone" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "image"),
    [
        ("python:3.11-slim", Image("registry-1.docker.io", "library/python", "3.11-slim")),
        ("pgvector/pgvector:pg18", Image("registry-1.docker.io", "pgvector/pgvector", "pg18")),
        ("registry.example/a/b/c:1", Image("registry.example", "a/b/c", "1")),
        ("localhost:5000/twinlens", Image("localhost:5000", "twinlens", "latest")),
    ],
)
def test_an_image_is_read_as_docker_reads_it(text: str, image: Image) -> None:
    assert Image.parse(text) == image


def test_it_finds_each_image_that_we_build_on() -> None:
    found = [
        match["image"] for name in pin_images.FILES for match in pin_images.NAMED.finditer((ROOT / name).read_text())
    ]
    assert [one.partition(":")[0] for one in found] == ["python", "python", "pgvector/pgvector", "caddy"]
    assert len(set(found[:2])) == 1, "both images have one base"
