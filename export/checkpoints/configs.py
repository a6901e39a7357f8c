"""The JSON files of a checkpoint in Hugging Face format, and the checks that its own classes leave out."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from export.errors import ExportRefused
from server.artifact.artifact import PreprocessingSpec, Tensor

VISION_NUMBERS = (
    "hidden_size",
    "image_size",
    "intermediate_size",
    "num_attention_heads",
    "num_channels",
    "num_hidden_layers",
    "patch_size",
)
TEXT_NUMBERS = (
    "hidden_size",
    "intermediate_size",
    "max_position_embeddings",
    "num_attention_heads",
    "num_hidden_layers",
    "vocab_size",
)


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """Raises ExportRefused for a file that is missing, damaged, or holds no object."""
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


def read_processor_config(folder: Path) -> dict[str, Any]:
    """preprocessor_config.json, or the part of processor_config.json that replaces it in newer checkpoints."""
    if not (folder / "preprocessor_config.json").exists() and (folder / "processor_config.json").is_file():
        inside = read_json(folder, "processor_config.json").get("image_processor")
        if isinstance(inside, dict):
            return inside
    return read_json(folder, "preprocessor_config.json")


def check_config(config: Any, whole_numbers: Iterable[str], model: str) -> None:
    """Raises ExportRefused for values that config classes accept and that would fail later, or go unnoticed."""
    for name in whole_numbers:
        value = getattr(config, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ExportRefused(f"The config.json of {model} has {name} {value!r}; it must be a whole number from 1.")
    channels = getattr(config, "num_channels", 3)
    if channels != 3:
        raise ExportRefused(f"{model} sees pictures of {channels} channels; ours have 3.")
    eps = config.layer_norm_eps
    if not isinstance(eps, int | float) or isinstance(eps, bool) or not 0 <= eps < 1:
        raise ExportRefused(f"The config.json of {model} has layer_norm_eps {eps!r}; it must be a number from 0 to 1.")
    if not isinstance(config.hidden_act, str):
        raise ExportRefused(f"The config.json of {model} has hidden_act {config.hidden_act!r}; it must be a name.")


def check_size(config: Any, spec: PreprocessingSpec, model: str) -> None:
    if spec.size != config.image_size:
        raise ExportRefused(
            f"{model} sees pictures of {config.image_size} x {config.image_size} pixels, but its "
            f"preprocessor_config.json makes {spec.size} x {spec.size}."
        )


def beside_the_weights(config: Any, **more: Any) -> Tensor:
    """The settings that change the vectors and show in no weight, as one more tensor for the space's id.

    The same weights with `gelu` instead of `quick_gelu` are a known trap: another space, with cosines near 0.9.
    """
    facts = {
        "hidden_act": config.hidden_act,
        "layer_norm_eps": float(config.layer_norm_eps),
        "num_attention_heads": config.num_attention_heads,
        **more,
    }
    return Tensor("config", "json", (), json.dumps(facts, sort_keys=True, separators=(",", ":")).encode())
