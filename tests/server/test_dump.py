"""Dump and load as an operator runs them: processes of their own, beside servers that run, and killed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from server.dump.manifest import MANIFEST
from server.postgres.server import EmbeddedPostgres
from tests import DEMO_PICTURES, ROOT
from tests.support.databases import discard, run_sql
from tests.support.process import Process, Serve, until

FEW = 8


def command(name: str, *words: object, data: Path) -> list[str]:
    return [sys.executable, "-m", "server", name, "--data", str(data), *map(str, words)]


def run(name: str, *words: object, data: Path, code: int = 0) -> str:
    """Standard output; where it ends with 2, standard error."""
    done = subprocess.run(
        command(name, *words, data=data), cwd=ROOT, env=clean(), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == code, done.stderr
    return done.stderr if code == 2 else done.stdout


def clean() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("TWINLENS_")}


def start(name: str, *words: object, data: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command(name, *words, data=data), cwd=ROOT, env=clean(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def finds_all(process: Process) -> bool:
    """Whether every picture of the catalogue finds itself, first and at 100 %."""
    with process.client() as client:
        everything = (
            client.post("/v1/search", json={"text": "thing", "limit": 100}).raise_for_status().json()["results"]
        )
        for one in everything:
            data = (DEMO_PICTURES / f"{one['productId'].removeprefix('demo-')}.webp").read_bytes()
            first = client.post("/v1/search", files={"file": data}).raise_for_status().json()["results"][0]
            if (first["mediaId"], first["similarity"], first["grade"]) != (one["mediaId"], 100.0, "identical"):
                return False
            assert client.get(first["thumbnailUrl"]).raise_for_status().content
    return len(everything) == FEW


@pytest.fixture(scope="module")
def dumped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Made while its server runs."""
    folder = tmp_path_factory.mktemp("dump")
    folder.chmod(0o755)
    process = Process(folder / "data", "--demo", "on", products=FEW)
    try:
        process.ready()
        said = json.loads(
            run("dump", "--parquet", folder / "dump", "--with-pictures", "--json", data=folder / "data").splitlines()[
                -1
            ]
        )
        assert (said["products"], said["media"], said["pictures"]) == (FEW, FEW, 2 * FEW)
    finally:
        assert process.stop() == 0
    yield folder / "dump"
    discard(EmbeddedPostgres(folder / "data"))


def test_a_dump_is_loaded_into_a_new_folder_and_every_picture_finds_itself(
    dumped: Path, serve: Serve, tmp_path: Path
) -> None:
    data = tmp_path / "new"
    said = run("load", dumped, data=data)
    assert f"were added: {FEW} products, {FEW} pictures, {FEW} vectors, and {2 * FEW} files" in said
    process = serve(data=data).ready()
    assert finds_all(process)
    beside: dict[str, Any] = json.loads(run("load", dumped, "--json", data=data).splitlines()[-1])
    assert (beside["products"], beside["media"], beside["vectors"], beside["pictures"]) == (0, 0, 0, 0)
    assert finds_all(process)
    assert process.stop() == 0


def test_what_the_documentation_reads_with_pyarrow_is_read(dumped: Path, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "dump.md").read_text("utf-8")
    (code,) = (
        one
        for one in re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        if "import pyarrow" in one and "lance" not in one
    )
    (tmp_path / "catalogue").symlink_to(dumped)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[:2] == ["fixed_size_list<element: halffloat>[512]", "demo-keyboard 1.0"]


def test_without_vectors_a_server_embeds_them_and_finds_the_same(dumped: Path, serve: Serve, tmp_path: Path) -> None:
    data = tmp_path / "new"
    run("load", dumped, "--without-vectors", data=data)
    process = serve(data=data).ready()
    url = EmbeddedPostgres(data).url
    until(lambda: run_sql(url, "SELECT count(*) FROM image_embeddings") == [(FEW,)])
    assert finds_all(process)
    assert process.stop() == 0


def test_a_dump_that_is_killed_is_known_as_such(dumped: Path, tmp_path: Path) -> None:
    folder, data = tmp_path / "dump", dumped.parent / "data"
    process = start("dump", "--parquet", folder, "--with-pictures", data=data)
    until(lambda: (folder / f"{MANIFEST}.part").exists() or process.poll() is not None)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (folder / MANIFEST).exists()
    assert "holds no dump, or one that was never finished" in run("load", folder, data=tmp_path / "new", code=2)
    assert "is not empty" in run("dump", "--parquet", folder, data=data, code=2)
    assert not (tmp_path / "new").exists()


def test_a_load_that_is_killed_is_run_again(dumped: Path, serve: Serve, tmp_path: Path) -> None:
    """As soon as the first picture is in the store; tests/server/dump has every other moment."""
    data = tmp_path / "new"
    process = start("load", dumped, data=data)
    until(lambda: list((data / "media").rglob("*.webp")) or process.poll() is not None)
    process.send_signal(signal.SIGKILL)
    process.wait()
    run("load", dumped, data=data)
    assert finds_all(serve(data=data).ready())
