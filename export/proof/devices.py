"""Which devices can run an artifact's graphs here."""

from __future__ import annotations

import onnxruntime as ort

from export.errors import ExportRefused
from server.artifact.artifact import Artifact, Device, Precision
from server.errors import BadSetting, EncoderFailed
from server.inference.encoder import Encoder


def devices(artifact: Artifact, precision: Precision) -> list[Device]:
    """The devices that run the precision's image tower here: `cpu`, and `cuda` where it is present and works."""
    present: list[Device] = ["cpu"]
    if "CUDAExecutionProvider" in ort.get_available_providers():
        try:
            with Encoder(artifact, precision, "cuda") as encoder:
                encoder.warm_up()
            present.append("cuda")
        except (BadSetting, EncoderFailed):
            pass  # a driver without a card, or a graph without kernels: there is nothing to measure
    return present


def device(name: str) -> Device:
    """A device by its name. Raises ExportRefused for another, and for CUDA where ONNX Runtime has none."""
    if name == "cpu":
        return "cpu"
    if name != "cuda":
        raise ExportRefused(f"There is no device {name}; there are cpu and cuda.")
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        raise ExportRefused("ONNX Runtime has no CUDA here; install the gpu extra on a machine with an NVIDIA driver.")
    return "cuda"
