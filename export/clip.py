"""A CLIP checkpoint in Hugging Face format: its image tower, with the projection."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from optimum.exporters.onnx.model_configs import CLIPVisionModelOnnxConfig
from transformers import CLIPConfig, CLIPVisionConfig, CLIPVisionModelWithProjection

from export.checkpoint import Checkpoint
from export.errors import ExportRefused, is_out_of_memory
from export.preprocessing import read_preprocessing
from export.weights import as_tensors, fill, load_weights
from server.artifact import Source, Tensor

_WHOLE_NUMBERS = (
    "hidden_size",
    "image_size",
    "intermediate_size",
    "num_attention_heads",
    "num_channels",
    "num_hidden_layers",
    "patch_size",
    "projection_dim",
)


class ProjectedImageTower(CLIPVisionModelOnnxConfig):  # type: ignore[misc]  # optimum has no types
    """optimum's own config for CLIP's image tower ends before the projection."""

    @property
    def outputs(self) -> dict[str, dict[int, str]]:
        return {"image_embeds": {0: "batch_size"}}


def open_clip(folder: Path, source: Source, model: str) -> Checkpoint:
    """Read a folder with config.json, preprocessor_config.json and weights.

    Raises ExportRefused for what is missing, damaged, not a CLIP, or cannot be said in a preprocessing spec.
    """
    config = _vision_config(_read_json(folder, "config.json"), model)
    _check_fields(config, model)
    processor, spec = read_preprocessing(_read_json(folder, "preprocessor_config.json"), model)
    if spec.size != config.image_size:
        raise ExportRefused(
            f"{model} sees pictures of {config.image_size} x {config.image_size} pixels, but its "
            f"preprocessor_config.json makes {spec.size} x {spec.size}."
        )
    try:
        tower = CLIPVisionModelWithProjection(config)
    except Exception as exc:  # a nonsensical config fails in torch, in arithmetic or in a table of activations
        if is_out_of_memory(exc):
            raise
        raise ExportRefused(f"The config.json of {model} describes no tower that can be built: {exc!r}.") from exc
    weights = load_weights(folder, _of_image_tower)
    fill(tower, weights, where=model)
    return Checkpoint(
        source=source,
        model=model,
        architecture="CLIPVisionModelWithProjection",
        tower=tower,
        onnx_config=ProjectedImageTower(config, task="feature-extraction"),
        tensors=[*as_tensors(weights, where=model), _beside_the_weights(config)],
        spec=spec,
        processor=processor,
        dimensions=config.projection_dim,
    )


def _of_image_tower(name: str) -> bool:
    # Older checkpoints stored this buffer of integers; it is 0, 1, 2, ... and made anew.
    return name.startswith(("vision_model.", "visual_projection.")) and not name.endswith(".position_ids")


def _beside_the_weights(config: Any) -> Tensor:
    """What changes the vectors without showing in any weight, as one more tensor for the space's id.

    The same weights with `gelu` in place of `quick_gelu` are a known trap: another space, with cosines near 0.9.
    """
    facts = {
        "hidden_act": config.hidden_act,
        "layer_norm_eps": float(config.layer_norm_eps),
        "num_attention_heads": config.num_attention_heads,
    }
    return Tensor("config", "json", (), json.dumps(facts, sort_keys=True, separators=(",", ":")).encode())


def _check_fields(config: Any, model: str) -> None:
    """Config classes take any value of any type, and what computes with it fails late, or does not."""
    for name in _WHOLE_NUMBERS:
        value = getattr(config, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ExportRefused(f"The config.json of {model} has {name} {value!r}; it must be a whole number from 1.")
    if config.num_channels != 3:
        raise ExportRefused(f"{model} sees pictures of {config.num_channels} channels; ours have 3.")
    eps = config.layer_norm_eps
    if not isinstance(eps, int | float) or isinstance(eps, bool) or not 0 <= eps < 1:
        raise ExportRefused(f"The config.json of {model} has layer_norm_eps {eps!r}; it must be a number from 0 to 1.")
    if not isinstance(config.hidden_act, str):
        raise ExportRefused(f"The config.json of {model} has hidden_act {config.hidden_act!r}; it must be a name.")


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    try:
        value = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as exc:
        raise ExportRefused(f"There is no {name} in {folder}; a model cannot be exported without it.") from exc
    except (OSError, ValueError, RecursionError) as exc:
        raise ExportRefused(f"{path} cannot be read: {exc}.") from exc
    if not isinstance(value, dict):
        raise ExportRefused(f"{path} is not a JSON object.")
    return value


def _vision_config(config: dict[str, Any], model: str) -> Any:
    kind = config.get("model_type")
    try:
        if kind == "clip":
            whole = CLIPConfig.from_dict(config)
            vision = whole.vision_config
            # A whole CLIP projects to its own dimension, whatever its image tower's part says.
            vision.projection_dim = whole.projection_dim
            return vision
        if kind == "clip_vision_model":
            return CLIPVisionConfig.from_dict(config)
    except Exception as exc:  # config classes raise whatever a wrong type leads to
        raise ExportRefused(f"The config.json of {model} is not a CLIP's: {exc!r}.") from exc
    raise ExportRefused(
        f"{model} is not a CLIP: its config.json says model_type {kind!r}; clip is what can be exported."
    )
