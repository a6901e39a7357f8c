"""The commands beside the export itself: verify, list, show, diff and bench."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from export.artifacts.diff import diff
from export.artifacts.listing import list_artifacts, show
from export.artifacts.verify import graph_digests, verify
from export.errors import ExportRefused
from export.proof import parity
from export.proof.gate import own_space
from export.proof.speed import bench
from server.artifact.artifact import Artifact, Space
from server.errors import ArtifactInvalid
from server.inference.encoder import Encoder
from tests.support.artifacts import image_only, rewrite, with_words


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_words(tmp_path_factory.mktemp("artifacts") / "words")


@pytest.fixture
def small_gate(few_pictures_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few pictures, where it is not the pictures that are in question."""
    monkeypatch.setattr(parity, "PICTURES", few_pictures_folder)


@pytest.fixture
def copy(words: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(words, tmp_path / "models" / "copy"))


def _stirred(folder: Path, by: float) -> Path:
    """Add int8: the graph of fp32 with noise on the weights of its projection, in the space of fp32."""
    artifact = Artifact.read(folder)
    model = onnx.load(artifact.graph("fp32"))
    weight = max(model.graph.initializer, key=lambda one: len(one.raw_data))
    array = numpy_helper.to_array(weight)
    noise = np.random.default_rng(0).standard_normal(array.shape) * array.std() * by
    weight.CopyFrom(numpy_helper.from_array((array + noise).astype(array.dtype), weight.name))
    (folder / "image.int8.onnx").write_bytes(model.SerializeToString())
    fp32 = artifact.manifest.precisions["fp32"]
    int8 = msgspec.structs.replace(fp32, image="image.int8.onnx", min_cosine=0.999)
    precisions: Any = {"fp32": fp32, "int8": int8}
    draft = Artifact(folder, msgspec.structs.replace(artifact.manifest, precisions=precisions))
    goldens = []
    with Encoder(draft, "int8", "cpu") as encoder:
        for golden in artifact.manifest.goldens:
            name = golden.pixels.replace(".pixels.", ".int8.")
            np.save(folder / name, encoder.encode(np.load(folder / golden.pixels)[None])[0])
            goldens.append(msgspec.structs.replace(golden, embeddings={**golden.embeddings, "int8": name}))
    spoken = [
        msgspec.structs.replace(golden, embeddings={**golden.embeddings, "int8": golden.embeddings["fp32"]})
        for golden in artifact.manifest.text_goldens
    ]
    return rewrite(folder, precisions=precisions, goldens=goldens, text_goldens=spoken)


def _change(folder: Path, precision: Any, **fields: Any) -> None:
    precisions = dict(Artifact.read(folder).manifest.precisions)
    precisions[precision] = msgspec.structs.replace(precisions[precision], **fields)
    rewrite(folder, precisions=precisions)


# --- verify ----------------------------------------------------------------------------------------------------------


