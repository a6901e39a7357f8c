"""Clients that others' tools generate from the API's description, used against a running server."""

from __future__ import annotations

import importlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests import DEMO_PICTURES
from tests.support.databases import fresh_database
from tests.support.keys import new_key
from tests.support.process import Process

PICTURE = DEMO_PICTURES / "keyboard.webp"
TYPESCRIPT = Path(__file__).parent / "typescript"

# A thumbnail is bytes of a type that the generator does not know.
CONFIG = "post_hooks: []\ncontent_type_overrides:\n  image/webp: application/octet-stream\n"


class Server(NamedTuple):
    url: str
    admin: str
    """A key, as the next two are; these are of the client of that name."""
    python: str
    typescript: str


@pytest.fixture(scope="module")
def server(postgres_url: str, template_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with fresh_database(postgres_url, template_database) as url:
        keys = [new_key(url, "search,read,write", client).key for client in ("python", "typescript")]
        admin = new_key(url, "admin", None).key
        process = Process(tmp_path_factory.mktemp("clients"), "--database-url", url)
        try:
            yield Server(process.ready().url, admin, *keys)
        finally:
            process.stop()


def run(*command: str | Path, folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_client_of_openapi_python_client_uploads_searches_and_reads_errors(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG)
    address = f"{server.url}/schema/openapi.json"
    options = ("--meta", "none", "--output-path", "generated_twinlens", "--config", "config.yaml", "--fail-on-warning")
    run(sys.executable, "-m", "openapi_python_client", "generate", "--url", address, *options, folder=tmp_path)

    monkeypatch.syspath_prepend(tmp_path)
    models: Any = importlib.import_module("generated_twinlens.models")
    types: Any = importlib.import_module("generated_twinlens.types")
    connect: Any = importlib.import_module("generated_twinlens").AuthenticatedClient
    picture = PICTURE.read_bytes()

    def connected(key: str) -> Any:
        return connect(base_url=server.url, token=key, timeout=60, raise_on_unexpected_status=True)

    def call(tag: str, name: str, *path: str, **given: Any) -> Any:
        """A generated function of this name: its status and its answer."""
        answer = importlib.import_module(f"generated_twinlens.api.{tag}.{name}").sync_detailed(
            *path, client=client, **given
        )
        return int(answer.status_code), answer.parsed

    def file(data: bytes = picture) -> Any:
        return types.File(io.BytesIO(data), "shoe.webp", "image/webp")

    with connected(server.python) as client:
        attributes = models.ProductRequestAttributes.from_dict({"category": "shoes", "price": 49.9})
        product = models.ProductRequest(name="Red running shoe", client_id="python", attributes=attributes)
        status, put = call("products", "put_product", "py-shoe", body=product)
        assert (status, put.name, put.attributes["price"]) == (201, "Red running shoe", 49.9)

        shopify = "gid://shopify/Product/1"
        status, _ = call("products", "put_product", shopify, body=models.ProductRequest(name="A shoe", sku="S-1"))
        assert status == 201
        patch = models.ProductPatch(name="A better shoe", attributes=None)
        status, patched = call("products", "patch_product", shopify, body=patch)
        assert (status, patched.id, patched.name, patched.sku) == (200, shopify, "A better shoe", "S-1")
        status, _ = call("products", "patch_product", shopify, body=patch, if_match='"stale"')
        assert status == 412
        since = datetime.fromisoformat(put.created_at)
        status, page = call("products", "list_products", limit=1, updated_since=since)
        status, rest = call("products", "list_products", limit=1, updated_since=since, cursor=page.next_)
        assert [one.id for one in (*page.products, *rest.products)] == ["py-shoe", shopify]
        assert rest.next_ is None
        status, with_media = call("products", "get_product", shopify)
        assert (status, with_media.media, with_media.media_next) == (200, [], None)
        status, gone = call("products", "delete_product", shopify)
        assert (status, gone.id) == (200, shopify)

        form = models.UploadForm(file=file(), client_id="python")
        status, media = call("media", "add_media", "py-shoe", body=form)
        assert (status, media.status, media.product_id) == (201, "ready", "py-shoe")

        asked = models.SearchForm(file=file(), limit=3, min_grade=models.Grade.SIMILAR)
        status, found = call("search", "search_by_image", body=asked, twinlens_lane=models.Lane.INTERACTIVE)
        assert (status, found.results[0].media_id, found.results[0].similarity) == (200, media.id, 100.0)
        assert found.results[0].grade is models.Grade.IDENTICAL
        assert found.plan is models.SearchAnswerPlan.EXACT

        price = models.Condition(gte=20, lt=60)
        narrowed = models.Filter(attributes=models.FilterAttributes.from_dict({"price": price.to_dict()}))
        by_media = models.SearchRequest(media_id=media.id, client_id="python", filter_=narrowed)
        status, found = call("search", "search", body=by_media, twinlens_deadline=60.0)
        assert (status, [match.media_id for match in found.results]) == (200, [media.id])

        status, vectors = call("embeddings", "embed", body=models.PicturesForm(file=[file(), file()]))
        assert (status, len(vectors.embeddings), vectors.space) == (200, 2, found.space)
        status, thumbnail = call("media", "get_thumbnail", media.id)
        assert (status, thumbnail.payload.read(4)) == (200, b"RIFF")
        refusals = [
            call("embeddings", "embed_image", body=models.PictureForm(file=file(b"text"))),
            call("media", "get_media", "none", client_id="python"),
            call("search", "search", body=models.SearchRequest()),
            call("media", "get_media", media.id, client_id="typescript"),
        ]
        assert all(isinstance(problem, models.Problem) for _, problem in refusals)
        assert [(status, problem.code) for status, problem in refusals] == [
            (415, models.ErrorCode.NOT_A_PICTURE),
            (404, models.ErrorCode.MEDIA_NOT_FOUND),
            (422, models.ErrorCode.BAD_PARAMETER),
            (403, models.ErrorCode.CLIENT_MISMATCH),
        ]

    with connected(server.admin) as client:
        status, metrics = call("health", "metrics")
        assert (status, "twinlens_requests_total" in metrics) == (200, True)


@pytest.mark.slow  # it installs a compiler
@pytest.mark.skipif(
    not (shutil.which("npm") and shutil.which("node")) and not os.environ.get("CI"), reason="needs node and npm"
)
def test_the_types_of_openapi_typescript_compile_strictly_and_openapi_fetch_uses_them(
    server: Server, tmp_path: Path
) -> None:
    folder = shutil.copytree(TYPESCRIPT, tmp_path / "typescript")
    quietly = ("--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier")
    run("npm", "install", *quietly, folder=folder)
    run("npm", "run", "generate", "--", f"{server.url}/schema/openapi.json", folder=folder)
    run("npm", "run", "build", folder=folder)
    printed = json.loads(run("node", "built/use.js", server.url, PICTURE, server.typescript, folder=folder))
    assert printed == {
        "found": [["ts-shoe", "identical"], ["ts-shoe", "identical"]],
        "similarity": 100,
        "dimensions": [512, 512],
        "thumbnail": True,
        "listed": [["gid://shopify/Product/1", "A better shoe", "S-1"]],
        "codes": {"notAPicture": "not_a_picture", "noSuchMedia": "media_not_found"},
        "expected": True,
    }
