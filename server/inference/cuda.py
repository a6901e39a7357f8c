"""Entries to vectors on an NVIDIA GPU: bound buffers, CUDA graphs, TensorRT.

Written after the sources and the binary of ONNX Runtime 1.31 and exercised on the CPU; not yet run on a GPU. What its
CUDA provider does decides what is done here:

- A session with `enable_cuda_graph` runs on one stream of its own, made non-blocking, so that it waits for no other
  stream, and each run waits for it before it returns. Copies are made here, on streams of the runner's own: with two
  runners, one's batch is copied while the other's computes.
- A CUDA graph is captured for each `gpu_graph_id` by the first run that names it: ordinary runs that allocate what is
  needed, one that is recorded, one replay. Only the thread that captured a graph finds it again, so each runner has a
  thread of its own. A replay reads and writes the addresses that were bound at the capture.
- While one thread captures, no other thread of the process may allocate, synchronise or make a session. So `runners`
  makes and captures one after the other, before anything is served.
- A graph is captured only where all nodes run on CUDA, but for those that compute shapes.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import glob
import hashlib
import importlib
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import DTypeLike, NDArray

from server.artifact.artifact import Vectors
from server.errors import BadSetting, StartRefused
from server.inference.runner import OUTPUT, PlainRunner, Runner, check, lay, signature

_CUDA = "CUDAExecutionProvider"
_TENSORRT = "TensorrtExecutionProvider"
_LIBRARIES = "it needs TensorRT 10: pip install 'tensorrt-cu13-libs<11'"

_log = logging.getLogger(__name__)


class CudaUnusable(Exception):
    """CUDA cannot be used here; the message says why, as the end of a sentence."""


# --- memory ----------------------------------------------------------------------------------------------------------


class Memory(Protocol):
    """Rows on the host and the same rows on the device, where a session reads or writes them."""

    rows: NDArray[Any]
    """On the host."""
    device: str
    """As ONNX Runtime names it: `cpu` or `cuda`."""
    gpu: int
    address: int
    """On the device."""

    def send(self, count: int) -> None:
        """Copy the first rows to the device, and wait for it."""

    def fetch(self, count: int) -> None:
        """Copy the first rows from the device, and wait for it."""

    def close(self) -> None: ...


class OnHost:
    """The host is the device."""

    device = "cpu"
    gpu = 0

    def __init__(self, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        self.rows: NDArray[Any] = np.zeros(shape, dtype)
        self.address = self.rows.ctypes.data

    def send(self, count: int) -> None:
        pass

    def fetch(self, count: int) -> None:
        pass

    def close(self) -> None:
        pass


class OnGpu:
    """Pinned rows on the host, and as many on a GPU. Made, used and closed in one thread.

    ONNX Runtime has no pinned memory for Python, and its copies hold the GIL: CUDA itself is called, in the library
    that ONNX Runtime has loaded. Raises RuntimeError with CUDA's own words.
    """

    device = "cuda"

    def __init__(self, gpu: int, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        self.gpu = gpu
        self.address = 0
        self._host = self._stream = ctypes.c_void_p()
        self._cuda = _Cuda()
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        try:
            self._cuda.use(gpu)
            self._host = self._cuda.make("cudaHostAlloc", size, _HOST_ALLOC_DEFAULT)
            self._stream = self._cuda.make("cudaStreamCreateWithFlags", _STREAM_NON_BLOCKING)
            self.address = self._cuda.make("cudaMalloc", size).value or 0
        except BaseException:
            self.close()
            raise
        allocated = (ctypes.c_uint8 * size).from_address(self._host.value or 0)
        self.rows: NDArray[Any] = np.ctypeslib.as_array(allocated).view(dtype).reshape(shape)
        self.rows[...] = 0
        self._row = size // shape[0]
        self.send(shape[0])

    def send(self, count: int) -> None:
        self._copy(self.address, self._host, count, _HOST_TO_DEVICE)

    def fetch(self, count: int) -> None:
        self._copy(self._host, self.address, count, _DEVICE_TO_HOST)

    def _copy(self, to: Any, source: Any, count: int, kind: int) -> None:
        self._cuda.call("cudaMemcpyAsync", to, source, count * self._row, kind, self._stream)
        self._cuda.call("cudaStreamSynchronize", self._stream)

    def close(self) -> None:
        """Free the memory; `rows` must not be used any more."""
        held = (
            ("cudaStreamDestroy", self._stream.value),
            ("cudaFree", self.address),
            ("cudaFreeHost", self._host.value),
        )
        self._stream, self.address, self._host = ctypes.c_void_p(), 0, ctypes.c_void_p()
        for call, pointer in held:
            if pointer:
                with contextlib.suppress(RuntimeError):  # after a fault of the GPU nothing can be freed
                    self._cuda.call(call, pointer)


# From CUDA's driver_types.h.
_HOST_ALLOC_DEFAULT = 0
_STREAM_NON_BLOCKING = 1
_HOST_TO_DEVICE = 1
_DEVICE_TO_HOST = 2
_SCHEDULE_BLOCKING_SYNC = 4

_POINTER = ctypes.POINTER(ctypes.c_void_p)
_CALLS: dict[str, tuple[Any, ...]] = {
    "cudaSetDevice": (ctypes.c_int,),
    "cudaSetDeviceFlags": (ctypes.c_uint,),
    "cudaHostAlloc": (_POINTER, ctypes.c_size_t, ctypes.c_uint),
    "cudaFreeHost": (ctypes.c_void_p,),
    "cudaMalloc": (_POINTER, ctypes.c_size_t),
    "cudaFree": (ctypes.c_void_p,),
    "cudaStreamCreateWithFlags": (_POINTER, ctypes.c_uint),
    "cudaStreamSynchronize": (ctypes.c_void_p,),
    "cudaStreamDestroy": (ctypes.c_void_p,),
    "cudaMemcpyAsync": (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p),
}


class _Cuda:
    """The calls of CUDA's runtime that are used here. ctypes releases the GIL for each call."""

    def __init__(self) -> None:
        """Raises RuntimeError where there is no such library."""
        name = f"libcudart.so.{str(ort.cuda_version).split('.')[0]}"
        try:
            self._library = ctypes.CDLL(name)
        except OSError as exc:
            raise RuntimeError(f"{name} cannot be loaded: {exc}") from exc
        for call, argument_types in _CALLS.items():
            getattr(self._library, call).argtypes = argument_types
        self._library.cudaGetErrorString.argtypes = (ctypes.c_int,)
        self._library.cudaGetErrorString.restype = ctypes.c_char_p

    def use(self, gpu: int) -> None:
        """Use this GPU in this thread."""
        self.call("cudaSetDevice", gpu)
        # Otherwise each thread that waits for the GPU spins, on a core that could decode.
        self.call("cudaSetDeviceFlags", _SCHEDULE_BLOCKING_SYNC)

    def make(self, name: str, *arguments: Any) -> ctypes.c_void_p:
        """A call that gives a pointer through its first argument."""
        made = ctypes.c_void_p()
        self.call(name, ctypes.byref(made), *arguments)
        return made

    def call(self, name: str, *arguments: Any) -> None:
        if status := getattr(self._library, name)(*arguments):
            said = self._library.cudaGetErrorString(status) or b"?"
            raise RuntimeError(f"{name} failed: {said.decode()} ({status})")


