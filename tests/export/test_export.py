"""The complete export: checkpoint in, artifact out; or a refusal in a sentence, and nothing left behind."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizerFast

from export import freeze
from export.__main__ import main
from export.artifacts.publish import draft
from export.checkpoints import clip
from export.checkpoints.preprocessing import read_preprocessing
from export.checkpoints.sources import open_source
from export.graphs import trace
from export.proof import gate, parity
from server.artifact.artifact import Artifact
from server.inference.encoder import Encoder, TextEncoder
from server.preprocessing.media import decode, to_pixels
from server.preprocessing.text import Tokenizer
from tests import ROOT
from tests.support.checkpoints import (
    DIMENSIONS,
    SIZE,
    VISION,
    Exported,
    Weights,
    cosine,
    encode_alone,
    files_of,
    run_export,
    tiny_clip,
)

pytestmark = pytest.mark.usefixtures("few_pictures")


def space(folder: Path) -> str:
    checkpoint = open_source(str(folder))
    checkpoint.image.spec = freeze.Order(source="", name="").spec(checkpoint.image.spec)
    return draft(checkpoint, "a").space.id


def test_an_export_prints_a_line_for_each_step(exported: Exported) -> None:
    lines = exported.printed.splitlines()
    assert [line.split()[0] for line in lines] == [
        "source",
        "pixels",
        "image",
        "vectors",
        "jpeg",
        "colours",
        "text",
        "words",
        "grades",
        "goldens",
        "publish",
    ]
    assert all(line.endswith(" s)") for line in lines)


def test_the_manifest_says_what_was_exported_and_nothing_of_this_machine(checkpoint: Path, artifact: Path) -> None:
    manifest = Artifact.read(artifact).manifest
    assert (manifest.source.kind, manifest.source.id, manifest.model) == ("folder", "tiny", "tiny")
    assert manifest.space.dimensions == DIMENSIONS
    assert manifest.preprocessing.size == manifest.preprocessing.edge == SIZE
    measured = manifest.precisions["fp32"].parity["cpu"]
    assert measured.image.count >= measured.pixels_equal >= 10
    assert measured.image.min_cosine >= 0.999999
    assert measured.image.batch_identical
    assert {"torch", "transformers", "optimum", "onnx", "onnxruntime", "pillow", "numpy"} <= set(manifest.versions)
    for name, data in files_of(artifact).items():
        assert str(checkpoint.parent).encode() not in data, name
        assert str(ROOT).encode() not in data, name


def test_goldens_hold_a_lossless_picture_and_a_jpeg_and_their_licences(artifact: Path) -> None:
    goldens = Artifact.read(artifact).manifest.goldens
    assert 5 <= len(goldens) <= 6
    assert any(golden.lossless for golden in goldens)
    assert any(golden.picture.endswith(".jpg") for golden in goldens)
    assert (artifact / "goldens" / "LICENCES.md").is_file()


def test_vectors_of_the_artifact_equal_those_of_torch_and_the_processor(checkpoint: Path, artifact: Path) -> None:
    # As a user of transformers would, with nothing of the export's own reading.
    model = CLIPModel.from_pretrained(checkpoint).eval()
    processor = CLIPImageProcessor.from_pretrained(checkpoint)
    read = Artifact.read(artifact)
    noise = np.random.default_rng(1).integers(0, 256, (90, 131, 3), dtype=np.uint8)
    with Encoder(read, "fp32", "cpu") as encoder:
        for scale in (1, 7):
            picture = Image.fromarray(noise).resize((131 * scale, 90 * scale), Image.Resampling.BICUBIC)
            with torch.inference_mode():
                expected = model.get_image_features(**processor(picture, return_tensors="pt"))[0].double().numpy()
            found = encoder.encode(to_pixels(picture, read.spec)[None])[0]
            assert cosine(expected, found) >= 0.999999
            assert abs(np.linalg.norm(found.astype(np.float64)) - 1) < 1e-6


def test_vectors_of_different_pictures_differ(artifact: Path) -> None:
    read = Artifact.read(artifact)
    pictures = parity.gate_pictures(read.spec)
    with Encoder(read, "fp32", "cpu") as encoder:
        vectors = encode_alone(encoder, pictures)
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -1)
    assert cosines.max() < 0.999


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_vector_is_bit_identical_alone_and_in_any_batch(artifact: Path, threads: int) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (16, SIZE, SIZE, 3), dtype=np.uint8)
    read = Artifact.read(artifact)
    with Encoder(read, "fp32", "cpu", threads=1) as one, Encoder(read, "fp32", "cpu", threads=threads) as encoder:
        alone = np.concatenate([one.encode(pixels[at : at + 1]) for at in range(16)])
        for batch in range(1, 17):
            assert np.array_equal(encoder.encode(pixels[16 - batch :]), alone[16 - batch :]), batch


def test_the_same_checkpoint_gives_the_same_bytes(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every picture, every precision, here and in a process that orders its sets and names its files differently."""
    monkeypatch.setattr(parity, "PICTURES", ROOT / "export" / "pictures")
    arguments = ["--source", str(checkpoint), "--name", "tiny", "--allow-drift", "0.5"]
    arguments += ["--precision", "int8", "--precision", "fp16", "--precision", "fp32"]
    assert main([*arguments, "--models", str(tmp_path / "here")]) == 0
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    seed = "17" if os.environ.get("PYTHONHASHSEED") != "17" else "0"
    done = run_export(*arguments, "--models", tmp_path / "elsewhere", PYTHONHASHSEED=seed, TMPDIR=str(scratch))
    assert done.returncode == 0, done.stderr
    here, elsewhere = files_of(tmp_path / "here" / "tiny"), files_of(tmp_path / "elsewhere" / "tiny")
    assert {"image.fp32.onnx", "image.fp16.onnx", "image.int8.onnx", "report.html"} <= set(here)
    assert here == elsewhere
    measured = Artifact.read(tmp_path / "here" / "tiny").manifest.precisions["fp32"].parity["cpu"]
    assert measured.image.count > measured.pixels_equal >= 70


