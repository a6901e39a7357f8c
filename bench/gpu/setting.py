"""What is measured, and what a worker over HTTP is given of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from server.artifact.artifact import Artifact, Device

RUNNERS = 2
"""Side by side on one GPU, as the server has them."""

WORKER_VARIABLE = "TWINLENS_TEST_GPU"
"""Hands `WorkerSetting` to the workers over HTTP, as JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What is measured, as the command line says it."""

    artifact: Artifact
    precisions: Sequence[str]
    """The first is that of all but the forward pass."""
    device: Device
    gpu: int
    batches: Sequence[int]
    seconds: float
    """Length of each measurement."""
    callers: int
    """Over HTTP, at once."""
    workers: Sequence[int]
    """Numbers of worker processes, tried in turn."""
    generators: int
    """Processes that play the callers."""
    tensorrt: bool
    cache: Path
    """For TensorRT's engines and the like."""
    checkpoint: Path | None
    torch_python: str

    @property
    def most(self) -> int:
        """The largest batch."""
        return max(self.batches)

    @property
    def on_gpu(self) -> bool:
        return self.device == "cuda"


class WorkerSetting(msgspec.Struct, frozen=True):
    """What a worker needs and the flags of `python -m server` do not say."""

    gpu: int
    most: int
    """The largest batch."""
    workers: int
    """How many there are."""
    tensorrt: bool
    cache: str