# --- running ---------------------------------------------------------------------------------------------------------


def buckets(most: int) -> tuple[int, ...]:
    """The batches that are prepared: the powers of two below the largest, and the largest."""
    return (*(1 << power for power in range((most - 1).bit_length())), most)


class BoundRunner:
    """A session that reads and writes buffers made once. A batch runs in the smallest bucket that holds it.

    The rows of a bucket beyond the batch keep what an earlier batch left there, and their vectors are dropped.
    Everything happens in the runner's own thread, for which the caller waits.
    """

    def __init__(
        self,
        session: ort.InferenceSession,
        most: int,
        *,
        memory: Callable[[tuple[int, ...], DTypeLike], Memory] = OnHost,
        graphs: bool = False,
        shape: tuple[int, ...] | None = None,
    ) -> None:
        """Prepare each bucket, by a run of it.

        `graphs`: the session captures CUDA graphs. `shape`: of each entry, where the session's graph leaves it open.
        Raises ValueError when neither gives the shape, and what ONNX Runtime and `memory` raise.
        """
        self.most = most
        self.graphs = graphs
        self._session = session
        self._make = memory
        self._memory: list[Memory] = []
        self._ready: dict[int, tuple[Any, Any]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="gpu")
        try:
            self._thread.submit(self._prepare, shape).result()
        except BaseException:
            self.close()
            raise

    def _prepare(self, shape: tuple[int, ...] | None) -> None:
        name, declared, dtype = signature(self._session)
        sizes = shape or tuple(size for size in declared if size is not None)
        if len(sizes) != len(declared):
            raise ValueError(f"{name} of any shape cannot be bound; the graph declares {declared}")
        dimensions = self._session.get_outputs()[0].shape[1]
        given = self._hold((self.most, *sizes), dtype)
        found = self._hold((self.most, dimensions), np.float32)
        for bucket in buckets(self.most):
            binding = self._session.io_binding()
            binding.bind_input(name, given.device, given.gpu, dtype, (bucket, *sizes), given.address)
            binding.bind_output(OUTPUT, found.device, found.gpu, np.float32, (bucket, dimensions), found.address)
            options = ort.RunOptions()
            if self.graphs:
                options.add_run_config_entry("gpu_graph_id", str(bucket))
            self._session.run_with_iobinding(binding, options)
            self._ready[bucket] = binding, options

    def _hold(self, shape: tuple[int, ...], dtype: DTypeLike) -> Memory:
        memory = self._make(shape, dtype)
        self._memory.append(memory)
        return memory

    def __call__(self, entries: Sequence[NDArray[Any]], /) -> Vectors:
        check(entries, self.most)
        if not self._ready:
            raise RuntimeError("the runner is closed")
        return self._thread.submit(self._run, entries).result()

    def _run(self, entries: Sequence[NDArray[Any]]) -> Vectors:
        given, found = self._memory
        count = len(entries)
        lay(entries, given.rows[:count])
        given.send(count)
        binding, options = self._ready[next(bucket for bucket in self._ready if bucket >= count)]
        self._session.run_with_iobinding(binding, options)
        found.fetch(count)
        vectors: Vectors = found.rows[:count].copy()
        return vectors

    def close(self) -> None:
        if self._session is None:
            return
        self._thread.submit(self._give_back).result()
        self._thread.shutdown()

    def _give_back(self) -> None:
        # The bindings are dropped before the memory that they are bound to.
        self._ready.clear()
        self._session = None
        for memory in self._memory:
            memory.close()
        self._memory.clear()


