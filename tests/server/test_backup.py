"""Backup and restore as an operator runs them: processes of their own, beside servers that run, and killed."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.ingest.storage import NOTE
from server.postgres.server import EmbeddedPostgres
from tests import DEMO_PICTURES, PHOTOGRAPHS, ROOT
from tests.support.databases import discard, fresh_database, run_sql
from tests.support.process import Process, Serve, until

FEW = 8
AUDIT = "SELECT at, action, object FROM twinlens_audit ORDER BY id"


def command(name: str, *words: object, data: Path | None = None) -> list[str]:
    flags = [] if data is None else ["--data", str(data)]
    return [sys.executable, "-m", "server", name, *flags, *map(str, words)]


def run(name: str, *words: object, data: Path | None = None, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command(name, *words, data=data), cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == code, done.stderr
    return done


def answered(name: str, *words: object, data: Path | None = None) -> dict[str, Any]:
    """The last line of standard output, which is JSON."""
    found: dict[str, Any] = json.loads(run(name, *words, "--json", data=data).stdout.splitlines()[-1])
    return found


@dataclass(frozen=True)
class Saved:
    """A backup that was made while its server ran, and what that server had answered."""

    file: Path
    data: Path
    said: dict[str, Any]
    key: str
    audit: list[Any]
    pictures: dict[str, bytes]
    """By the media's id."""
    signed: str
    """The path of a picture that needs no key."""


@pytest.fixture(scope="module")
def saved() -> Iterator[Saved]:
    with tempfile.TemporaryDirectory(prefix="twinlens-test-", ignore_cleanup_errors=True) as name:
        home = Path(name)
        home.chmod(0o755)
        data, file = home / "data", home / "backup.tar"
        process = Process(data, "--demo", "on", products=FEW)
        try:
            process.ready()
            key = answered("keys", "create", "--client", "demo", "--scope", "search,read,write", data=data)["key"]
            url = EmbeddedPostgres(data).url
            run_sql(url, """INSERT INTO twinlens_limits VALUES ('demo', '{"requests": 500}')""")
            with process.client() as client:
                client.headers["X-API-Key"] = key
                photograph = sorted(PHOTOGRAPHS.glob("*.jpg"))[0].read_bytes()
                client.post("/v1/products/demo-keyboard/media", files={"file": photograph}).raise_for_status()
                pictures = _pictures(client, photograph)
                found = client.post("/v1/search", files={"file": photograph}).raise_for_status().json()["results"]
            until(lambda: len(run_sql(url, AUDIT)) == 2)
            audit = run_sql(url, AUDIT)
            said = answered("backup", file, data=data)
        finally:
            assert process.stop() == 0
        yield Saved(file, data, said, key, audit, pictures, found[0]["fileUrl"])
        discard(EmbeddedPostgres(data))


def _pictures(client: httpx.Client, photograph: bytes) -> dict[str, bytes]:
    """The pictures of all media, by the media's id."""
    known = {path.stem: path.read_bytes() for path in DEMO_PICTURES.glob("*.webp")}
    found = {}
    for match in client.post("/v1/search", json={"text": "thing", "limit": 100}).raise_for_status().json()["results"]:
        name = match["productId"].removeprefix("demo-")
        found[match["mediaId"]] = photograph if match["s3Key"].endswith(".jpg") else known[name]
    assert len(found) == FEW + 1
    return found


def finds_all(process: Process, saved: Saved) -> bool:
    """Whether every picture finds itself, first and at 100 %."""
    with process.client() as client:
        client.headers["X-API-Key"] = saved.key
        for media, data in saved.pictures.items():
            first = client.post("/v1/search", files={"file": data}).raise_for_status().json()["results"][0]
            if (first["mediaId"], first["similarity"], first["grade"]) != (media, 100.0, "identical"):
                return False
    return True


def test_a_backup_is_restored_into_a_new_folder_and_every_picture_finds_itself(
    saved: Saved, serve: Serve, tmp_path: Path
) -> None:
    assert (saved.said["media"], saved.said["objects"], saved.said["missing"]) == (FEW + 1, 2 * (FEW + 1), 0)
    assert saved.file.stat().st_mode & 0o777 == 0o600
    data = tmp_path / "new"
    done = run("restore", saved.file, data=data)
    assert f"{FEW + 1} pictures, with {2 * (FEW + 1)} files" in done.stdout
    assert "Servers serve as the role twinlens_server" in done.stdout
    process = serve(data=data).ready()
    assert finds_all(process, saved)
    with process.client() as client:
        assert client.get("/v1/products/demo-keyboard").status_code == 401
        assert client.get(saved.signed).raise_for_status().content == saved.pictures[_media_of(saved.signed)]
    url = EmbeddedPostgres(data).url
    assert run_sql(url, "SELECT * FROM twinlens_limits") == [("demo", {"requests": 500})]
    *audit, last = run_sql(url, AUDIT)
    assert (audit, "restore" in last) == (saved.audit, True)
    assert "removes nothing" not in "".join(process.log)
    assert process.stop() == 0
    again = run("restore", saved.file, data=data, code=2)
    assert "holds tables already" in again.stderr


def _media_of(address: str) -> str:
    found = re.search(r"/v1/media/([^/]+)/file", address)
    assert found is not None
    return found[1]


def test_a_server_serves_what_was_restored_into_a_database_of_ones_own(
    saved: Saved, serve: Serve, postgres_url: str, tmp_path: Path
) -> None:
    with fresh_database(postgres_url) as url:
        place = ("--database-url", url, "--media-url", str(tmp_path / "pictures"))
        run("restore", saved.file, *place, data=tmp_path / "data")
        assert not (tmp_path / "data" / "postgres").exists()
        process = serve(*place, data=tmp_path / "data").ready()
        assert finds_all(process, saved)
        assert process.stop() == 0


def test_a_backup_that_is_killed_leaves_no_file_and_is_made_again(saved: Saved, tmp_path: Path) -> None:
    path = tmp_path / "backup.tar"
    part = path.with_name("backup.tar.part")
    process = subprocess.Popen(
        command("backup", path, data=saved.data), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    until(lambda: part.exists() or process.poll() is not None)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not path.exists()
    done = run("restore", part, data=tmp_path / "new", code=2)
    assert re.search(r"no whole backup|no backup of Twinlens", done.stderr)
    assert not (tmp_path / "new").exists()
    assert answered("backup", path, data=saved.data)["missing"] == 0
    assert not part.exists()


def test_a_restore_that_is_killed_serves_nothing_and_is_run_again(saved: Saved, serve: Serve, tmp_path: Path) -> None:
    data = tmp_path / "new"
    process = subprocess.Popen(
        command("restore", saved.file, data=data), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    until(lambda: (data / "media" / NOTE).exists() or process.poll() is not None)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (data / "media" / NOTE).exists()
    refused = serve(data=data)
    assert refused.end() == 2
    assert "A backup is being restored into the store" in "".join(refused.log)
    run("restore", saved.file, data=data)
    process_again = serve(data=data).ready()
    assert finds_all(process_again, saved)


def test_what_cannot_be_is_a_sentence(saved: Saved, tmp_path: Path) -> None:
    assert "there already" in run("backup", saved.file, data=saved.data, code=2).stderr
    assert "cannot be read: No such file" in run("restore", tmp_path / "none", data=tmp_path / "new", code=2).stderr
    assert not (tmp_path / "new").exists()
