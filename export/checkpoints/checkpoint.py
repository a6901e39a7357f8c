"""A checkpoint, opened: all that the later steps need, whether it is a CLIP, a SigLIP or the starter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from export.quiet import quiet
from server.artifact.artifact import PreprocessingSpec, Source, Tensor


@dataclass(kw_only=True)
class ImageTower:
    """An image tower with its projection, its preprocessing, and the reference that both are proved against."""

    module: torch.nn.Module
    """`pixel_values` float32[N, 3, S, S] -> an object with `image_embeds` float32[N, D], not normalised."""
    rewritten: Callable[[], torch.nn.Module] | None = None
    """Makes a module of the same weights that computes the same with less work; it is traced in place of `module`."""
    onnx_config: Any
    """optimum's OnnxConfig that traces the tower, with the one output `image_embeds`."""
    architecture: str
    tensors: list[Tensor]
    """What the space's id is computed from: every weight, as stored, and the settings that change what is computed."""
    spec: PreprocessingSpec
    processor: Any
    """The checkpoint's own image processor (the slow one: Pillow does its resampling)."""
    dimensions: int
    """D: the length of an embedding."""

    def reference_vector(self, picture: Image.Image) -> NDArray[Any]:
        """float64[D], unit length: the checkpoint's complete pipeline in torch, float32 until the last step."""
        batch = self.processor(picture, do_convert_rgb=True, return_tensors="pt")
        with torch.inference_mode():
            return _unit(self.module(pixel_values=batch["pixel_values"]).image_embeds[0])

    def release(self) -> None:
        """Drop the weights, once vectors and graph are made from them: they are most of the export's memory."""
        self.module, self.rewritten, self.tensors = torch.nn.Module(), None, []


@dataclass(kw_only=True)
class TextTower:
    """A text tower with its projection and its tokenizer, and the reference that both are proved against."""

    module: torch.nn.Module
    """`input_ids` int64[N, L] -> an object with `text_embeds` float32[N, D], not normalised."""
    rewritten: Callable[[], torch.nn.Module] | None = None
    """As for the image tower."""
    onnx_config: Any
    """optimum's OnnxConfig that traces the tower: `input_ids` in, `text_embeds` out."""
    architecture: str
    tensors: list[Tensor]
    """What the tower's digest is computed from, as for the space's id."""
    tokenizer: Any
    """The checkpoint's own tokenizer, from transformers."""
    tokenizer_json: bytes
    """The same tokenizer for the `tokenizers` package; it truncates by itself, and pads where `padded`."""
    length: int
    """The largest L, the tokens that mark beginning and end included."""
    padded: bool
    """Whether every text runs at `length` tokens, because the tower was trained to see its padding."""
    stored: Mapping[str, tuple[NDArray[np.int8], NDArray[np.float32]]] = field(default_factory=dict)
    """Weights that are whole numbers times a scale: name -> int8[R, ...], float32[R]. The graph may store them so."""

    def reference_tokens(self, text: str) -> NDArray[np.int64]:
        """int64[L]: the checkpoint's own tokenizer, called as its documentation says."""
        padding = "max_length" if self.padded else True
        with quiet():
            made = self.tokenizer(text, padding=padding, truncation=True, max_length=self.length)
        return np.array(made["input_ids"], np.int64)

    def reference_vector(self, text: str) -> NDArray[Any]:
        """float64[D], unit length: the checkpoint's own tokenizer and its tower in torch."""
        tokens = torch.from_numpy(self.reference_tokens(text))[None]
        with torch.inference_mode():
            return _unit(self.module(input_ids=tokens).text_embeds[0])

    def release(self) -> None:
        """Drop the weights, as the image tower does."""
        self.module, self.rewritten, self.tensors, self.stored = torch.nn.Module(), None, [], {}


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a source holds. The text tower is opened later, so that the two are never in memory at once."""

    source: Source
    model: str
    """The model's name in the server's answers: the hub id, the folder's name, or twinlens/starter."""
    image: ImageTower
    text: Callable[[], TextTower] | None = None
    without_text: str = ""
    """A sentence why there is no text tower; empty where there is one."""
    packages: tuple[str, ...] = ()
    """Further packages that the weights came from; the manifest names their versions."""
    card: bytes | None = None
    """A README.md that goes into the artifact."""
    extras: Mapping[str, bytes] = field(default_factory=dict)
    """Other files that go into the artifact, by name."""


def _unit(vector: torch.Tensor) -> NDArray[Any]:
    wide = vector.double()
    unit: NDArray[Any] = (wide / wide.norm()).numpy()
    return unit
