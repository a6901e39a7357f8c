"""SigLIP and SigLIP 2: their image tower, their space, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import SiglipImageProcessor, SiglipModel

from export.checkpoints.sources import open_source
from export.errors import ExportRefused
from server.artifact.artifact import space_id
from tests.support.checkpoints import SIGLIP_TEXT, SIZE, VISION, tiny_siglip


def space(folder: Path) -> str:
    image = open_source(str(folder)).image
    return space_id(image.tensors, image.spec)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_siglip(tmp_path_factory.mktemp("siglip") / "whole", words="gemma")


def test_a_siglip_is_opened_with_both_towers(folder: Path) -> None:
    checkpoint = open_source(str(folder))
    assert (checkpoint.image.architecture, checkpoint.image.dimensions) == ("SiglipVisionModel", 64)
    assert checkpoint.without_text == ""
    assert checkpoint.text is not None
    text = checkpoint.text()
    assert (text.architecture, text.length, text.padded) == ("SiglipTextModel", 16, True)
    spec = checkpoint.image.spec
    assert (spec.size, spec.resize, spec.resample) == (SIZE, "squash", "bilinear")
    assert (spec.mean, spec.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def test_the_reference_is_what_a_user_of_transformers_gets(folder: Path) -> None:
    model = SiglipModel.from_pretrained(folder).eval()
    processor = SiglipImageProcessor.from_pretrained(folder)
    checkpoint = open_source(str(folder))
    assert checkpoint.text is not None
    text = checkpoint.text()
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (90, 131, 3), dtype=np.uint8))
    with torch.inference_mode():
        seen = model.get_image_features(**processor(picture, return_tensors="pt"))[0].double().numpy()
        tokens = text.tokenizer("a red shoe", padding="max_length", max_length=16, return_tensors="pt")
        read = model.get_text_features(input_ids=tokens["input_ids"])[0].double().numpy()
    for mine, theirs in (
        (checkpoint.image.reference_vector(picture), seen),
        (text.reference_vector("a red shoe"), read),
    ):
        assert np.allclose(mine, theirs / np.linalg.norm(theirs), atol=1e-6)


def test_an_image_tower_published_alone_is_the_same_space(folder: Path, tmp_path: Path) -> None:
    alone = {**VISION, "model_type": "siglip_vision_model", "vision_config": None, "text_config": None}
    other = tiny_siglip(tmp_path / "alone", words="gemma", config=alone)
    assert space(other) == space(folder)
    checkpoint = open_source(str(other))
    assert checkpoint.text is None
    assert "an image tower alone" in checkpoint.without_text


def test_a_siglip_without_a_tokenizer_or_words_says_why_it_has_no_text_tower(folder: Path, tmp_path: Path) -> None:
    wordless = open_source(str(tiny_siglip(tmp_path / "wordless")))
    assert wordless.text is None
    assert wordless.without_text == "There is no tokenizer beside the weights of wordless."

    def cut(weights: dict[str, torch.Tensor]) -> None:
        for name in [name for name in weights if name.startswith("text_model.")]:
            del weights[name]

    half = open_source(str(tiny_siglip(tmp_path / "half", words="spiece", change=cut)))
    assert half.text is None
    assert half.without_text == "The weights of half hold no text tower."


@pytest.mark.parametrize(
    "changed",
    [
        {"processor": {"resample": 3}},
        {"processor": {"image_mean": [0.4, 0.5, 0.5]}},
        {"seed": 1},
        {"config": {"vision_config": {**VISION, "hidden_act": "quick_gelu"}}},
        {"config": {"vision_config": {**VISION, "num_attention_heads": 8}}},
    ],
    ids=["the filter", "the mean", "the weights", "the activation", "the heads"],
)
def test_another_siglip_is_another_space(changed: Mapping[str, Any], folder: Path, tmp_path: Path) -> None:
    assert space(tiny_siglip(tmp_path / "other", words="gemma", **changed)) != space(folder)


def test_another_text_tower_is_the_same_space(folder: Path, tmp_path: Path) -> None:
    def change(weights: dict[str, torch.Tensor]) -> None:
        weights["text_model.head.bias"] += 1

    assert space(tiny_siglip(tmp_path / "other", words="gemma", change=change)) == space(folder)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "variable resolution": (
        {"config": {"model_type": "siglip2"}},
        "is a SigLIP 2 of variable resolution (NaFlex), which has no one input size: export "
        "google/siglip2-base-patch16-256, its twin of fixed resolution.",
    ),
    "no pooling": ({"config": {"vision_config": {**VISION, "vision_use_head": False}}}, "has no pooling head"),
    "another size": ({"processor": {"size": {"height": 32, "width": 32}}}, "sees pictures of 64 x 64"),
    "no square": ({"processor": {"size": {"height": 64, "width": 32}}}, "not a square"),
    "a shortest edge": ({"processor": {"size": {"shortest_edge": 64}}}, "keeps the aspect and does not crop"),
    "towers of other widths": (
        {"config": {"text_config": {**SIGLIP_TEXT, "projection_size": 48}}},
        "give vectors of 64 and 48 numbers",
    ),
    "a text tower in words": ({"config": {"text_config": {**SIGLIP_TEXT, "vocab_size": "all"}}}, "vocab_size 'all'"),
    "a text tower of no heads": (
        {"config": {"text_config": {**SIGLIP_TEXT, "num_attention_heads": 0}}},
        "num_attention_heads 0",
    ),
    "a text tower that is a list": ({"config": {"text_config": [1]}}, "is not a SigLIP's"),
    "an image tower that is a word": ({"config": {"vision_config": "base"}}, "is not a SigLIP's"),
    "a missing head": (
        {"change": lambda weights: weights.pop("vision_model.head.probe")},
        "lack vision_model.head.probe",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_exported_is_refused_in_a_sentence(case: str, tmp_path: Path) -> None:
    made, sentence = REFUSED[case]
    with pytest.raises(ExportRefused) as refused:
        open_source(str(tiny_siglip(tmp_path / "bad", words="gemma", **made)))
    assert sentence in refused.value.sentence


def test_a_text_tower_that_does_not_fit_its_weights_is_refused_when_its_turn_comes(tmp_path: Path) -> None:
    def change(weights: dict[str, torch.Tensor]) -> None:
        del weights["text_model.final_layer_norm.weight"]

    folder = tiny_siglip(tmp_path / "bad", words="gemma", change=change)
    text = open_source(str(folder)).text
    assert text is not None
    with pytest.raises(ExportRefused, match=r"lack text_model.final_layer_norm.weight: a text tower cannot be made"):
        text()


def test_the_processor_is_found_where_newer_checkpoints_have_it(folder: Path, tmp_path: Path) -> None:
    other = tiny_siglip(tmp_path / "newer", words="gemma")
    inside = json.loads((other / "preprocessor_config.json").read_text())
    (other / "preprocessor_config.json").unlink()
    (other / "processor_config.json").write_text(json.dumps({"image_processor": inside}))
    assert space(other) == space(folder)
    (other / "processor_config.json").write_text("{}")
    with pytest.raises(ExportRefused, match=r"There is no preprocessor_config\.json"):
        open_source(str(other))
