"""Who is measured: how each is installed, started and asked, and what it answers."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, sleep
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from bench import cpu, pictures, serving
from bench.closed_loop import request
from bench.peers import environments
from bench.peers.loads import LOADS, REPEATED, Load
from server.artifact.artifact import Artifact

_HERE = Path(__file__).parent
_START_LIMIT = 240.0
_STOP_LIMIT = 15.0
_AWAKE = 0.5

# The same everywhere: an older processor, and no torchvision, whose build from the registry does not go with the CPU
# build of torch. So transformers prepares pictures with its slower processor (Pillow and NumPy).
_TORCH = ("torch==2.13.0", "transformers==4.57.6", "pillow==13.0.0")
_LEGACY = (*_TORCH, "sentence-transformers==5.7.0")
# It wants aiohttp for pictures, and reports it missing only when it is sent one.
_INFINITY = (
    *("infinity_emb[server,torch]==0.0.78", *_TORCH, "sentence-transformers==3.4.1"),
    *("fastapi==0.165.0", "aiohttp==3.14.5"),
)
_LITSERVE = (
    *("litserve==0.2.19", "onnxruntime==1.32.0", "pillow==13.0.0", "numpy==2.4.6"),
    *("fastapi==0.165.0", "uvicorn==0.54.0", "python-multipart==0.0.34"),
)


@dataclass(frozen=True, slots=True)
class Setting:
    """What every system is given."""

    cache: Path
    checkpoint: Path
    artifact: Artifact


@dataclass(frozen=True, slots=True)
class Running:
    """A server that is ready to be asked."""

    port: int
    pid: int

    def cpu_seconds(self) -> float:
        return cpu.tree_seconds(self.pid)

    def pause(self) -> None:
        """Stop it where it is, parents first: some poll or spin when nobody asks them."""
        for pid in cpu.tree(self.pid):
            _signal(pid, signal.SIGSTOP)

    def resume(self) -> None:
        for pid in reversed(cpu.tree(self.pid)):
            _signal(pid, signal.SIGCONT)


Start = Callable[[Setting], contextlib.AbstractContextManager[Running]]


@dataclass(frozen=True, slots=True)
class Server:
    """One that is asked over HTTP."""

    name: str
    title: str
    about: str
    """What it is, in a sentence or two for the document."""
    start: Start
    ask: Callable[[int, bytes], bytes]
    """A request from a port and a picture."""
    vector: Callable[[Any], Sequence[float]]
    """The vector in an answer's JSON."""
    loads: Sequence[Load] = LOADS
    requirements: Sequence[str] = ()
    """What was installed for it, and nothing else but what these want."""


@dataclass(frozen=True, slots=True)
class Bare:
    """The model alone, in this process, on pixels that are ready: what no server can be quicker than."""

    name: str
    title: str
    about: str
    precision: str
    loads: Sequence[Load]


# --- asking ----------------------------------------------------------------------------------------------------------


def _ask_form(port: int, picture: bytes) -> bytes:
    return request(port, "/embed-image", pictures.form(picture), headers={"Content-Type": pictures.FORM_TYPE})


def _ask_infinity(port: int, picture: bytes) -> bytes:
    """It takes no forms: the same bytes, in base64, in JSON."""
    data = f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}"
    body = json.dumps({"model": "clip", "modality": "image", "input": [data]}).encode()
    return request(port, "/embeddings", body, headers={"Content-Type": "application/json"})


def _embedding(answer: Any) -> Sequence[float]:
    vector: Sequence[float] = answer["embedding"]
    return vector


def _openai_embedding(answer: Any) -> Sequence[float]:
    vector: Sequence[float] = answer["data"][0]["embedding"]
    return vector


# --- starting --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _legacy(setting: Setting) -> Iterator[Running]:
    python = environments.make(setting.cache / "older", _LEGACY)
    script = str(_HERE / "legacy_service.py")
    with peer([str(python), "-P", script, "--checkpoint", str(setting.checkpoint.resolve())]) as running:
        yield running


