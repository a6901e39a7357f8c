"""Batches to embeddings. Owns the ONNX Runtime session; nobody else imports ONNX Runtime.

`encode` is blocking and releases the GIL: call it from a worker thread, one call at a time for each encoder.
"""

from __future__ import annotations

import logging
import os
from types import TracebackType
from typing import Literal

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from server.artifact import Artifact, Space, Vectors
from server.errors import ArtifactInvalid, BadSetting, EncoderFailed

Device = Literal["auto", "cpu", "cuda"]

_log = logging.getLogger(__name__)


class Encoder:
    """An image tower, loaded and ready to run.

    The constructor does no I/O; `open` loads the graph. Proving the goldens and warming up are the opener's next steps.
    """

    def __init__(self, artifact: Artifact, precision: str, device: Device = "auto", *, threads: int = 0) -> None:
        """`threads`: of one session on the CPU; 0 is one for each core this process may run on."""
        self.artifact = artifact
        self.precision = precision
        self.space: Space = artifact.space(precision)
        self._wanted = device
        self._threads = threads or len(os.sched_getaffinity(0))
        self._session: ort.InferenceSession | None = None
        self.device = ""
        """`cpu` or `cuda:0`, once open."""

    @property
    def model(self) -> str:
        return self.artifact.manifest.model

    def open(self) -> None:
        """Load the session on the device that was asked for.

        Raises BadSetting when CUDA was asked for and cannot be had, ArtifactInvalid when the graph does not load or is
        not the graph that the manifest describes.
        """
        graph = self.artifact.graph(self.precision)
        session = None
        if self._wanted in ("auto", "cuda") and "CUDAExecutionProvider" in ort.get_available_providers():
            session = self._load(str(graph), cuda=True)
        if session is None:
            if self._wanted == "cuda":
                raise BadSetting(
                    "TWINLENS_DEVICE is cuda, but ONNX Runtime cannot use CUDA here. Install the gpu extra "
                    "(pip install 'twinlens[gpu]') on a machine with an NVIDIA driver, or set TWINLENS_DEVICE=cpu."
                )
            session = self._load(str(graph), cuda=False)
        if session is None:
            raise ArtifactInvalid(f"ONNX Runtime {ort.__version__} cannot load {graph}; the log says why.")
        self._check_signature(session)
        self._session = session
        self.device = "cuda:0" if session.get_providers()[0] == "CUDAExecutionProvider" else "cpu"

    def _load(self, graph: str, *, cuda: bool) -> ort.InferenceSession | None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        # Spinning threads burned 3 CPU-seconds in the second after one request, and pay little under load.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers = ["CPUExecutionProvider"]
        if cuda:
            ort.preload_dlls()
            providers.insert(0, "CUDAExecutionProvider")
        try:
            session = ort.InferenceSession(graph, options, providers=providers)
        except Exception as exc:
            _log.warning("ONNX Runtime could not load %s on %s: %s", graph, providers[0], exc)
            return None
        # ONNX Runtime falls back to the CPU without an error when the driver is missing.
        if cuda and session.get_providers()[0] != "CUDAExecutionProvider":
            _log.warning("CUDA was found but could not be used; ONNX Runtime fell back to the CPU.")
            return None
        return session

    def _check_signature(self, session: ort.InferenceSession) -> None:
        size = self.artifact.spec.size
        takes = [(one.name, one.type, list(one.shape)[1:]) for one in session.get_inputs()]
        gives = [(one.name, one.type, list(one.shape)[1:]) for one in session.get_outputs()]
        if takes != [("pixels", "tensor(uint8)", [size, size, 3])]:
            raise ArtifactInvalid(f"The graph takes {takes}, not pixels uint8[N, {size}, {size}, 3].")
        if gives != [("embedding", "tensor(float)", [self.space.dimensions])]:
            raise ArtifactInvalid(f"The graph gives {gives}, not embedding float32[N, {self.space.dimensions}].")

    def encode(self, pixels: NDArray[np.uint8]) -> Vectors:
        """uint8[N, S, S, 3] to float32[N, D], each of unit length. Raises EncoderFailed."""
        if self._session is None:
            raise EncoderFailed("The encoder is not open.")
        try:
            (embeddings,) = self._session.run(["embedding"], {"pixels": pixels})
        except Exception as exc:  # ONNX Runtime raises its own exceptions and bare RuntimeErrors
            raise EncoderFailed() from exc
        vectors: Vectors = embeddings
        if not np.isfinite(vectors).all():
            raise EncoderFailed("The model gave a vector that is not finite; the fault is ours and has been logged.")
        return vectors

    def warm_up(self, batches: tuple[int, ...]) -> None:
        """Run each batch size once, so that the first request does not pay for ONNX Runtime's first allocations."""
        size = self.artifact.spec.size
        for batch in batches:
            self.encode(np.zeros((batch, size, size, 3), np.uint8))

    def close(self) -> None:
        self._session = None

    def __enter__(self) -> Encoder:
        self.open()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