@pytest.mark.parametrize("form", ["bin", "safetensors-sharded", "bin-sharded"])
def test_the_same_weights_in_another_container_are_the_same_space(form: str, artifact: Path, tmp_path: Path) -> None:
    folder = tiny_clip(tmp_path / "other", form=form)
    assert space(folder) == Artifact.read(artifact).manifest.space.id


def _nudge(weights: Weights) -> None:
    weights["vision_model.encoder.layers.1.mlp.fc1.bias"][3] += 1e-3


@pytest.mark.parametrize(
    "changed",
    [
        {"change": _nudge},
        {"processor": {"image_mean": [0.48, 0.4578275, 0.40821073]}},
        {"processor": {"size": {"shortest_edge": SIZE + 8}}},
        {"dtype": torch.float16},
        {"seed": 1},
    ],
    ids=["a weight", "the mean", "the resize", "stored smaller", "all weights"],
)
def test_other_weights_or_preprocessing_are_another_space(
    changed: dict[str, Any], artifact: Path, tmp_path: Path
) -> None:
    folder = tiny_clip(tmp_path / "other", **changed)
    assert space(folder) != Artifact.read(artifact).manifest.space.id


@pytest.mark.parametrize(
    ("same", "other"),
    [
        ({"hidden_act": "quick_gelu"}, {"hidden_act": "gelu"}),
        ({"layer_norm_eps": 1e-5}, {"layer_norm_eps": 1e-6}),
        ({"num_attention_heads": 4}, {"num_attention_heads": 8}),
    ],
    ids=["the activation", "the norms' epsilon", "the heads"],
)
def test_the_same_weights_computed_in_another_way_are_another_space(
    same: dict[str, Any], other: dict[str, Any], artifact: Path, tmp_path: Path
) -> None:
    like = tiny_clip(tmp_path / "like", config={"vision_config": {**VISION, **same}})
    unlike = tiny_clip(tmp_path / "unlike", config={"vision_config": {**VISION, **other}})
    assert space(like) == Artifact.read(artifact).manifest.space.id
    assert space(unlike) != Artifact.read(artifact).manifest.space.id


def test_an_image_tower_published_alone_is_the_same_space_as_the_complete_clip(artifact: Path, tmp_path: Path) -> None:
    alone = {**VISION, "model_type": "clip_vision_model", "projection_dim": DIMENSIONS}
    folder = tiny_clip(tmp_path / "alone", config={**alone, "vision_config": None, "text_config": None})
    assert space(folder) == Artifact.read(artifact).manifest.space.id