# --- sessions --------------------------------------------------------------------------------------------------------


def runners(
    graph: Path,
    *,
    most: int,
    gpu: int = 0,
    count: int = 2,
    precision: str = "fp32",
    shape: tuple[int, ...] | None = None,
    graphs: bool = True,
    engines: Path | None = None,
    verify: Callable[[Any], None] = lambda session: None,
) -> list[Runner]:
    """Load a tower's graph `count` times on a GPU, each with a runner for batches of up to `most`.

    `shape`: of each entry; without it entries may have any shape, and nothing can be bound or captured. `graphs`:
    capture CUDA graphs; a tower that cannot be captured runs without them, and the log says so. `engines`: run the
    tower with TensorRT, and keep its engines below this folder. `verify` is called with each session, and may raise.

    Raises CudaUnusable; ValueError for TensorRT without a shape; BadSetting when there is no usable TensorRT. Nothing
    else in the process may use the GPU meanwhile.
    """
    if engines is not None and shape is None:
        raise ValueError("TensorRT needs the shape of the entries")
    graphs = graphs and shape is not None and engines is None
    made: list[Runner] = []

    def load() -> Runner:
        if engines is not None and shape is not None:
            session = _load_tensorrt(graph, gpu, precision, (most, *shape), engines)
        else:
            session = _load_cuda(graph, gpu, graphs=graphs)
        verify(session)
        if shape is None:
            return PlainRunner(session, most)
        return BoundRunner(session, most, memory=partial(OnGpu, gpu), graphs=graphs, shape=shape)

    try:
        while len(made) < count:
            try:
                made.append(load())
            except (CudaUnusable, StartRefused):
                raise
            except Exception as exc:  # ONNX Runtime raises its own exceptions and bare RuntimeErrors
                if not graphs:
                    raise CudaUnusable(f"{graph} does not run on GPU {gpu}: {exc}") from exc
                _log.warning("%s runs without CUDA graphs, because they cannot be captured: %s", graph, exc)
                graphs = False
    except BaseException:
        for runner in made:
            runner.close()
        raise
    return made


