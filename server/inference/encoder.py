"""Batches to embeddings: the towers. Together with `cuda.py` and `graphs.py` this module owns ONNX Runtime's sessions.

`encode` and the runners are blocking and release the GIL: call them from worker threads, `encode` and each runner one
call at a time.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from server.artifact.artifact import Artifact, Device, Space, Tokens, Vectors
from server.errors import ArtifactInvalid, BadSetting, EncoderFailed
from server.inference import cuda, graphs
from server.inference.cores import Layout
from server.inference.runner import PlainRunner, Runner

_Shape = tuple[int | None, ...]
"""Without N, the number of pictures or texts; None is a size that the caller chooses."""

# For a tower that does not serve, such as the export's: larger batches are run in parts.
_MOST_IN_A_RUN = 256

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Serving:
    """What a tower needs to know in order to serve; a tower that is only tried or proven does without."""

    gpu: int = 0
    """Which of the GPUs, where there are several."""
    most: int = 64
    """The largest batch on a GPU."""
    cache: Path | None = None
    """A folder for graphs and engines that are kept from one start to the next."""
    tensorrt: bool = False


class _Guarded:
    """A runner that raises EncoderFailed for every error, and for a vector that is not finite."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    @property
    def most(self) -> int:
        return self._runner.most

    def __call__(self, entries: Sequence[NDArray[Any]], /) -> Vectors:
        try:
            vectors = self._runner(entries)
        except Exception as exc:  # ONNX Runtime raises its own exceptions and bare RuntimeErrors
            raise EncoderFailed() from exc
        if not np.isfinite(vectors).all():
            raise EncoderFailed("The model gave a vector that is not finite; the fault is ours and has been logged.")
        return vectors

    def close(self) -> None:
        self._runner.close()