@contextlib.contextmanager
def _infinity(setting: Setting) -> Iterator[Running]:
    python = environments.make(setting.cache / "infinity", _INFINITY)
    command = [str(python.with_name("infinity_emb")), "v2", "--model-id", str(setting.checkpoint.resolve())]
    command += ["--served-model-name", "clip", "--engine", "torch", "--device", "cpu", "--host", "127.0.0.1"]
    with peer([*command, "--log-level", "warning"]) as running:
        yield running


@dataclass(frozen=True, slots=True)
class _Tuning:
    """Settings of LitServe."""

    workers: int
    threads: int
    """Of each worker's session."""
    batch: int
    """Pictures in a batch at most."""
    window: float
    """Seconds that a batch waits to be filled."""


def _litserve(tuning: _Tuning, *, draft: bool = False) -> Start:
    @contextlib.contextmanager
    def start(setting: Setting) -> Iterator[Running]:
        python = environments.make(setting.cache / "litserve", _LITSERVE)
        manifest = setting.artifact.manifest
        command = [str(python), "-P", str(_HERE / "litserve_app.py"), "--size", str(manifest.preprocessing.size)]
        command += ["--graph", str((setting.artifact.folder / manifest.precisions["fp32"].image).resolve())]
        command += ["--workers", str(tuning.workers), "--threads", str(tuning.threads)]
        command += ["--batch", str(tuning.batch), "--window", str(tuning.window), *(["--draft"] if draft else [])]
        with peer(command) as running:
            yield running

    return start


def _twinlens(precision: str, arguments: Sequence[str]) -> Start:
    @contextlib.contextmanager
    def start(setting: Setting) -> Iterator[Running]:
        with serving.serving(setting.artifact.folder, precision, "cpu", arguments=arguments) as ours:
            running = Running(ours.port, ours.pid)
            try:
                yield running
            finally:
                # A paused server can stop neither itself nor its database. And a SIGTERM that comes before all of its
                # threads run again may reach another thread than Python's main one, which then sleeps on.
                running.resume()
                sleep(_AWAKE)

    return start