def test_verify_proves_pictures_and_words_and_says_so(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verify(copy)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["files", "goldens", "gate", "texts"]
    assert "5 pictures give their pixels and 5 texts their tokens" in lines[1]
    assert "78 of 93 pictures equal to the last bit" in lines[2]
    assert "bit-identical alone and in batches" in lines[2]
    assert "texts" in lines[3]


@pytest.mark.usefixtures("small_gate")
def test_verify_proves_every_precision_against_fp32(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verify(_stirred(copy, 0.01))
    out = capsys.readouterr().out
    assert "int8 on cpu: lowest cosine 1.0000000000" in out
    assert "lowest cosine to fp32 here 0.999" in out
    assert "each finds itself first" in out
    assert "int8 on cpu uses text.fp32.onnx" in out


@pytest.mark.usefixtures("small_gate")
def test_a_precision_that_is_too_far_from_fp32_here_must_not_share_its_space(copy: Path) -> None:
    _stirred(copy, 0.5)
    with pytest.raises(ExportRefused, match="int8 shares the space of fp32, but on this machine"):
        verify(copy)
    artifact = Artifact.read(copy)
    apart = own_space(artifact.manifest.space.id, "int8", graph_digests(artifact, "image.int8.onnx"))
    _change(copy, "int8", space=apart)
    verify(copy)


def test_a_space_that_nothing_makes_is_refused(copy: Path) -> None:
    _stirred(copy, 0.01)
    _change(copy, "int8", space="0" * 64)
    with pytest.raises(ExportRefused, match="neither that of the artifact nor"):
        verify(copy)
    _change(copy, "fp32", space="0" * 64)
    with pytest.raises(ExportRefused, match="fp32 is what makes the artifact's space"):
        verify(copy)


def test_figures_below_what_they_had_to_reach_are_refused(copy: Path) -> None:
    variant = Artifact.read(copy).manifest.precisions["fp32"]
    parity = variant.parity["cpu"]
    low = msgspec.structs.replace(parity, image=msgspec.structs.replace(parity.image, min_cosine=0.99))
    _change(copy, "fp32", parity={"cpu": low})
    with pytest.raises(ExportRefused, match=r"reached a cosine of 0\.99 on cpu, below"):
        verify(copy)


def test_another_tokenizer_fails_the_verification(copy: Path) -> None:
    path = copy / "tokenizer.json"
    content = json.loads(path.read_text("utf-8"))
    content["normalizer"]["lowercase"] = False
    path.write_text(json.dumps(content))
    with pytest.raises(ArtifactInvalid, match=r"tokenizer\.json is not the file"):
        verify(copy)
    rewrite(copy)
    with pytest.raises(ArtifactInvalid, match="VIOLIN"):
        verify(copy)


# --- list and show ---------------------------------------------------------------------------------------------------


def test_list_has_a_line_for_each_artifact_and_names_what_is_broken(copy: Path) -> None:
    models = copy.parent
    image_only(models / "pictures")
    (models / "broken").mkdir()
    (models / "broken" / "manifest.json").write_text("{")
    (models / "not-an-artifact").mkdir()
    (models / ".hidden.partial").mkdir()
    (models / "notes.txt").write_text("x")
    lines = list_artifacts(models).splitlines()
    assert [line.split()[0] for line in lines] == ["name", "copy", "pictures", "broken"]
    assert "16 tokens" in lines[1]
    assert " no " in lines[2]
    assert all("1.00000000 fp32" in line for line in lines[1:3])
    assert "cannot be read: " in lines[3]


def test_list_shows_a_precision_with_a_space_of_its_own(copy: Path) -> None:
    _change(copy, "fp32", space="0" * 64)
    assert "fp32 (own space)" in list_artifacts(copy.parent)


def test_list_of_nothing_says_so(tmp_path: Path) -> None:
    assert list_artifacts(tmp_path) == f"There are no artifacts in {tmp_path}."
    with pytest.raises(ExportRefused, match="There is no folder"):
        list_artifacts(tmp_path / "nowhere")


def test_show_prints_everything_that_the_manifest_says(words: Path) -> None:
    manifest = Artifact.read(words).manifest
    shown = show(words)
    for value in (
        manifest.model,
        manifest.space.id,
        "shortest-edge",
        "jpeg_at_least",
        "a mean of tokens",
        "at most 16",
        "in the artifact's space",
        "lowest centred",
        "keyboard",
        manifest.versions["torch"],
        *manifest.files,
    ):
        assert value in shown


def test_show_of_what_is_no_artifact_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactInvalid, match="no model artifact"):
        show(tmp_path)


# --- diff ------------------------------------------------------------------------------------------------------------


def test_an_artifact_does_not_differ_from_its_copy(words: Path, copy: Path) -> None:
    output = diff(words, copy)
    assert output.startswith(f"The manifests of {words} and {copy} say the same.")
    assert "Same space: vectors of A and B may be compared" in output


def _other_spec(folder: Path) -> None:
    manifest = Artifact.read(folder).manifest
    spec = msgspec.structs.replace(manifest.preprocessing, resample="bilinear", jpeg_at_least=900)
    rewrite(folder, preprocessing=spec, space=Space("1" * 64, 512))


def _other_weights(folder: Path) -> None:
    rewrite(folder, space=Space("1" * 64, 512))


def _other_dimensions(folder: Path) -> None:
    rewrite(folder, space=Space("1" * 64, 768))


@pytest.mark.parametrize(
    ("change", "because"),
    [
        (_other_spec, "because resample and jpeg_at_least of the preprocessing differ."),
        (_other_weights, "because the weights differ."),
        (_other_dimensions, "because they have 512 and 768 dimensions."),
    ],
)
def test_different_spaces_are_named_with_the_reason(
    change: Callable[[Path], None], because: str, words: Path, copy: Path
) -> None:
    change(copy)
    output = diff(words, copy)
    assert "Different spaces: vectors of A and B must not be compared." in output
    assert because in output
    assert "Same space" not in output


def test_each_field_that_differs_has_a_line_and_no_other(words: Path, copy: Path) -> None:
    _other_spec(copy)
    lines = [line.split() for line in diff(words, copy).splitlines()]
    assert ["resample", "bicubic", "bilinear"] in lines
    assert ["jpeg_at_least", "448", "900"] in lines
    assert not any(line[:1] in (["edge"], ["mean"], ["opset"]) for line in lines)


def test_another_text_tower_needs_no_re_embedding(words: Path, copy: Path, tmp_path: Path) -> None:
    tower = Artifact.read(copy).manifest.text
    assert tower is not None
    rewrite(copy, text=msgspec.structs.replace(tower, digest="f" * 64))
    output = diff(words, copy)
    assert "Same space" in output
    assert "The text towers differ, which needs no re-embedding." in output
    assert "Only A has a text tower." in diff(words, image_only(tmp_path / "pictures"))


def test_a_precision_that_only_one_has_and_its_own_space_are_shown(words: Path, copy: Path) -> None:
    _stirred(copy, 0.5)
    _change(copy, "int8", space="2" * 64)
    output = diff(words, copy)
    assert "image, int8" in output
    assert "In B, int8 has drifted into a space of its own" in output
    assert "int8 on cpu, pictures" in output
    assert "Vectors may be compared in the same space only: fp32 of A with fp32 of B." in output


def test_two_drifts_of_the_same_weights_are_no_common_space(copy: Path, tmp_path: Path) -> None:
    _change(copy, "fp32", space="2" * 64)
    other = Path(shutil.copytree(copy, tmp_path / "other"))
    _change(other, "fp32", space="3" * 64)
    assert "Different spaces, though weights and preprocessing are the same" in diff(copy, other)


def test_speeds_are_compared_where_that_is_asked(words: Path, copy: Path) -> None:
    output = diff(words, copy, speed=True, seconds=0.01)
    assert "a second" in output
    assert {"A", "B"} <= {line.split()[0] for line in output.splitlines() if line.startswith("  ")}


# --- bench -----------------------------------------------------------------------------------------------------------


def test_bench_measures_each_tower_and_batch(words: Path) -> None:
    lines = bench(words, batches=(1, 3), seconds=0.01).splitlines()
    assert [line.split()[:4] for line in lines[1:]] == [
        ["pictures", "fp32", "cpu", "1"],
        ["pictures", "fp32", "cpu", "3"],
        ["texts", "fp32", "cpu", "1"],
        ["texts", "fp32", "cpu", "3"],
    ]


def test_bench_prints_json_for_machines(words: Path) -> None:
    (pictures, texts) = json.loads(bench(words, ["fp32"], ["cpu"], (2,), 0.01, as_json=True))
    assert (pictures["tower"], texts["tower"]) == ("pictures", "texts")
    assert 0 < pictures["slowest"] <= pictures["per_second"] <= pictures["fastest"]
    assert pictures["milliseconds"] > 0


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"precisions": ["int4"]}, "has no int4 graph"),
        ({"on": ["tpu"]}, "There is no device tpu"),
        ({"batches": (0,)}, "A batch holds 1 to 1024"),
        ({"seconds": 0}, "more than 0"),
    ],
)
def test_what_bench_cannot_do_is_refused_in_a_sentence(asked: dict[str, Any], sentence: str, words: Path) -> None:
    with pytest.raises((ExportRefused, ArtifactInvalid), match=sentence):
        bench(words, **asked)
