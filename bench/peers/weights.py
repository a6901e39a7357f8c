"""The weights that everybody is measured with: a checkpoint, and the artifact that is made of it.

Without one of your own, a CLIP ViT-B/32 of random weights is made, always the same. It embeds as quickly as a trained
one, and nothing need be downloaded; what its vectors mean does not matter here.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from bench.pictures import ROOT
from server.artifact.artifact import Artifact

_SEED = 32
_NAME = "random-vit-b32"


def checkpoint(cache: Path) -> Path:
    """The random ViT-B/32 in Hugging Face format, with processor and tokenizer; made if it is not there yet."""
    folder = cache / "checkpoints" / _NAME
    if folder.exists():
        return folder
    print("making a ViT-B/32 of random weights", flush=True)
    # Seconds to import, and of the export's extra: not needed with a checkpoint and an artifact of one's own.
    import torch
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    half = folder.with_name(f"{_NAME}.half")
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir(parents=True)
    # A byte-level BPE without merges: bytes, bytes that end a word, and the two special tokens.
    alphabet = sorted(ByteLevel.alphabet())
    words = [*alphabet, *(f"{one}</w>" for one in alphabet), "<|startoftext|>", "<|endoftext|>"]
    start, end = len(words) - 2, len(words) - 1
    (half / "vocab.json").write_text(json.dumps({word: at for at, word in enumerate(words)}))
    (half / "merges.txt").write_text("#version: 0.2\n")
    special = {"bos_token": words[start], "eos_token": words[end], "unk_token": words[end], "pad_token": words[end]}
    (half / "tokenizer_config.json").write_text(
        json.dumps({**special, "tokenizer_class": "CLIPTokenizer", "model_max_length": 77})
    )
    text = {"vocab_size": len(words), "bos_token_id": start, "eos_token_id": end, "pad_token_id": end}
    torch.manual_seed(_SEED)
    CLIPModel(CLIPConfig(text_config=text)).save_pretrained(half)
    CLIPImageProcessor().save_pretrained(half)
    half.rename(folder)
    return folder


def artifact(cache: Path, source: Path) -> Path:
    """The artifact of a checkpoint, fp32 and int8; exported if it is not there yet, which takes some minutes.

    Raises RuntimeError when the export refuses.
    """
    models = cache / "models"
    name = source.resolve().name.lower()
    if not (models / name / "manifest.json").exists():
        print(f"exporting {source} as fp32 and int8; this takes some minutes", flush=True)
        command = [sys.executable, "-m", "export", "--source", str(source.resolve()), "--name", name]
        command += ["--models", str(models.resolve()), "--precision", "fp32", "--precision", "int8"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)  # noqa: S603 - our own export
        if done.returncode:
            raise RuntimeError(f"{source} could not be exported: {done.stderr.strip()[-2000:]}")
    return models / name


def describe(found: Artifact) -> dict[str, str]:
    """What of an artifact goes into the figures."""
    manifest = found.manifest
    return {
        "name": manifest.name,
        "model": manifest.model,
        "precision": "fp32, int8",
        "device": "cpu",
        "space": manifest.space.id,
    }