@contextlib.contextmanager
def peer(command: Sequence[str]) -> Iterator[Running]:
    """Somebody else's server, with a free port at the end of its command line; stopped with all its processes.

    Raises RuntimeError, with the end of its log, when it does not become ready.
    """
    port = serving.free_port()
    # No model hub, no usage statistics, and none of our settings.
    variables = {key: value for key, value in os.environ.items() if not key.startswith("TWINLENS_")}
    variables |= {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
    with tempfile.TemporaryFile() as log:
        child = subprocess.Popen(  # noqa: S603 - the command lines above
            [*command, "--port", str(port)],
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        running = Running(port, child.pid)
        try:
            if not _ready(child, f"http://127.0.0.1:{port}/health"):
                log.seek(0)
                raise RuntimeError(f"it does not start: {log.read().decode(errors='replace').strip()[-300:]}")
            yield running
        finally:
            running.resume()
            sleep(_AWAKE)
            _stop(child)


def _ready(child: subprocess.Popen[bytes], url: str) -> bool:
    deadline = perf_counter() + _START_LIMIT
    while perf_counter() < deadline and child.poll() is None:
        with contextlib.suppress(URLError, OSError), urlopen(url, timeout=5):  # noqa: S310 - loopback
            return True
        sleep(0.1)
    return False


def _stop(child: subprocess.Popen[bytes]) -> None:
    family = cpu.tree(child.pid)
    child.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(_STOP_LIMIT)
    for pid in family:
        # What has not ended by itself. The session is the child's own, so an id that was used again since is spared.
        with contextlib.suppress(ProcessLookupError):
            if os.getsid(pid) == child.pid:
                os.kill(pid, signal.SIGKILL)
    child.wait()


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


# --- the list --------------------------------------------------------------------------------------------------------

_SMALL_LOADS = tuple(load for load in LOADS if load.size == "small")
_LARGE_LOADS = tuple(load for load in LOADS if load.size == "large")

# What `--try-litserve` compares. The figures behind each were measured on two cores: pictures/s with 1, 8 and 32
# callers (a ViT-B/32, four seconds each, in sequence).
_TRIED = (
    _Tuning(1, 2, 8, 0.0),  # 17.8  20.8  21.6; its worker spins, so that a core is busy when nobody asks
    _Tuning(1, 2, 8, 0.02),  # 12.4  18.8  19.2
    _Tuning(1, 2, 8, 0.05),  # 9.0  18.3  18.9
    _Tuning(1, 2, 16, 0.005),  # 16.8  20.2  20.1
    _Tuning(2, 1, 8, 0.005),  # 9.9  21.3  21.9
    _Tuning(2, 1, 4, 0.02),  # 9.0  17.9  17.9
    _Tuning(2, 1, 4, 0.0),  # 7.8  19.0  22.2
    _Tuning(2, 2, 4, 0.005),  # 11.9  15.5  16.4
)
_TUNED = _TRIED[0]

SYSTEMS: Sequence[Server | Bare] = (
    Server(
        "older",
        "the older service",
        "Rebuilt from its description: Python's `http.server` with a thread for each request, one model of "
        "sentence-transformers (torch), loaded by the first request, one picture at a time.",
        _legacy,
        _ask_form,
        _embedding,
        requirements=_LEGACY,
    ),
    Server(
        "infinity",
        "infinity (torch)",
        "`infinity_emb v2 --engine torch` with its defaults. It takes no forms, so it is sent the same bytes in "
        "base64, in JSON, which is a third more to read.",
        _infinity,
        _ask_infinity,
        _openai_embedding,
        requirements=_INFINITY,
    ),
    Server(
        "litserve",
        "LitServe, ONNX Runtime fp32",
        "A page of Python with Pillow. It runs our fp32 graph, so it gets our export for nothing; its batching is the "
        "best of those that we tried.",
        _litserve(_TUNED),
        _ask_form,
        _embedding,
        requirements=_LITSERVE,
    ),
    Server(
        "litserve-draft",
        "LitServe, with Pillow's `draft`",
        "The same, with one line more: large JPEGs are decoded at a scale, as Twinlens does.",
        _litserve(_TUNED, draft=True),
        _ask_form,
        _embedding,
        _LARGE_LOADS,
        requirements=_LITSERVE,
    ),
    Server(
        "twinlens-fp32",
        "Twinlens fp32",
        "The server as `make serve` starts it, but with this model and without its cache of vectors.",
        _twinlens("fp32", serving.UNCACHED),
        _ask_form,
        _embedding,
    ),
    Server(
        "twinlens-int8",
        "Twinlens int8",
        "The same with the int8 graph.",
        _twinlens("int8", serving.UNCACHED),
        _ask_form,
        _embedding,
    ),
    Server(
        "twinlens-cached",
        "Twinlens int8, cached",
        "The same with its cache of vectors, as it comes, asked for one picture again and again.",
        _twinlens("int8", ()),
        _ask_form,
        _embedding,
        (REPEATED,),
    ),
    Bare(
        "bare-fp32",
        "bare ONNX Runtime fp32",
        "No server: one session with ONNX Runtime's defaults in the measuring process, on pixels that are ready, in "
        "batches of as many as there are callers. No decoding, no resizing, no HTTP.",
        "fp32",
        _SMALL_LOADS,
    ),
    Bare("bare-int8", "bare ONNX Runtime int8", "The same with the int8 graph.", "int8", _SMALL_LOADS),
)


def tried() -> list[Server]:
    """LitServe in each setting that we tried, to choose the best by measuring."""
    return [
        Server(
            f"litserve-{one.workers}x{one.threads}-batch{one.batch}-window{one.window * 1000:g}ms",
            f"LitServe, {one.workers} x {one.threads} threads, batch {one.batch}, window {one.window * 1000:g} ms",
            "",
            _litserve(one),
            _ask_form,
            _embedding,
            _SMALL_LOADS,
            _LITSERVE,
        )
        for one in _TRIED
    ]
