"""Batches to embeddings. Owns the ONNX Runtime sessions; nobody else imports ONNX Runtime.

`encode` is blocking and releases the GIL: call it from a worker thread, one call at a time for each encoder.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from server.artifact import Artifact, Space, Tokens, Vectors
from server.errors import ArtifactInvalid, BadSetting, EncoderFailed

Device = Literal["auto", "cpu", "cuda"]
_Shape = tuple[int | None, ...]
"""Without N, the number of pictures or texts; None is a size that the caller chooses."""

_log = logging.getLogger(__name__)


class _Tower:
    """A tower, loaded and ready to run: what the two kinds have in common.

    The constructor does no I/O; `open` loads the graph. Proving the goldens and warming up are the opener's next steps.
    """

    def __init__(
        self,
        artifact: Artifact,
        precision: str,
        device: Device,
        threads: int,
        *,
        graph: Path,
        takes: tuple[str, str],
        shapes: Sequence[_Shape],
    ) -> None:
        """`threads`: of one session on the CPU; 0 is one for each core this process may run on.

        `takes`: name and type of the graph's input; `shapes`: what its shape may be.
        """
        self.artifact = artifact
        self.precision = precision
        self.space: Space = artifact.space(precision)
        self._wanted = device
        self._threads = threads or len(os.sched_getaffinity(0))
        self._graph = graph
        self._takes = takes
        self._shapes = shapes
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
        graph = self._graph
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
        takes, gives = map(_signature, (session.get_inputs(), session.get_outputs()))
        name, kind = self._takes
        if takes not in [[(name, f"tensor({kind})", [None, *shape])] for shape in self._shapes]:
            shape = ", ".join(["N", *("L" if size is None else str(size) for size in self._shapes[0])])
            raise ArtifactInvalid(f"The graph {self._graph} takes {takes}, not {name} {kind}[{shape}].")
        if gives != [("embedding", "tensor(float)", [None, self.space.dimensions])]:
            raise ArtifactInvalid(
                f"The graph {self._graph} gives {gives}, not embedding float32[N, {self.space.dimensions}]."
            )

    def _run(self, **given: NDArray[Any]) -> Vectors:
        if self._session is None:
            raise EncoderFailed("The encoder is not open.")
        try:
            (embeddings,) = self._session.run(["embedding"], given)
        except Exception as exc:  # ONNX Runtime raises its own exceptions and bare RuntimeErrors
            raise EncoderFailed() from exc
        vectors: Vectors = embeddings
        if not np.isfinite(vectors).all():
            raise EncoderFailed("The model gave a vector that is not finite; the fault is ours and has been logged.")
        return vectors

    def close(self) -> None:
        self._session = None

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def _signature(nodes: Sequence[ort.NodeArg]) -> list[tuple[str, str, list[int | None]]]:
    """Name, type and shape of each input or output; None stands for a size that the caller chooses."""
    return [(one.name, one.type, [size if isinstance(size, int) else None for size in one.shape]) for one in nodes]


class Encoder(_Tower):
    """An image tower, loaded and ready to run."""

    def __init__(self, artifact: Artifact, precision: str, device: Device = "auto", *, threads: int = 0) -> None:
        size = artifact.spec.size
        graph, takes = artifact.graph(precision), ("pixels", "uint8")
        super().__init__(artifact, precision, device, threads, graph=graph, takes=takes, shapes=[(size, size, 3)])

    def encode(self, pixels: NDArray[np.uint8]) -> Vectors:
        """uint8[N, S, S, 3] to float32[N, D], each of unit length. Raises EncoderFailed."""
        return self._run(pixels=pixels)

    def warm_up(self, batches: Sequence[int]) -> None:
        """Run each batch size once, so that the first request does not pay for ONNX Runtime's first allocations."""
        size = self.artifact.spec.size
        for batch in batches:
            self.encode(np.zeros((batch, size, size, 3), np.uint8))


class TextEncoder(_Tower):
    """A text tower, loaded and ready to run. Raises ArtifactInvalid when it is made of an artifact without one."""

    def __init__(self, artifact: Artifact, precision: str, device: Device = "auto", *, threads: int = 0) -> None:
        graph, takes = artifact.text_graph(precision), ("tokens", "int64")
        shapes: list[_Shape] = [(None,)]
        if (tower := artifact.manifest.text) is not None and tower.padded:
            # Every text has that many tokens, so the graph may insist on it.
            shapes.append((tower.length,))
        super().__init__(artifact, precision, device, threads, graph=graph, takes=takes, shapes=shapes)

    def encode(self, tokens: Tokens) -> Vectors:
        """int64[N, L] to float32[N, D], each of unit length; every text has L tokens. Raises EncoderFailed."""
        return self._run(tokens=tokens)

    def warm_up(self, batches: Sequence[int]) -> None:
        """As for pictures, with texts of each number of tokens that a golden has."""
        samples = {len(golden.tokens): golden.tokens for golden in self.artifact.manifest.text_goldens}
        for batch in batches:
            for tokens in samples.values():
                self.encode(np.array([tokens] * batch, np.int64))
