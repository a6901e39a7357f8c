"""Where weights come from; the hub is a small one of the test's own, in this process."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants, file_download

from export.__main__ import main
from export.checkpoints.checkpoint import Checkpoint
from export.checkpoints.sources import open_source
from export.errors import ExportRefused
from server.artifact.artifact import space_id, text_digest
from tests import ROOT
from tests.support.checkpoints import SIZE, TEXT, files_of, tiny_clip

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
                serving.fetched.append(self.path.partition(f"/resolve/{COMMIT}/")[2])
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        serving.url = f"http://127.0.0.1:{server.server_port}"
        yield serving
        server.shutdown()


def at_hub(monkeypatch: pytest.MonkeyPatch, url: str, cache: Path) -> None:
    """Point the hub's client, which reads its environment when it is imported, at another hub and another cache."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(
        file_download, "HUGGINGFACE_CO_URL_TEMPLATE", f"{url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    )


def described(one: Checkpoint) -> dict[str, Any]:
    text = one.text and one.text()
    return {
        "source": [one.source.kind, one.source.id, one.source.revision],
        "model": one.model,
        "space": space_id(one.image.tensors, one.image.spec),
        "text": text and text_digest(text.tensors, text.tokenizer_json),
    }


def opened_elsewhere(url: str, home: Path, revision: str) -> dict[str, Any]:
    """tiny/clip in a process of its own, which finds the hub and the cache by the environment."""
    code = f"""
import json, sys
from export.checkpoints.sources import open_source
from {__name__} import described
print(json.dumps(described(open_source("tiny/clip", sys.argv[1]))))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, revision],
        cwd=ROOT,
        env={**os.environ, "HF_ENDPOINT": url, "HF_HOME": str(home)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_a_model_is_fetched_from_the_hub_with_only_what_is_needed(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_clip(tmp_path / "published", form="bin", words=True)
    unwanted = ("tf_model.h5", "README.md", "pytorch_model.fp16.bin", "onnx/model.safetensors", "modeling_evil.py")
    hub.files = {**files_of(folder), **dict.fromkeys(unwanted, b"no")}
    found = opened_elsewhere(hub.url, tmp_path / "home", "v1")
    assert found["source"] == ["hub", "tiny/clip", COMMIT]
    assert found["model"] == "tiny/clip"
    assert found["space"] == space(str(folder))
    assert found["text"] is not None
    assert {name for name in hub.fetched if name} == set(files_of(folder))
    # And from the cache alone, when the hub is gone.
    at_hub(monkeypatch, "http://127.0.0.1:9", tmp_path / "home" / "hub")
    assert described(open_source("tiny/clip", COMMIT)) == found


def test_safetensors_are_fetched_in_place_of_a_pickle(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.files = {**files_of(tiny_clip(tmp_path / "published")), "pytorch_model.bin": b"never"}
    at_hub(monkeypatch, hub.url, tmp_path / "cache")
    assert open_source("tiny/clip").text is None
    assert "model.safetensors" in hub.fetched
    assert "pytorch_model.bin" not in hub.fetched


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--source", "tiny/other"], "no model of that name on the hub"),
        (["--source", "tiny/clip", "--revision", "v9"], "no revision v9"),
    ],
)
def test_what_the_hub_does_not_have_is_said(
    arguments: list[str],
    sentence: str,
    hub: Hub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    at_hub(monkeypatch, hub.url, tmp_path / "cache")
    assert main([*arguments, "--name", "a", "--models", str(tmp_path / "m")]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert "Traceback" not in error
    assert not (tmp_path / "m").exists()


def test_a_hub_that_cannot_be_reached_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    at_hub(monkeypatch, "http://127.0.0.1:9", tmp_path / "cache")
    assert main(["--source", "tiny/clip", "--name", "a", "--models", str(tmp_path / "m")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("export: There is no folder tiny/clip, and the hub (http://127.0.0.1:9) cannot")
    assert "Traceback" not in error


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
    with pytest.raises(ExportRefused, match="does not answer as the hub does for tiny/clip"):
        open_source("tiny/clip")


CLIP_MODULE = {"idx": 0, "name": "0", "path": "0_CLIPModel", "type": "sentence_transformers.models.CLIPModel"}
NORMALIZE = {"idx": 1, "name": "1", "path": "1_Normalize", "type": "sentence_transformers.models.Normalize"}


def sentence_transformers(folder: Path, modules: object, inside: str = "0_CLIPModel", **made: Any) -> Path:
    """A CLIP in the format of that library; `modules` is its modules.json."""
    tiny_clip(folder / inside, form="bin", words=True, **made)
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "config_sentence_transformers.json").write_text("{}")
    return folder


def space(source: str) -> str:
    image = open_source(source).image
    return space_id(image.tensors, image.spec)


@pytest.mark.parametrize(
    ("modules", "inside"),
    [
        ([CLIP_MODULE], "0_CLIPModel"),
        ([CLIP_MODULE, NORMALIZE], "0_CLIPModel"),
        ([{**CLIP_MODULE, "path": ""}], ""),
        ([{**CLIP_MODULE, "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"}], ""),
    ],
    ids=["a folder in it", "and normalised", "the folder itself", "as newer versions write it"],
)
def test_a_clip_of_sentence_transformers_has_the_space_and_text_tower_of_its_plain_twin(
    modules: list[dict[str, Any]], inside: str, tmp_path: Path
) -> None:
    # Its image processor is written as years ago, and its weights are a pickle.
    old = {
        "feature_extractor_type": "CLIPFeatureExtractor",
        "image_processor_type": None,
        "size": SIZE,
        "crop_size": SIZE,
    }
    folder = sentence_transformers(tmp_path / "clip-tiny", modules, inside, processor=old)
    twin = tiny_clip(tmp_path / "twin", words=True)
    assert space(str(folder)) == space(str(twin))
    checkpoint = open_source(str(folder))
    assert (checkpoint.model, checkpoint.source.id) == ("clip-tiny", "clip-tiny")
    theirs, ours = checkpoint.text, open_source(str(twin)).text
    assert theirs is not None
    assert ours is not None
    one, other = theirs(), ours()
    assert text_digest(one.tensors, one.tokenizer_json) == text_digest(other.tensors, other.tokenizer_json)


@pytest.mark.parametrize(
    ("modules", "sentence"),
    [
        ([CLIP_MODULE, {**NORMALIZE, "type": "sentence_transformers.models.Dense"}], "changes its vectors by Dense"),
        (
            [{**CLIP_MODULE, "type": "sentence_transformers.models.WordEmbeddings"}],
            "its first module is WordEmbeddings",
        ),
        (
            [{**CLIP_MODULE, "type": "x.Transformer"}, {**NORMALIZE, "type": "sentence_transformers.models.Pooling"}],
            "changes its vectors by Pooling",
        ),
        ([], "it has no modules"),
        ({}, "it has no modules"),
        ([1], "is not a list of modules"),
        (["CLIPModel"], "is not a list of modules"),
        ([{"type": "CLIPModel"}], "is not a list of modules"),
        (None, "is not a list of modules"),
        ([{**CLIP_MODULE, "path": "../elsewhere"}], "names a module outside its folder: ../elsewhere"),
        ([{**CLIP_MODULE, "path": "/etc"}], "names a module outside its folder: /etc"),
        ([{**CLIP_MODULE, "path": "1_CLIPModel"}], "There is no config.json in"),
    ],
    ids=str,
)
def test_a_sentence_transformers_folder_without_a_plain_clip_is_refused(
    modules: object, sentence: str, tmp_path: Path
) -> None:
    folder = sentence_transformers(tmp_path / "folder", modules)
    with pytest.raises(ExportRefused) as refused:
        open_source(str(folder))
    assert sentence in refused.value.sentence


def test_a_hub_model_of_sentence_transformers_is_fetched_with_only_what_is_needed(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = sentence_transformers(tmp_path / "published", [CLIP_MODULE])
    wanted = {name for name in files_of(folder) if name != "config_sentence_transformers.json"}
    hub.files = {**files_of(folder), "model.safetensors": b"no", "0_CLIPModel/tf_model.h5": b"no", "README.md": b"no"}
    at_hub(monkeypatch, hub.url, tmp_path / "cache")
    found = described(open_source("tiny/clip"))
    assert {name for name in hub.fetched if name} == wanted
    assert found["source"] == ["hub", "tiny/clip", COMMIT]
    assert found["text"] is not None
    assert found["space"] == space(str(folder))
    # And from the cache alone.
    at_hub(monkeypatch, "http://127.0.0.1:9", tmp_path / "cache")
    assert described(open_source("tiny/clip")) == found


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("chinese_clip", "is a Chinese CLIP, whose text tower is a BERT"),
        ("clip_text_model", "is a text tower alone"),
        ("siglip2", "export google/siglip2-base-patch16-256, its twin"),
        ("bert", "is not a CLIP: its config.json says model_type 'bert'; clip and siglip are what can be exported"),
        (None, "says model_type None"),
        (["clip"], r"says model_type \['clip'\]"),
    ],
)
def test_other_models_are_refused_by_what_they_are(kind: object, sentence: str, tmp_path: Path) -> None:
    tiny_clip(tmp_path / "other", config={"model_type": kind})
    with pytest.raises(ExportRefused, match=sentence):
        open_source(str(tmp_path / "other"))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ({"vocab_size": 0}, "vocab_size 0"),
        ({"vocab_size": "many"}, "vocab_size 'many'"),
        ({"max_position_embeddings": None}, "max_position_embeddings None"),
        ({"num_attention_heads": True}, "num_attention_heads True"),
        ({"layer_norm_eps": "small"}, "layer_norm_eps 'small'"),
        ({"eos_token_id": None}, "eos_token_id None"),
        ({"hidden_act": 3}, "hidden_act 3"),
    ],
    ids=str,
)
def test_an_invalid_config_of_a_text_tower_is_refused_before_anything_is_made(
    text: dict[str, object], sentence: str, tmp_path: Path
) -> None:
    tiny_clip(tmp_path / "bad", words=True, config={"text_config": {**TEXT, **text}})
    with pytest.raises(ExportRefused, match=sentence):
        open_source(str(tmp_path / "bad"))


def test_a_clip_without_a_tokenizer_or_words_says_why_it_has_no_text_tower(tmp_path: Path) -> None:
    wordless = open_source(str(tiny_clip(tmp_path / "wordless")))
    assert (wordless.text, wordless.without_text) == (None, "There is no tokenizer beside the weights of wordless.")

    def cut(weights: dict[str, torch.Tensor]) -> None:
        for name in [name for name in weights if name.startswith("text_")]:
            del weights[name]

    for form in ("bin", "safetensors-sharded"):
        half = open_source(str(tiny_clip(tmp_path / form, form=form, words=True, change=cut)))
        assert half.text is None
        assert half.without_text == f"The weights of {form} hold no text tower."


def test_a_folder_wins_over_a_hub_id_of_the_same_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_clip(tmp_path / "tiny" / "clip")
    monkeypatch.chdir(tmp_path)
    checkpoint = open_source("tiny/clip")
    assert (checkpoint.source.kind, checkpoint.source.id) == ("folder", "clip")
