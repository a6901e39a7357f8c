"""Tiny CLIP checkpoints of random weights, and the export's command line in this process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

ROOT = Path(__file__).parent.parent
SIZE = 64
DIMENSIONS = 32
VISION = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": SIZE,
    "patch_size": 16,
}

Weights = dict[str, torch.Tensor]


def tiny_clip(
    folder: Path,
    *,
    seed: int = 0,
    form: str = "safetensors",
    dtype: torch.dtype = torch.float32,
    dimensions: int = DIMENSIONS,
    vision: Mapping[str, Any] | None = None,
    change: Callable[[Weights], None] = lambda weights: None,
    config: Mapping[str, Any] | None = None,
    processor: Mapping[str, Any] | None = None,
) -> Path:
    """Save a whole CLIP (64 pixels, 2 layers, 32 dimensions) with its image processor, as the hub has them.

    `form` is safetensors, bin, or either with `-sharded`; `dimensions` and `vision` (keys of VISION) are what the
    weights are made for; `change` may alter the weights before they are saved;
    `config` and `processor` replace keys of config.json and preprocessor_config.json (None removes one).
    """
    folder.mkdir(parents=True)
    torch.manual_seed(seed)
    model = CLIPModel(
        CLIPConfig(
            text_config={
                "vocab_size": 99,
                "hidden_size": 16,
                "intermediate_size": 16,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "max_position_embeddings": 8,
            },
            vision_config={**VISION, **(vision or {})},
            projection_dim=dimensions,
        )
    )
    weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    # As trained towers do, tell pictures apart: with fresh weights all vectors are nearly the same.
    weights["vision_model.embeddings.patch_embedding.weight"] *= 10
    weights = {name: tensor.to(dtype) for name, tensor in weights.items() if tensor.is_floating_point()}
    # Older checkpoints store this buffer, and it is no weight.
    weights["vision_model.embeddings.position_ids"] = torch.arange(17)[None]
    change(weights)
    _save(folder, weights, form)
    _write_json(folder / "config.json", json.loads(model.config.to_json_string(use_diff=False)), config)
    made = CLIPImageProcessor(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE})
    _write_json(folder / "preprocessor_config.json", json.loads(made.to_json_string()), processor)
    return folder


def _save(folder: Path, weights: Weights, form: str) -> None:
    kind, _, sharded = form.partition("-")
    stem, suffix = ("model", "safetensors") if kind == "safetensors" else ("pytorch_model", "bin")
    names = list(weights)
    shards = [names[::2], names[1::2]] if sharded else [names]
    places = {}
    for at, shard in enumerate(shards, 1):
        name = f"{stem}-{at:05}-of-{len(shards):05}.{suffix}" if sharded else f"{stem}.{suffix}"
        part = {key: weights[key].contiguous() for key in shard}
        if kind == "safetensors":
            save_file(part, folder / name, metadata={"format": "pt"})
        else:
            torch.save(part, folder / name)
        places.update(dict.fromkeys(shard, name))
    if sharded:
        (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


def _write_json(path: Path, value: dict[str, Any], changes: Mapping[str, Any] | None) -> None:
    merged = {**value, **(changes or {})}
    path.write_text(json.dumps({key: one for key, one in merged.items() if one is not None}))


def run_export(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python -m export ...` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "export", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder: path in it -> bytes."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
