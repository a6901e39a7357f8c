"""A SigLIP or SigLIP 2 checkpoint of fixed resolution, in Hugging Face format: both towers, with their pooling."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from optimum.exporters.onnx.model_configs import SiglipTextWithProjectionOnnxConfig, SiglipVisionModelOnnxConfig
from torch import nn
from transformers import SiglipConfig, SiglipTextModel, SiglipVisionConfig, SiglipVisionModel
from transformers.modeling_outputs import ModelOutput

from export.checkpoints.checkpoint import Checkpoint, ImageTower, TextTower
from export.checkpoints.configs import (
    TEXT_NUMBERS,
    VISION_NUMBERS,
    beside_the_weights,
    check_config,
    check_size,
    read_json,
    read_processor_config,
)
from export.checkpoints.preprocessing import read_preprocessing
from export.checkpoints.rewrite import SiglipImage, SiglipText
from export.checkpoints.tokenizer import check_vocabulary, freeze, has_tokenizer, length_of, read_tokenizer
from export.checkpoints.weights import as_tensors, build, fill, load_weights, weight_names
from export.errors import ExportRefused
from server.artifact.artifact import Source

KINDS = ("siglip", "siglip_vision_model")


class PooledImageTower(SiglipVisionModelOnnxConfig):  # type: ignore[misc]  # optimum has no types
    """The pooled output is the embedding: SigLIP's image tower has no projection."""

    @property
    def outputs(self) -> dict[str, dict[int, str]]:
        return {"image_embeds": {0: "batch_size"}}


class PooledTextTower(SiglipTextWithProjectionOnnxConfig):  # type: ignore[misc]  # optimum has no types
    """The text tower's head is its projection."""

    @property
    def outputs(self) -> dict[str, dict[int, str]]:
        return {"text_embeds": {0: "batch_size"}}


class _Pooled(nn.Module):
    """A tower of transformers whose pooled output is named as an embedding."""

    def __init__(self, tower: nn.Module, name: str) -> None:
        super().__init__()
        self.config, self.tower, self.name = tower.config, tower, name

    def forward(self, **inputs: Any) -> Any:
        return ModelOutput({self.name: self.tower(**inputs).pooler_output})


def open_siglip(folder: Path, source: Source, model: str) -> Checkpoint:
    """Read a folder with config.json, preprocessor_config.json, weights and, for the text tower, a tokenizer.

    Raises ExportRefused for a file that is missing or damaged, for another model, and for preprocessing that a spec
    cannot express.
    """
    vision, text = _configs(read_json(folder, "config.json"), model)
    check_config(vision, VISION_NUMBERS, model)
    if not getattr(vision, "vision_use_head", True):
        raise ExportRefused(f"{model} has no pooling head (vision_use_head is false): it gives no vector of a picture.")
    processor, spec = read_preprocessing(read_processor_config(folder), model)
    check_size(vision, spec, model)
    words, without = _text(folder, text, vision.hidden_size, model)
    module = build(SiglipVisionModel, vision, model)
    weights = load_weights(folder, _of_image_tower)
    fill(module, weights, where=model)
    image = ImageTower(
        module=_Pooled(module, "image_embeds"),
        rewritten=partial(SiglipImage, module),
        onnx_config=PooledImageTower(vision, task="feature-extraction"),
        architecture="SiglipVisionModel",
        tensors=[*as_tensors(weights, where=model), beside_the_weights(vision)],
        spec=spec,
        processor=processor,
        dimensions=vision.hidden_size,
    )
    return Checkpoint(source=source, model=model, image=image, text=words, without_text=without)


def _of_image_tower(name: str) -> bool:
    return name.startswith("vision_model.") and not name.endswith(".position_ids")


def _of_text_tower(name: str) -> bool:
    return name.startswith("text_model.") and not name.endswith(".position_ids")


def _configs(config: dict[str, Any], model: str) -> tuple[Any, Any]:
    """The image tower's config and the text tower's, which may be None. Raises ExportRefused."""
    try:
        if config.get("model_type") == "siglip_vision_model":
            return SiglipVisionConfig.from_dict(config), None
        both = SiglipConfig.from_dict(config)
        return both.vision_config, both.text_config
    except Exception as exc:  # a wrong type raises any error in a config class
        raise ExportRefused(f"The config.json of {model} is not a SigLIP's: {exc!r}.") from exc


def _text(folder: Path, config: Any, dimensions: int, model: str) -> tuple[Callable[[], TextTower] | None, str]:
    """A function that opens the text tower, or a sentence why there is none. Raises ExportRefused for a broken one."""
    if config is None:
        return None, f"{model} is an image tower alone (its config.json says siglip_vision_model)."
    if not any(map(_of_text_tower, weight_names(folder))):
        return None, f"The weights of {model} hold no text tower."
    if not has_tokenizer(folder):
        return None, f"There is no tokenizer beside the weights of {model}."
    check_config(config, (*TEXT_NUMBERS, "projection_size"), model)
    if config.projection_size != dimensions:
        raise ExportRefused(
            f"The towers of {model} give vectors of {dimensions} and {config.projection_size} numbers: they share no "
            "space."
        )
    tokenizer = read_tokenizer(folder, model)
    length = length_of(tokenizer, config.max_position_embeddings, model)
    check_vocabulary(tokenizer, config.vocab_size, model)
    return partial(_open_text, folder, config, tokenizer, length, model), ""


def _open_text(folder: Path, config: Any, tokenizer: Any, length: int, model: str) -> TextTower:
    module = build(SiglipTextModel, config, model)
    weights = load_weights(folder, _of_text_tower)
    fill(module, weights, where=model, what="a text tower")
    return TextTower(
        module=_Pooled(module, "text_embeds"),
        rewritten=partial(SiglipText, module),
        onnx_config=PooledTextTower(config, task="feature-extraction"),
        architecture="SiglipTextModel",
        tensors=[*as_tensors(weights, where=model), beside_the_weights(config)],
        tokenizer=tokenizer,
        tokenizer_json=freeze(tokenizer, length, model, padded=True),
        length=length,
        # It was trained to see its padding, and is given no mask.
        padded=True,
    )
