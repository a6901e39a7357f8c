"""Tiny CLIP and SigLIP checkpoints of random weights, with tokenizers, and the export's command line."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
)

from export.checkpoints.tokenizer import TEXTS
from export.proof.parity import GatePicture
from server.inference.encoder import Encoder
from tests import ROOT

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

VOCABULARY = 1500
LENGTH = 16
TEXT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": LENGTH,
    "eos_token_id": 2,
}
# The two towers of a SigLIP give vectors of their own widths: as many numbers.
SIGLIP_TEXT = {**TEXT, "vocab_size": 2000, "hidden_size": 64, "projection_size": 64, "eos_token_id": 1}

Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Exported:
    """An artifact, and what the export printed."""

    folder: Path
    printed: str


def tiny_clip(
    folder: Path,
    *,
    seed: int = 0,
    form: str = "safetensors",
    dtype: torch.dtype = torch.float32,
    dimensions: int = DIMENSIONS,
    vision: Mapping[str, Any] | None = None,
    change: Callable[[Weights], None] = lambda weights: None,
    text: Mapping[str, Any] | None = None,
    words: bool = False,
    config: Mapping[str, Any] | None = None,
    processor: Mapping[str, Any] | None = None,
) -> Path:
    """Save a whole CLIP (64 pixels, 2 layers, 32 dimensions) with its image processor, as the hub has them.

    `form` is safetensors, bin, or either with `-sharded`; `dimensions`, `vision` (keys of VISION) and `text` (of TEXT)
    are what the weights are made for; `change` may alter the weights before they are saved; `words` brings a tokenizer;
    `config` and `processor` replace keys of config.json and preprocessor_config.json (None removes one).
    """
    folder.mkdir(parents=True)
    torch.manual_seed(seed)
    model = CLIPModel(
        CLIPConfig(
            text_config={**TEXT, **(text or {})},
            vision_config={**VISION, **(vision or {})},
            projection_dim=dimensions,
        )
    )
    if words:
        save_clip_tokenizer(folder)
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


def tiny_siglip(
    folder: Path,
    *,
    seed: int = 0,
    words: str = "",
    vision: Mapping[str, Any] | None = None,
    text: Mapping[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
    change: Callable[[Weights], None] = lambda weights: None,
    config: Mapping[str, Any] | None = None,
    processor: Mapping[str, Any] | None = None,
) -> Path:
    """Save a whole SigLIP as `tiny_clip` does; its tokenizer `words` is spiece (SigLIP), gemma (SigLIP 2) or none."""
    folder.mkdir(parents=True)
    torch.manual_seed(seed)
    towers = {"vision_config": {**VISION, **(vision or {})}, "text_config": {**SIGLIP_TEXT, **(text or {})}}
    model = SiglipModel(SiglipConfig(**towers))
    weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    weights["vision_model.embeddings.patch_embedding.weight"] *= 10
    # Nothing is a bias of zero, so that what leaves one out shows.
    for name, tensor in weights.items():
        if name.endswith(".bias"):
            tensor.add_(torch.randn(tensor.shape) * 0.02)
    weights = {name: tensor.to(dtype) for name, tensor in weights.items()}
    change(weights)
    _save(folder, weights, "safetensors")
    _write_json(folder / "config.json", json.loads(model.config.to_json_string(use_diff=False)), config)
    made = SiglipImageProcessor(size={"height": SIZE, "width": SIZE}, resample=2 if words == "gemma" else 3)
    _write_json(folder / "preprocessor_config.json", json.loads(made.to_json_string()), processor)
    if words == "spiece":
        save_spiece(folder)
    elif words:
        save_gemma_tokenizer(folder)
    return folder


def corpus() -> Iterator[str]:
    """Texts to train a tokenizer with: those that it is proved with, and prose that no edit of the docs changes.

    What is learnt decides: with other prose, two equally good ways to cut up "1,000,000" may come out in either order.
    """
    yield from TEXTS * 3
    for path in ("LICENSE", "tests/data/words.txt"):
        yield from (ROOT / path).read_text("utf-8").splitlines()


@cache
def clip_tokenizer() -> tuple[str, dict[str, int], list[str]]:
    """A byte-level BPE as CLIP's, trained here: tokenizer.json, and the vocabulary and merges of its older form."""
    made = Tokenizer(models.BPE(unk_token="<|endoftext|>", continuing_subword_prefix="", end_of_word_suffix="</w>"))
    made.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    words = r"""'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(words), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 2 - len(alphabet), end_of_word_suffix="</w>", show_progress=False
    )
    made.train_from_iterator(corpus(), trainer)
    merges = json.loads(made.to_str())["model"]["merges"]
    # As OpenAI's: bytes, bytes that end a word, merges, and the two special tokens last.
    vocabulary = list(dict.fromkeys([*alphabet, *(f"{one}</w>" for one in alphabet), *map("".join, merges)]))
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    ids = {token: at for at, token in enumerate(vocabulary)}
    made.model = models.BPE(
        ids,
        [tuple(pair) for pair in merges],
        unk_token="<|endoftext|>",
        continuing_subword_prefix="",
        end_of_word_suffix="</w>",
        fuse_unk=False,
    )
    ends = {token: (token, ids[token]) for token in vocabulary[-2:]}
    made.post_processor = processors.RobertaProcessing(
        sep=ends["<|endoftext|>"], cls=ends["<|startoftext|>"], add_prefix_space=False, trim_offsets=False
    )
    made.add_special_tokens(
        [AddedToken(token, normalized=token == "<|startoftext|>", special=True) for token in vocabulary[-2:]]
    )
    return made.to_str(), ids, [" ".join(pair) for pair in merges]


def save_clip_tokenizer(folder: Path, *, form: str = "fast", length: int | None = LENGTH) -> None:
    """CLIP's tokenizer as the hub has it: tokenizer.json (fast), or vocab.json and merges.txt (slow)."""
    whole, ids, merges = clip_tokenizer()
    if form == "fast":
        (folder / "tokenizer.json").write_text(whole)
    else:
        (folder / "vocab.json").write_text(json.dumps(ids))
        (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    ends = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    config = {**ends, "pad_token": "<|endoftext|>", "tokenizer_class": "CLIPTokenizer", "model_max_length": length}
    _write_json(folder / "tokenizer_config.json", config, None)


@cache
def spiece() -> bytes:
    """A unigram model of sentencepiece, trained as T5's, which is SigLIP's."""
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(text for text in corpus() if text.strip()),
        model_writer=out,
        vocab_size=800,
        model_type="unigram",
        character_coverage=0.98,
        normalization_rule_name="nmt_nfkc",
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        required_chars="<>",
        hard_vocab_limit=False,
        minloglevel=2,
        num_threads=1,
    )
    return out.getvalue()