class _Tower:
    """What the image tower and the text tower have in common.

    The constructor does no I/O; `open` loads the graph. Whoever opens a tower proves the goldens and warms it up next.
    """

    def __init__(
        self,
        artifact: Artifact,
        precision: str,
        device: Device,
        threads: int,
        serving: Serving | None,
        *,
        graph: Path,
        graph_input: tuple[str, str],
        shapes: Sequence[_Shape],
        streams: int,
    ) -> None:
        """`threads`: of the CPU, in all; 0 is one for each core that this process may run on.

        `graph_input`: name and type of the graph's input; `shapes`: the shapes that it may have; `streams`: how many
        runners work side by side on a GPU.
        """
        self.artifact = artifact
        self.precision = precision
        self.space: Space = artifact.space(precision)
        self._wanted = device
        self._threads = threads or len(os.sched_getaffinity(0))
        self._serving = serving
        self._graph = graph
        self._graph_input = graph_input
        self._shapes = shapes
        self._streams = streams
        self._sessions: dict[int, ort.InferenceSession] = {}
        self._copies = serving.cache / "graphs" if serving is not None and serving.cache is not None else None
        self._copy: Path | None = None
        self.runners: Sequence[Runner] = ()
        """Runners that may work side by side, once open. On the CPU it is one, until `lay_out` makes several."""
        self.alone: Runner | None = None
        """A runner with all threads, where each of the others has a part of them."""
        self.for_bulk: Sequence[Runner] = ()
        """As `runners`, for threads of lower priority; none where a run uses threads of its own."""
        self.for_bulk_alone: Runner | None = None
        """As `alone`, beside `for_bulk`."""
        self.device = ""
        """`cpu` or `cuda:0`, once open."""

    @property
    def model(self) -> str:
        return self.artifact.manifest.model

    @property
    def threads(self) -> int:
        """How many threads of the CPU the tower uses, in all."""
        return self._threads

    def open(self) -> None:
        """Load the graph on the device that was asked for.

        Raises BadSetting when CUDA was asked for and cannot be had, ArtifactInvalid when the graph does not load or is
        not the graph that the manifest describes.
        """
        tensorrt = self._serving is not None and self._serving.tensorrt
        if self._wanted != "cpu":
            try:
                self.runners = self._on_cuda()
                self.device = f"cuda:{self._serving.gpu if self._serving else 0}"
                return
            except cuda.CudaUnusable as exc:
                if self._wanted == "cuda":
                    raise BadSetting(
                        f"TWINLENS_DEVICE is cuda, but {exc}. Install the gpu extra (pip install 'twinlens[gpu]') on a "
                        "machine with an NVIDIA driver, or set TWINLENS_DEVICE=cpu."
                    ) from exc
                if "CUDAExecutionProvider" in ort.get_available_providers():
                    _log.warning("CUDA is not used: %s", exc)
        if tensorrt:
            raise BadSetting("TWINLENS_TENSORRT is on, but the model runs on the CPU. Set TWINLENS_DEVICE=cuda.")
        self.runners = self.on_cpu(1, self._threads, _MOST_IN_A_RUN)
        self.device = "cpu"

    def _on_cuda(self) -> list[Runner]:
        serving, (shape, *_) = self._serving, reversed(self._shapes)
        if serving is None:  # any batch, once: nothing is prepared
            made = cuda.runners(
                self._graph, most=_MOST_IN_A_RUN, count=1, precision=self.precision, verify=self._check_signature
            )
        else:
            sizes = tuple(size for size in shape if size is not None)
            # The image tower, which has two streams; a text tower is small, and its engines would take minutes as well.
            engines = serving.cache / "tensorrt" if serving.tensorrt and serving.cache and self._streams > 1 else None
            made = cuda.runners(
                self._graph,
                most=serving.most,
                gpu=serving.gpu,
                count=self._streams,
                precision=self.precision,
                shape=sizes if len(sizes) == len(shape) else None,
                engines=engines,
                verify=self._check_signature,
            )
        return [_Guarded(runner) for runner in made]

    def on_cpu(self, count: int, width: int, most: int) -> list[Runner]:
        """So many runners of so many threads each. Raises ArtifactInvalid."""
        return [_Guarded(PlainRunner(self._session(width, count), most)) for _ in range(count)]

    def _session(self, width: int, count: int) -> ort.InferenceSession:
        # A session without threads of its own may run in many threads at once; with some, runs would compete for them.
        if (width == 1 or count == 1) and width in self._sessions:
            return self._sessions[width]
        session = self._load(width)
        self._check_signature(session)
        if width == 1 or count == 1:
            self._sessions[width] = session
        return session

    def lay_out(self, layout: Layout) -> None:
        """On the CPU: make the runners of a layout, and beside several of them the runner with all threads."""
        self.runners = self.on_cpu(layout.count, layout.width, layout.batch)
        self.alone = self._alone(layout)
        if layout.width == 1:
            # They share the sessions of the others, so all that they need is memory for their batches.
            self.for_bulk = self.on_cpu(layout.count, 1, layout.batch)
            self.for_bulk_alone = self._alone(layout)

    def _alone(self, layout: Layout) -> Runner | None:
        return self.on_cpu(1, layout.alone, 1)[0] if layout.count > 1 else None

    def forget_copy(self) -> bool:
        """Have the next session load the artifact's own graph; whether an optimised copy was in use until now.

        The copy is deleted, so that the next start makes another.
        """
        copy, self._copy, self._copies = self._copy, None, None
        self._sessions.clear()
        if copy is not None:
            graphs.forget(copy)
        return copy is not None

    def _check_files(self) -> None:
        self.artifact.check_files(name for name in self.artifact.manifest.files if name.startswith(self._graph.name))

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the graph with the weights beside it, as the manifest has it."""
        return self.artifact.digest_of(self._graph.name)

    def _load(self, threads: int) -> ort.InferenceSession:
        if self._copies is not None:
            self._copy = graphs.optimised(self._graph, self.digest, self._copies, self._check_files)
            if self._copy is not None:
                try:
                    return _session_of(self._copy, threads, optimise=False)
                except Exception as exc:  # as below; a part of the copy may be lost
                    _log.warning("The optimised graph %s does not load: %s", self._copy, exc)
            self.forget_copy()
        try:
            return _session_of(self._graph, threads)
        except Exception as exc:  # ONNX Runtime's own exceptions have no common base
            _log.warning("ONNX Runtime could not load %s: %s", self._graph, exc)
            raise ArtifactInvalid(
                f"ONNX Runtime {ort.__version__} cannot load {self._graph}; the log says why."
            ) from exc

    def _check_signature(self, session: ort.InferenceSession) -> None:
        inputs, outputs = map(_signature, (session.get_inputs(), session.get_outputs()))
        name, kind = self._graph_input
        if inputs not in [[(name, f"tensor({kind})", [None, *shape])] for shape in self._shapes]:
            shape = ", ".join(["N", *("L" if size is None else str(size) for size in self._shapes[0])])
            raise ArtifactInvalid(f"The graph {self._graph} accepts {inputs}, not {name} {kind}[{shape}].")
        if outputs != [("embedding", "tensor(float)", [None, self.space.dimensions])]:
            raise ArtifactInvalid(
                f"The graph {self._graph} gives {outputs}, not embedding float32[N, {self.space.dimensions}]."
            )

    def _encode(self, batch: NDArray[Any]) -> Vectors:
        if not self.runners:
            raise EncoderFailed("The encoder is not open.")
        runner = self.alone if self.alone is not None and len(batch) == 1 else self.runners[0]
        if len(batch) <= runner.most:
            return runner(list(batch))
        parts = [list(batch[at : at + runner.most]) for at in range(0, len(batch), runner.most)]
        return np.concatenate([runner(part) for part in parts])

    def each_way(self) -> Sequence[Runner]:
        """One runner of each kind: the goldens are proven on all kinds that will serve."""
        # On the CPU the runners that work side by side are alike; on a GPU each has captured graphs of its own.
        different = self.runners if self.device != "cpu" else self.runners[:1]
        return [*different] if self.alone is None else [self.alone, *different]

    def _warm_up(self, samples: Sequence[NDArray[Any]]) -> None:
        for runner in self.each_way():
            for sample in samples:
                for size in {1, runner.most}:
                    runner([sample] * size)

    def close(self) -> None:
        for runner in (*self.runners, *self.for_bulk, *filter(None, [self.alone, self.for_bulk_alone])):
            runner.close()
        self.runners, self.for_bulk, self.alone, self.for_bulk_alone = (), (), None, None
        self._sessions.clear()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def _session_of(graph: Path, threads: int, *, optimise: bool = True) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Spinning threads burned 3 CPU-seconds in the second after one request, and pay little under load.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])


def _signature(nodes: Sequence[ort.NodeArg]) -> list[tuple[str, str, list[int | None]]]:
    """Name, type and shape of each input or output; None stands for a size that the caller chooses."""
    return [(one.name, one.type, [size if isinstance(size, int) else None for size in one.shape]) for one in nodes]


class Encoder(_Tower):
    """An image tower, loaded and ready to run."""

    def __init__(
        self,
        artifact: Artifact,
        precision: str,
        device: Device = "auto",
        *,
        threads: int = 0,
        serving: Serving | None = None,
    ) -> None:
        size = artifact.spec.size
        graph, graph_input = artifact.graph(precision), ("pixels", "uint8")
        super().__init__(
            artifact,
            precision,
            device,
            threads,
            serving,
            graph=graph,
            graph_input=graph_input,
            shapes=[(size, size, 3)],
            # Two: while one computes, the other's batch is copied.
            streams=2,
        )

    def encode(self, pixels: NDArray[np.uint8]) -> Vectors:
        """uint8[N, S, S, 3] to float32[N, D], each of unit length. Raises EncoderFailed."""
        return self._encode(pixels)

    @property
    def samples(self) -> Sequence[NDArray[np.uint8]]:
        """Entries that a model of this artifact can encode."""
        size = self.artifact.spec.size
        return [np.zeros((size, size, 3), np.uint8)]

    def warm_up(self) -> None:
        """Run batches of one and the largest, so that no request pays for ONNX Runtime's first allocations."""
        self._warm_up(self.samples)


