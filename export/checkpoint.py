"""A checkpoint, opened: everything that the steps after it need, whether it is a CLIP or the starter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from PIL import Image

from server.artifact import PreprocessingSpec, Source, Tensor


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """An image tower with its projection, its preprocessing, and the reference that both are proved against."""

    source: Source
    model: str
    """What answers name as their model: the hub id, the folder's name, or twinlens/starter."""
    architecture: str
    tower: torch.nn.Module
    """`pixel_values` float32[N, 3, S, S] -> an object with `image_embeds` float32[N, D], not normalised."""
    onnx_config: Any
    """optimum's OnnxConfig that traces the tower, with the one output `image_embeds`."""
    tensors: list[Tensor]
    """What the space's id is over: every weight, as stored, and what shapes the computation beside the weights."""
    spec: PreprocessingSpec
    processor: Any
    """The checkpoint's own CLIPImageProcessor (the slow one: Pillow does its resampling)."""
    dimensions: int
    """D: the length of an embedding."""
    packages: tuple[str, ...] = ()
    """Packages beyond the exporter's own that the weights came from; the manifest names their versions."""
    card: bytes | None = None
    """A README.md that goes into the artifact."""

    def reference_vector(self, picture: Image.Image) -> NDArray[Any]:
        """float64[D], unit length: the whole of the checkpoint's pipeline in torch, float32 until the last step."""
        batch = self.processor(picture, do_convert_rgb=True, return_tensors="pt")
        with torch.inference_mode():
            vector = self.tower(pixel_values=batch["pixel_values"]).image_embeds[0].double()
            unit: NDArray[Any] = (vector / vector.norm()).numpy()
        return unit