@pytest.mark.parametrize(("patch", "dimensions"), [(14, 33), (7, 1), (16, 77)])
def test_other_patches_and_odd_projections_pass_the_gate(patch: int, dimensions: int, tmp_path: Path) -> None:
    folder = tiny_clip(tmp_path / "odd", vision={"patch_size": patch}, dimensions=dimensions)
    # One number tells no two shapes apart, on whatever ground, so the gate takes the ground that is always white.
    ground = ["--alpha", "white"] if dimensions == 1 else []
    assert main(["--source", str(folder), "--name", "odd", "--models", str(tmp_path / "m"), *ground]) == 0
    assert Artifact.read(tmp_path / "m" / "odd").manifest.space.dimensions == dimensions


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_stored_in_half_precision_pass_the_gate(dtype: torch.dtype, artifact: Path, tmp_path: Path) -> None:
    folder = tiny_clip(tmp_path / "half", dtype=dtype)
    assert main(["--source", str(folder), "--name", "half", "--models", str(tmp_path / "m")]) == 0
    if dtype == torch.float16:
        whole = (artifact / "image.fp32.onnx").stat().st_size
        assert (tmp_path / "m" / "half" / "image.fp32.onnx").stat().st_size < 0.65 * whole


def test_a_picture_that_is_squashed_is_exported_as_its_processor_does_it(tmp_path: Path) -> None:
    folder = tiny_clip(
        tmp_path / "squashed", processor={"size": {"height": SIZE, "width": SIZE}, "do_center_crop": False}
    )
    assert main(["--source", str(folder), "--name", "squashed", "--models", str(tmp_path / "m")]) == 0
    assert Artifact.read(tmp_path / "m" / "squashed").spec.resize == "squash"


# --- words -----------------------------------------------------------------------------------------------------------


def test_words_of_the_artifact_equal_those_of_torch_and_its_tokenizer(checkpoint: Path, artifact: Path) -> None:
    model = CLIPModel.from_pretrained(checkpoint).eval()
    reference = CLIPTokenizerFast.from_pretrained(checkpoint)
    read = Artifact.read(artifact)
    assert read.manifest.text is not None
    tokenizer = Tokenizer.read(artifact / read.manifest.text.tokenizer, read.manifest.text)
    with TextEncoder(read, "fp32", "cpu") as encoder:
        for text in ("a green kettle", "", "كرسي أحمر", "👩‍👩‍👧 family", "word " * 200):
            given = reference(text, return_tensors="pt", truncation=True, max_length=read.manifest.text.length)
            assert tokenizer.tokens(text).tolist() == given["input_ids"][0].tolist()
            with torch.inference_mode():
                expected = model.get_text_features(**given)[0].double().numpy()
            found = encoder.encode(tokenizer.tokens(text)[None])[0]
            assert cosine(expected, found) >= 0.999999


def test_without_a_tokenizer_the_artifact_has_no_text_tower_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny_clip(tmp_path / "mute")
    assert main(["--source", str(folder), "--name", "mute", "--models", str(tmp_path / "m")]) == 0
    assert "searches by picture only" in capsys.readouterr().out
    manifest = Artifact.read(tmp_path / "m" / "mute").manifest
    assert manifest.text is None
    assert manifest.precisions["fp32"].text is None
    assert not (tmp_path / "m" / "mute" / "tokenizer.json").exists()


# --- precisions ------------------------------------------------------------------------------------------------------


def _with_drift(checkpoint: Path, models: Path, *more: str) -> int:
    return main(["--source", str(checkpoint), "--name", "several", "--models", str(models), *more])


def test_a_precision_that_drifts_is_not_published(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gate, "MIN_COSINE_IN_SPACE", 1.0)  # as if every cosine had fallen short
    error = refused(capsys, tmp_path, "--source", checkpoint, "--name", "a", "--precision", "int8")
    assert "--allow-drift" in error
    assert "Nothing was published" in error