class TextEncoder(_Tower):
    """A text tower, loaded and ready to run. Raises ArtifactInvalid for an artifact without one."""

    def __init__(
        self,
        artifact: Artifact,
        precision: str,
        device: Device = "auto",
        *,
        threads: int = 0,
        serving: Serving | None = None,
    ) -> None:
        graph, graph_input = artifact.text_graph(precision), ("tokens", "int64")
        shapes: list[_Shape] = [(None,)]
        if (tower := artifact.manifest.text) is not None and tower.padded:
            # Every text has that many tokens, so the graph may require the number.
            shapes.append((tower.length,))
        super().__init__(
            artifact,
            precision,
            device,
            threads,
            serving,
            graph=graph,
            graph_input=graph_input,
            shapes=shapes,
            streams=1,
        )

    def encode(self, tokens: Tokens) -> Vectors:
        """int64[N, L] to float32[N, D], each of unit length; every text has L tokens. Raises EncoderFailed."""
        return self._encode(tokens)

    @property
    def samples(self) -> Sequence[Tokens]:
        """As for pictures: texts of each number of tokens that a golden has."""
        samples = {len(golden.tokens): golden.tokens for golden in self.artifact.manifest.text_goldens}
        return [np.array(tokens, np.int64) for tokens in samples.values()]

    def warm_up(self) -> None:
        """As for pictures."""
        self._warm_up(self.samples)
