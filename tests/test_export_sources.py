"""Where weights come from; the hub is a small one of the test's own, in this process."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

from export.errors import ExportRefused
from export.sources import open_source
from server.artifact import Artifact
from tests.export_fixtures import DIMENSIONS, files_of, run_export, tiny_clip

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """Serves one model, tiny/clip, as the hub does, and remembers what was asked for."""

    files: dict[str, bytes]
    url: str = ""
    fetched: list[str] = field(default_factory=list)

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        path = path.partition("?")[0]
        if path in (
            "/api/models/tiny/clip",
            "/api/models/tiny/clip/revision/main",
            "/api/models/tiny/clip/revision/v1",
        ):
            info = {"id": "tiny/clip", "sha": COMMIT, "siblings": [{"rfilename": name} for name in self.files]}
            return 200, {"Content-Type": "application/json"}, json.dumps(info).encode()
        if path.startswith("/api/models/tiny/clip/"):
            return 404, {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"}, b""
        _, _, name = path.partition(f"/tiny/clip/resolve/{COMMIT}/")
        if name in self.files:
            data = self.files[name]
            return 200, {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha1(data).hexdigest()}"'}, data
        return 404, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}, b""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    serving = Hub({})

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = serving.answer(self.path)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                serving.fetched.append(self.path.rpartition("/")[2])
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        serving.url = f"http://127.0.0.1:{server.server_port}"
        yield serving
        server.shutdown()


def test_a_model_is_fetched_from_the_hub_with_only_what_is_needed(hub: Hub, tmp_path: Path) -> None:
    folder = tiny_clip(tmp_path / "published", form="bin")
    hub.files = {**files_of(folder), "tf_model.h5": b"no", "README.md": b"no", "tokenizer.json": b"no"}
    home = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")}
    arguments = ["--source", "tiny/clip", "--name", "a", "--revision", "v1"]
    done = run_export(*arguments, "--models", tmp_path / "m", **home)
    assert done.returncode == 0, done.stderr
    manifest = Artifact.read(tmp_path / "m" / "a").manifest
    assert (manifest.source.kind, manifest.source.id, manifest.source.revision) == ("hub", "tiny/clip", COMMIT)
    assert manifest.model == "tiny/clip"
    fetched = {name for name in hub.fetched if "." in name}
    assert fetched == {"config.json", "preprocessor_config.json", "pytorch_model.bin"}
    # And from the cache alone, when the hub is gone.
    home["HF_ENDPOINT"] = "http://127.0.0.1:9"
    again = run_export(*arguments[:4], "--revision", COMMIT, "--models", tmp_path / "n", **home)
    assert again.returncode == 0, again.stderr
    assert files_of(tmp_path / "n") == files_of(tmp_path / "m")


def test_safetensors_are_fetched_in_place_of_a_pickle(hub: Hub, tmp_path: Path) -> None:
    hub.files = {**files_of(tiny_clip(tmp_path / "published")), "pytorch_model.bin": b"never"}
    done = run_export(
        *("--source", "tiny/clip", "--name", "a", "--models", tmp_path / "m"),
        HF_ENDPOINT=hub.url,
        HF_HOME=str(tmp_path / "home"),
    )
    assert done.returncode == 0, done.stderr
    assert "model.safetensors" in hub.fetched
    assert "pytorch_model.bin" not in hub.fetched


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--source", "tiny/other"], "no model of that name on the hub"),
        (["--source", "tiny/clip", "--revision", "v9"], "no revision v9"),
    ],
)
def test_what_the_hub_does_not_have_is_said(arguments: list[str], sentence: str, hub: Hub, tmp_path: Path) -> None:
    done = run_export(
        *arguments,
        *("--name", "a", "--models", tmp_path / "m"),
        HF_ENDPOINT=hub.url,
        HF_HOME=str(tmp_path / "home"),
    )
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "m").exists()


def test_a_hub_that_cannot_be_reached_is_said(tmp_path: Path) -> None:
    done = run_export(
        *("--source", "tiny/clip", "--name", "a", "--models", tmp_path / "m"),
        HF_ENDPOINT="http://127.0.0.1:9",
        HF_HOME=str(tmp_path / "home"),
    )
    assert done.returncode == 2
    assert done.stderr.startswith("export: There is no folder tiny/clip, and the hub (http://127.0.0.1:9) cannot")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("missing", ["model.safetensors", "config.json"])
def test_a_cache_with_a_part_of_a_model_does_not_hide_that_the_hub_is_out_of_reach(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "cache" / "models--tiny--clip"
    tiny_clip(model / "snapshots" / COMMIT)
    (model / "snapshots" / COMMIT / missing).unlink()
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(COMMIT)
    at_hub(monkeypatch, "http://127.0.0.1:9", tmp_path / "cache")
    with pytest.raises(ExportRefused, match=r"127\.0\.0\.1:9\) cannot be reached; its cache here has only a part"):
        open_source("tiny/clip")


@pytest.mark.parametrize(
    "body", [b"[]", b"{}", b"null", b"7", b"<html>Sign in</html>", b'{"id": "a", "siblings": [7]}', b"\xff"], ids=repr
)
def test_a_hub_that_answers_with_something_else_is_refused(
    body: bytes, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "answer", lambda path: (200, {"Content-Type": "application/json"}, body))
    at_hub(monkeypatch, hub.url, tmp_path / "cache")
    with pytest.raises(ExportRefused, match="gave no answer of a hub for tiny/clip"):
        open_source("tiny/clip")


def test_a_folder_of_sentence_transformers_is_sent_to_the_clip_inside(tmp_path: Path) -> None:
    folder = tmp_path / "clip-ViT-B-32"
    tiny_clip(folder / "0_CLIPModel")
    (folder / "modules.json").write_text("[]")
    with pytest.raises(
        ExportRefused, match="format of sentence-transformers; its CLIP is the folder 0_CLIPModel"
    ) as no:
        open_source(str(folder))
    assert no.value.sentence.endswith(f"Give {folder}/0_CLIPModel as --source.")
    assert open_source(str(folder / "0_CLIPModel")).dimensions == DIMENSIONS
    shutil.rmtree(folder / "0_CLIPModel")
    with pytest.raises(ExportRefused, match="there is no CLIP in it"):
        open_source(str(folder))


@pytest.mark.parametrize(
    ("source", "advice"),
    [
        ("tiny/clip-ViT-B-32", "Give openai/clip-vit-base-patch32, which is its plain form, or fetch that folder"),
        ("tiny/other", r"in it\. Fetch that folder \(hf download tiny/other --include '0_CLIPModel/\*'"),
    ],
)
def test_a_hub_model_of_sentence_transformers_is_told_what_to_do(
    source: str, advice: str, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["modules.json", "config_sentence_transformers.json", "0_CLIPModel/config.json"]
    info = {"id": source, "sha": COMMIT, "siblings": [{"rfilename": name} for name in names]}
    monkeypatch.setattr(
        hub, "answer", lambda path: (200, {"Content-Type": "application/json"}, json.dumps(info).encode())
    )
    at_hub(monkeypatch, hub.url, tmp_path / "cache")
    with pytest.raises(ExportRefused, match=advice):
        open_source(source)


def at_hub(monkeypatch: pytest.MonkeyPatch, url: str, cache: Path) -> None:
    """Point the hub's client, which has read its environment long ago, at another hub and another cache."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))


def test_a_folder_wins_over_a_hub_id_of_the_same_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_clip(tmp_path / "tiny" / "clip")
    monkeypatch.chdir(tmp_path)
    checkpoint = open_source("tiny/clip")
    assert (checkpoint.source.kind, checkpoint.source.id) == ("folder", "clip")