def test_an_accepted_drift_has_a_space_of_its_own(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "MIN_COSINE_IN_SPACE", 1.0)
    more = ["--precision", "fp32", "--precision", "int8", "--allow-drift", "0.6"]
    assert _with_drift(checkpoint, tmp_path, *more) == 0
    variants = Artifact.read(tmp_path / "several").manifest.precisions
    assert variants["int8"].space != variants["fp32"].space
    assert variants["int8"].min_cosine == 0.6
    # No text of int8 comes up to the mark, either: words go through fp32.
    assert variants["int8"].text == variants["fp32"].text == "text.fp32.onnx"
    assert not (tmp_path / "several" / "text.int8.onnx").exists()


def test_only_what_was_asked_for_is_published(checkpoint: Path, tmp_path: Path) -> None:
    assert _with_drift(checkpoint, tmp_path, "--precision", "fp16") == 0
    manifest = Artifact.read(tmp_path / "several").manifest
    assert list(manifest.precisions) == ["fp16"]
    assert manifest.precisions["fp16"].space == manifest.space.id
    graphs = {path.name for path in (tmp_path / "several").glob("*.onnx")}
    assert graphs == {"image.fp16.onnx", "text.fp16.onnx"}
    assert main(["verify", str(tmp_path / "several")]) == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--precision", "bf16"], "There is no precision bf16"),
        (["--calibration", "nowhere"], "There is no folder nowhere"),
    ],
)
def test_wrong_arguments_are_refused(
    arguments: list[str], sentence: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sentence in refused(capsys, tmp_path, "--source", checkpoint, "--name", "a", *arguments)


@pytest.mark.parametrize("cosine", ["0", "1", "-0.5", "nan", "much"])
def test_a_drift_that_is_no_cosine_is_refused(cosine: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--source", "starter", "--name", "a", f"--allow-drift={cosine}"])
    assert "is not a cosine between 0 and 1" in capsys.readouterr().err


def test_ones_own_pictures_are_measured_and_stay_out_of_the_goldens(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "own" / "shoes").mkdir(parents=True)
    noise = np.random.default_rng(3).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "own" / "shoes" / "tiny.png")
    assert _with_drift(checkpoint, tmp_path, "--calibration", str(tmp_path / "own")) == 0
    manifest = Artifact.read(tmp_path / "several").manifest
    assert manifest.precisions["fp32"].parity["cpu"].image.count == 1 + len(
        parity.gate_pictures(manifest.preprocessing)
    )
    assert not any("tiny" in golden.picture for golden in manifest.goldens)


def test_jpegs_are_decoded_at_a_scale_by_default(checkpoint: Path, artifact: Path, tmp_path: Path) -> None:
    scaled = Artifact.read(artifact).manifest
    assert scaled.preprocessing.jpeg_at_least == 2 * SIZE
    assert scaled.precisions["fp32"].parity["cpu"].scaled_decoding is not None
    assert _with_drift(checkpoint, tmp_path, "--jpeg", "full") == 0
    full = Artifact.read(tmp_path / "several").manifest
    assert full.preprocessing.jpeg_at_least == 0
    assert full.precisions["fp32"].parity["cpu"].scaled_decoding is None
    assert full.space.id != scaled.space.id


def test_colours_are_converted_and_white_things_are_laid_on_black_by_default(
    checkpoint: Path, artifact: Path, tmp_path: Path
) -> None:
    spec = Artifact.read(artifact).spec
    assert (spec.icc, spec.alpha) == ("srgb", "contrast")
    assert _with_drift(checkpoint, tmp_path, "--icc", "ignored", "--alpha", "white") == 0
    plain = Artifact.read(tmp_path / "several")
    assert (plain.spec.icc, plain.spec.alpha) == ("ignored", "white")
    assert b'"icc"' not in (plain.folder / "manifest.json").read_bytes()
    assert plain.manifest.space.id != Artifact.read(artifact).manifest.space.id
    tagged = {
        folder: [
            golden.picture
            for golden in Artifact.read(folder).manifest.goldens
            if b"ICC_PROFILE" in (folder / golden.picture).read_bytes()
        ]
        for folder in (artifact, plain.folder)
    }
    assert tagged == {artifact: ["goldens/astronaut.jpg"], plain.folder: []}


# --- refusals: a sentence, exit code 2, nothing left behind ----------------------------------------------------------

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a BERT": ({"config": {"model_type": "bert"}}, "is not a CLIP: its config.json says model_type 'bert'"),
    "no size": ({"processor": {"do_resize": False}}, "do_resize is false"),
    "no crop": ({"processor": {"do_center_crop": False}}, "do_center_crop is false"),
    "a padding crop": ({"processor": {"size": {"shortest_edge": 32}}}, "larger than the resized edge"),
    "a crop that is not square": ({"processor": {"crop_size": {"height": 64, "width": 32}}}, "not a square"),
    "a longest edge": ({"processor": {"size": {"shortest_edge": 64, "longest_edge": 99}}}, "its size is"),
    "an unknown filter": ({"processor": {"resample": 9}}, "its resample is 9"),
    "another processor": ({"processor": {"image_processor_type": "SiglipImageProcessor"}}, "SiglipImageProcessor"),
    "std of zero": ({"processor": {"image_std": [0, 1, 1]}}, "must be positive"),
    "a mean that is not a number": (
        {"processor": {"image_mean": [float("nan"), 0.5, 0.5]}},
        "image_mean is nan, not a finite",
    ),
    "an infinite std": ({"processor": {"image_std": float("inf")}}, "image_std is inf, not a finite number"),
    "a rescale that is not a number": ({"processor": {"rescale_factor": float("nan")}}, "rescale_factor is nan, not"),
    "a size that is no integer": ({"processor": {"size": {"shortest_edge": 64.0}}}, "shortest_edge is 64.0, not a"),
    "an image size in words": ({"config": {"vision_config": {**VISION, "image_size": "64"}}}, "image_size '64'"),
    "a patch of a fraction": ({"config": {"vision_config": {**VISION, "patch_size": 16.0}}}, "patch_size 16.0"),
    "no heads": ({"config": {"vision_config": {**VISION, "num_attention_heads": 0}}}, "num_attention_heads 0"),
    "an epsilon in words": (
        {"config": {"vision_config": {**VISION, "layer_norm_eps": "1e-5"}}},
        "layer_norm_eps '1e-5'",
    ),
    "an epsilon that is not a number": (
        {"config": {"vision_config": {**VISION, "layer_norm_eps": float("nan")}}},
        "layer_norm_eps nan",
    ),
    "an enormous epsilon": ({"config": {"vision_config": {**VISION, "layer_norm_eps": 10**400}}}, "layer_norm_eps 10"),
    "an activation that is a number": ({"config": {"vision_config": {**VISION, "hidden_act": 1}}}, "hidden_act 1"),
    "pictures of one channel": ({"config": {"vision_config": {**VISION, "num_channels": 1}}}, "of 1 channels"),
    "a projection in words": ({"config": {"projection_dim": "32"}}, "projection_dim '32'"),
    "a projection to nothing": (
        {"change": lambda weights: weights["visual_projection.weight"].zero_()},
        "give vectors that are not finite, or have no length",
    ),
    "a projection too small for float32": (
        {"change": lambda weights: weights["visual_projection.weight"].mul_(1e-30)},
        "too large or too small for its precision",
    ),
    "a tower that no memory holds": (
        {"config": {"vision_config": {**VISION, "intermediate_size": 1 << 46}}},
        "too little memory",
    ),
    "another input size": (
        {"processor": {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}},
        "sees pictures of 64 x 64",
    ),
    "a nonsensical tower": (
        {"config": {"vision_config": {"hidden_size": 65, "image_size": SIZE}}},
        "no tower that can be built",
    ),
    "no projection": ({"change": lambda weights: weights.pop("visual_projection.weight")}, "visual_projection.weight"),
    "surplus weights": (
        {"change": lambda weights: weights.update({"vision_model.extra": torch.ones(2)})},
        "vision_model.extra",
    ),
    "another shape": (
        {"change": lambda weights: weights.update({"visual_projection.weight": torch.ones(32, 63)})},
        "of shape [32, 63]",
    ),
    "not finite": (
        {"change": lambda weights: weights["visual_projection.weight"].fill_(float("nan"))},
        "not finite",
    ),
    "quantised": (
        {"change": lambda weights: weights.update({"visual_projection.weight": torch.ones(32, 64, dtype=torch.int8)})},
        "only floating-point",
    ),
}


