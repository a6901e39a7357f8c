"""A CLIP checkpoint in Hugging Face format, OpenAI's or OpenCLIP's: both towers, with their projections."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from optimum.exporters.onnx.model_configs import CLIPTextWithProjectionOnnxConfig, CLIPVisionModelOnnxConfig
from transformers import CLIPConfig, CLIPTextModelWithProjection, CLIPVisionConfig, CLIPVisionModelWithProjection

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
from export.checkpoints.rewrite import ClipImage, ClipText
from export.checkpoints.tokenizer import check_vocabulary, freeze, has_tokenizer, length_of, read_tokenizer
from export.checkpoints.weights import as_tensors, build, fill, load_weights, weight_names
from export.errors import ExportRefused
from server.artifact.artifact import Source

KINDS = ("clip", "clip_vision_model")


class ProjectedImageTower(CLIPVisionModelOnnxConfig):  # type: ignore[misc]  # optimum has no types
    """optimum's own config for CLIP's image tower ends before the projection."""

    @property
    def outputs(self) -> dict[str, dict[int, str]]:
        return {"image_embeds": {0: "batch_size"}}


class ProjectedTextTower(CLIPTextWithProjectionOnnxConfig):  # type: ignore[misc]  # optimum has no types
    """optimum's own config for CLIP's text tower gives every token's state as well."""

    @property
    def outputs(self) -> dict[str, dict[int, str]]:
        return {"text_embeds": {0: "batch_size"}}


def open_clip(folder: Path, source: Source, model: str) -> Checkpoint:
    """Read a folder with config.json, preprocessor_config.json, weights and, for the text tower, a tokenizer.

    Raises ExportRefused for a file that is missing or damaged, for another model, and for preprocessing that a spec
    cannot express.
    """
    vision, text = _configs(read_json(folder, "config.json"), model)
    check_config(vision, (*VISION_NUMBERS, "projection_dim"), model)
    processor, spec = read_preprocessing(read_processor_config(folder), model)
    check_size(vision, spec, model)
    words, without = _text(folder, text, model)
    module = build(CLIPVisionModelWithProjection, vision, model)
    weights = load_weights(folder, _of_image_tower)
    fill(module, weights, where=model)
    image = ImageTower(
        module=module,
        rewritten=partial(ClipImage, module),
        onnx_config=ProjectedImageTower(vision, task="feature-extraction"),
        architecture="CLIPVisionModelWithProjection",
        tensors=[*as_tensors(weights, where=model), beside_the_weights(vision)],
        spec=spec,
        processor=processor,
        dimensions=vision.projection_dim,
    )
    return Checkpoint(source=source, model=model, image=image, text=words, without_text=without)


def _of_image_tower(name: str) -> bool:
    # Older checkpoints store this buffer of integers: 0, 1, 2, ..., which is made, not read.
    return name.startswith(("vision_model.", "visual_projection.")) and not name.endswith(".position_ids")


def _of_text_tower(name: str) -> bool:
    return name.startswith(("text_model.", "text_projection.")) and not name.endswith(".position_ids")


def _configs(config: dict[str, Any], model: str) -> tuple[Any, Any]:
    """The image tower's config and the text tower's, which may be None. Raises ExportRefused."""
    kind = config.get("model_type")
    if kind not in KINDS:
        raise ExportRefused(f"{model} is not a CLIP: its config.json says model_type {kind!r}.")
    try:
        if kind == "clip_vision_model":
            return CLIPVisionConfig.from_dict(config), None
        both = CLIPConfig.from_dict(config)
        vision, text = both.vision_config, both.text_config
    except Exception as exc:  # a wrong type raises any error in a config class
        raise ExportRefused(f"The config.json of {model} is not a CLIP's: {exc!r}.") from exc
    # A CLIP of both towers projects to its own dimension; the towers' parts may name another.
    vision.projection_dim = text.projection_dim = both.projection_dim
    return vision, text


def _text(folder: Path, config: Any, model: str) -> tuple[Callable[[], TextTower] | None, str]:
    """A function that opens the text tower, or a sentence why there is none. Raises ExportRefused for a broken one."""
    if config is None:
        return None, f"{model} is an image tower alone (its config.json says clip_vision_model)."
    if not any(map(_of_text_tower, weight_names(folder))):
        return None, f"The weights of {model} hold no text tower."
    if not has_tokenizer(folder):
        return None, f"There is no tokenizer beside the weights of {model}."
    check_config(config, (*TEXT_NUMBERS, "projection_dim"), model)
    tokenizer = read_tokenizer(folder, model)
    length = length_of(tokenizer, config.max_position_embeddings, model)
    check_vocabulary(tokenizer, config.vocab_size, model)
    end = config.eos_token_id
    if not isinstance(end, int) or isinstance(end, bool):
        raise ExportRefused(f"The config.json of {model} has eos_token_id {end!r}; it must be a whole number.")
    # 2, the default of older configs, means another way of finding where a text ends.
    if end != 2 and end not in tokenizer("a")["input_ids"]:
        raise ExportRefused(
            f"The config.json of {model} says that a text ends with token {end}, which its tokenizer does not write: "
            "every text would have the same vector."
        )
    return partial(_open_text, folder, config, tokenizer, length, model), ""


def _open_text(folder: Path, config: Any, tokenizer: Any, length: int, model: str) -> TextTower:
    module = build(CLIPTextModelWithProjection, config, model)
    weights = load_weights(folder, _of_text_tower)
    fill(module, weights, where=model, what="a text tower")
    return TextTower(
        module=module,
        rewritten=partial(ClipText, module),
        onnx_config=ProjectedTextTower(config, task="feature-extraction"),
        architecture="CLIPTextModelWithProjection",
        tensors=[*as_tensors(weights, where=model), beside_the_weights(config, eos_token_id=config.eos_token_id)],
        tokenizer=tokenizer,
        tokenizer_json=freeze(tokenizer, length, model, padded=False),
        length=length,
        padded=False,
    )