def _load_cuda(graph: Path, gpu: int, *, graphs: bool) -> Any:
    """A session on CUDA. Raises CudaUnusable where there is none, and what ONNX Runtime raises."""
    if _CUDA not in ort.get_available_providers():
        raise CudaUnusable("this build of ONNX Runtime has no CUDA")
    ort.preload_dlls()
    options = {
        "device_id": gpu,
        "enable_cuda_graph": int(graphs),
        # By default an arena that grows doubles, and there is one for each session.
        "arena_extend_strategy": "kSameAsRequested",
    }
    session = _session(graph, [(_CUDA, options), "CPUExecutionProvider"])
    # ONNX Runtime falls back to the CPU without an error when a library or the driver is missing.
    if session.get_providers()[0] != _CUDA:
        raise CudaUnusable("ONNX Runtime found no CUDA it can use: a driver, a GPU or a library is missing")
    return session


def _load_tensorrt(graph: Path, gpu: int, precision: str, largest: tuple[int, ...], engines: Path) -> Any:
    """A session on TensorRT; parts that TensorRT cannot run go to CUDA. Raises BadSetting when it can run none."""
    if _TENSORRT not in ort.get_available_providers():
        raise _no_tensorrt("this build of ONNX Runtime has none")
    ort.preload_dlls()
    with contextlib.suppress(ImportError):  # they may be where the system finds them
        importlib.import_module("tensorrt_libs")  # of the package tensorrt-cu13-libs: it loads its libraries
    # ONNX Runtime finds an engine by the graph's names and shapes, not by its weights.
    folder = engines / fingerprint(graph)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise _no_tensorrt(f"its engines cannot be kept in {folder}: {exc.strerror}") from exc
    options = {
        "device_id": gpu,
        "trt_fp16_enable": int(precision == "fp16"),
        "trt_int8_enable": int(precision == "int8"),
        "trt_engine_cache_enable": 1,
        "trt_engine_cache_path": folder,
        "trt_timing_cache_enable": 1,
        "trt_timing_cache_path": folder,
        **{f"trt_profile_{bound}_shapes": _profile(batch, largest) for bound, batch in _bounds(largest[0]).items()},
    }
    try:
        # One process builds an engine, and those beside it find it built.
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            session = _session(graph, [(_TENSORRT, options), (_CUDA, {"device_id": gpu}), "CPUExecutionProvider"])
    except Exception as exc:
        raise _no_tensorrt(f"ONNX Runtime could not load {graph} with it ({_LIBRARIES}): {exc}") from exc
    if session.get_providers()[0] != _TENSORRT:
        raise _no_tensorrt(f"ONNX Runtime found none it can use ({_LIBRARIES})")
    parts = [part.ep_name for part in session.get_provider_graph_assignment_info()]
    if _TENSORRT not in parts:
        raise _no_tensorrt(f"it can run no part of {graph}")
    _log.info("TensorRT runs %d of the %d parts of %s", parts.count(_TENSORRT), len(parts), graph)
    return session


def _no_tensorrt(why: str) -> BadSetting:
    why = " ".join(why.split()).rstrip(".")
    return BadSetting(f"TWINLENS_TENSORRT is on, and TensorRT cannot be had: {why}. Or set TWINLENS_TENSORRT=off.")


def _session(graph: Path, providers: Sequence[Any]) -> Any:
    options = ort.SessionOptions()
    # Only shapes are computed on the host.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return ort.InferenceSession(str(graph), options, providers=providers, enable_fallback=0)


def fingerprint(graph: Path) -> str:
    """16 hex digits that depend on a graph's bytes and on the weights beside it."""
    digest = hashlib.sha256()
    for path in sorted(graph.parent.glob(f"{glob.escape(graph.name)}*")):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def _bounds(most: int) -> dict[str, int]:
    """The batches that an engine is built for: it is best at `opt`."""
    return {"min": 1, "opt": most, "max": most}


def _profile(batch: int, largest: tuple[int, ...]) -> str:
    return "pixels:" + "x".join(map(str, (batch, *largest[1:])))