def refused(capsys: pytest.CaptureFixture[str], models: Path, *arguments: str | Path) -> str:
    """Run an export that must be refused; its sentence."""
    before = files_of(models) if models.exists() else {}
    assert main([*map(str, arguments), "--models", str(models)]) == 2
    assert (files_of(models) if models.exists() else {}) == before
    assert not list(models.glob(".*")) if models.exists() else True
    error = capsys.readouterr().err
    assert error.startswith("export: ")
    assert "Traceback" not in error
    return error


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_exported_is_refused_in_a_sentence(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made, sentence = REFUSED[case]
    folder = tiny_clip(tmp_path / "bad", **made)
    assert sentence in refused(capsys, tmp_path / "models", "--source", folder, "--name", "bad")


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_a_missing_or_damaged_file_is_named(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tiny_clip(tmp_path / "bad")
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    assert name in refused(capsys, tmp_path / "models", "--source", folder, "--name", "bad")
    (folder / name).unlink()
    assert name in refused(capsys, tmp_path / "models", "--source", folder, "--name", "bad")


def test_a_config_that_is_nested_without_end_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tiny_clip(tmp_path / "bad")
    (folder / "config.json").write_text("[" * 100_000)
    assert "config.json cannot be read" in refused(capsys, tmp_path / "models", "--source", folder, "--name", "bad")


@pytest.mark.parametrize("name", ["../out", "a/b", "", ".hidden", "-dash", "a\\b", "a" * 101])
def test_a_name_that_is_no_folder_is_refused(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "artifact's name" in refused(capsys, tmp_path / "models", "--source", "starter", f"--name={name}")


def test_a_folder_that_is_missing_and_no_hub_id_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "There is no folder" in refused(capsys, tmp_path / "m", "--source", "./nowhere/at/all", "--name", "a")


@pytest.mark.parametrize("source", ["a" * 5000, "a/" * 3000], ids=["one name", "many folders"])
def test_a_source_that_is_too_long_is_refused_in_few_words(
    source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = refused(capsys, tmp_path / "m", "--source", source, "--name", "a")
    assert "too long to be a folder" in error
    assert len(error) < 200


def test_folders_made_on_the_way_are_removed_after_a_refusal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny_clip(tmp_path / "bad", config={"model_type": "bert"})
    (tmp_path / "a").mkdir()
    refused(capsys, tmp_path / "a" / "b" / "c" / "d", "--source", folder, "--name", "bad")
    assert not list((tmp_path / "a").iterdir())


def test_a_trace_that_fails_is_refused(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise TypeError("no such operator")

    monkeypatch.setattr(trace, "export", fail)
    error = refused(capsys, tmp_path, "--source", checkpoint, "--name", "a")
    assert "The image tower cannot be traced to a graph: TypeError('no such operator')" in error


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
    ],
    ids=["Python's", "torch's", "torch's on another system"],
)
def test_too_little_memory_is_named_wherever_it_runs_out(
    error: Exception,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    for module, name in ((trace, "export"), (gate, "measure_images")):
        with monkeypatch.context() as patched:
            patched.setattr(module, name, fail)
            assert "too little memory" in refused(capsys, tmp_path, "--source", checkpoint, "--name", "a")


def test_an_unforeseen_error_is_called_a_bug_and_shows_where_when_asked(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(spec: Any) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(freeze, "gate_pictures", fail)
    error = refused(capsys, tmp_path, "--source", checkpoint, "--name", "a")
    assert (
        "a bug in the export, not in what it was given: ZeroDivisionError: division by zero. Run it again with" in error
    )
    assert main(["--source", str(checkpoint), "--name", "a", "--models", str(tmp_path), "--traceback"]) == 2
    assert "in fail" in capsys.readouterr().err


def test_an_interrupted_verification_does_not_speak_of_keeping(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(folder: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("export.artifacts.verify.verify", interrupt)
    assert main(["verify", "models/starter"]) == 130
    assert capsys.readouterr().err == "Interrupted.\n"


def test_a_revision_is_for_the_hub_only(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = refused(capsys, tmp_path / "m", "--source", checkpoint, "--name", "a", "--revision", "main")
    assert "no revisions" in error


@pytest.mark.parametrize("arguments", [["--source", "starter", "--name", "a"], ["verify", "models/starter"]])
def test_a_machine_without_the_exports_packages_is_given_the_command_to_install_them(arguments: list[str]) -> None:
    code = f"import sys; sys.modules['torch'] = None; from export.__main__ import main; sys.exit(main({arguments}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "torch is missing" in done.stderr
    assert "run .venv/bin/python -m pip install -c constraints.txt -e '.[export]' in a checkout." in done.stderr


def test_what_is_no_artifact_is_not_replaced(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    assert "is not an artifact" in refused(capsys, tmp_path, "--source", checkpoint, "--name", "mine")


def _spec_with(monkeypatch: pytest.MonkeyPatch, **wrong: Any) -> None:
    """Make the export believe another preprocessing than the checkpoint's."""
    import msgspec

    right = read_preprocessing

    def mistaken(config: dict[str, Any], model: str) -> Any:
        processor, spec = right(config, model)
        return processor, msgspec.structs.replace(spec, **wrong)

    monkeypatch.setattr(clip, "read_preprocessing", mistaken)


def test_bilinear_in_place_of_bicubic_stops_the_export(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _spec_with(monkeypatch, resample="bilinear")
    error = refused(capsys, tmp_path, "--source", checkpoint, "--name", "a")
    assert "pixels" in error
    assert "brick-wall.jpg" in error
    # With the first gate out of the way, the second stops it as well.
    monkeypatch.setattr(freeze, "prove_pixels", lambda processor, pictures: len(pictures))
    error = refused(capsys, tmp_path, "--source", checkpoint, "--name", "a")
    assert "0.999999" in error
    assert ".jpg" in error


@pytest.mark.parametrize("wrong", [{"mean": (0.5, 0.5, 0.5)}, {"rescale": 1 / 256}, {"std": (0.3, 0.26, 0.28)}])
def test_a_wrong_scale_in_the_graph_stops_the_export(
    wrong: Mapping[str, Any],
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _spec_with(monkeypatch, **wrong)
    assert "0.999999" in refused(capsys, tmp_path, "--source", checkpoint, "--name", "a")


def test_a_full_disk_leaves_nothing_and_the_artifact_that_was_there(
    checkpoint: Path, artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = tmp_path / "m"
    shutil.copytree(artifact, models / "tiny")
    allowed, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The most bytes that a file may have: the graph is larger and breaks off at its start, or near its end.
    for limit in (1_000, 400_000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
        try:
            error = refused(capsys, models, "--source", checkpoint, "--name", "tiny")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (allowed, most))
        assert "no room left" in error
        assert [path.name for path in models.iterdir()] == ["tiny"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_export_leaves_nothing(number: signal.Signals, checkpoint: Path, tmp_path: Path) -> None:
    # A shell that runs the tests in the background has them ignore Ctrl-C, and with them their children.
    code = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("export", run_name="__main__", alter_sys=True)
"""
    arguments = ["--source", str(checkpoint), "--name", "a", "--models", str(tmp_path / "m")]
    with subprocess.Popen(
        [sys.executable, "-u", "-c", code, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("source")
        process.send_signal(number)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in error
    assert not (tmp_path / "m").exists()


def test_the_export_replaces_an_artifact_of_its_name_completely(checkpoint: Path, tmp_path: Path) -> None:
    other = tiny_clip(tmp_path / "other", seed=5)
    assert main(["--source", str(other), "--name", "a", "--models", str(tmp_path / "m")]) == 0
    (tmp_path / "m" / "a" / "leftover.txt").write_text("not part of the next one")
    assert main(["--source", str(checkpoint), "--name", "a", "--models", str(tmp_path / "m")]) == 0
    assert Artifact.read(tmp_path / "m" / "a").manifest.model == "tiny"
    assert not (tmp_path / "m" / "a" / "leftover.txt").exists()
    assert os.listdir(tmp_path / "m") == ["a"]


def test_decoding_and_resizing_follow_the_artifact_at_the_smallest_sizes(artifact: Path) -> None:
    spec = Artifact.read(artifact).spec
    for name in ("cat.png", "brick-wall.jpg"):
        data = (parity.PICTURES / name).read_bytes()
        assert to_pixels(decode(data, max_pixels=10**8).image, spec).shape == (SIZE, SIZE, 3)