def save_spiece(folder: Path) -> None:
    """SigLIP's tokenizer as the hub has it: only a model of sentencepiece, and Python in transformers."""
    (folder / "spiece.model").write_bytes(spiece())
    special = {"lstrip": True, "rstrip": True, "normalized": False, "single_word": False, "special": True}
    config = {
        "added_tokens_decoder": {"1": {"content": "</s>", **special}, "2": {"content": "<unk>", **special}},
        "do_lower_case": True,
        "eos_token": "</s>",
        "model_input_names": ["input_ids"],
        "model_max_length": LENGTH,
        "pad_token": "</s>",
        "tokenizer_class": "SiglipTokenizer",
        "unk_token": "<unk>",
    }
    _write_json(folder / "tokenizer_config.json", config, None)


@cache
def gemma_tokenizer() -> str:
    """A BPE over characters and bytes as Gemma's, trained here: its tokenizer.json."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>"]
    made = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    made.normalizer = normalizers.Replace(" ", "▁")
    made.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    in_bytes = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=special, limit_alphabet=150, show_progress=False
    )
    made.train_from_iterator(corpus(), trainer)
    learnt = json.loads(made.to_str())["model"]
    vocabulary = [*learnt["vocab"], *in_bytes]
    whole = json.loads(made.to_str())
    whole["model"]["vocab"] = {token: at for at, token in enumerate(vocabulary)}
    return json.dumps(whole)


def save_gemma_tokenizer(folder: Path) -> None:
    """SigLIP 2's tokenizer as the hub has it: Gemma's, which says nothing of lower case or of the tower's length."""
    (folder / "tokenizer.json").write_text(gemma_tokenizer())
    config = {
        "add_bos_token": False,
        "add_eos_token": True,
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "model_input_names": ["input_ids"],
        "model_max_length": 1000000000000000019884624838656,
        "pad_token": "<pad>",
        "padding_side": "right",
        "tokenizer_class": "GemmaTokenizer",
        "unk_token": "<unk>",
    }
    _write_json(folder / "tokenizer_config.json", config, None)


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


def encode_alone(encoder: Encoder, pictures: Sequence[GatePicture]) -> NDArray[np.float32]:
    """Each picture in a batch of its own: float32[pictures, D]."""
    return np.concatenate([encoder.encode(picture.pixels[None]) for picture in pictures])


def cosine(one: NDArray[Any], other: NDArray[Any]) -> float:
    """In float64, whatever the vectors are stored as."""
    a, b = one.astype(np.float64), other.astype(np.float64)
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
