"""python -m bench.gpu (bench/gpu.sh): what a GPU makes of an artifact's image tower.

One after the other, each as far as what is installed allows, and each with what the GPU did meanwhile:

- forward: ready pixels through our runners, in batches of each size, with and without CUDA graphs; copies included;
- embedding: JPEGs of 640 x 480 to vectors in this process, through the product's own pool, batcher and runners;
- HTTP: the product's own /embed-image under granian, without a catalogue, so that no database is needed;
- yardstick: the checkpoint's tower in torch.compile on the same GPU, on pixels that lie on it already.

`--device cpu` runs all of it on the CPU, to try the benchmark itself. No figure of that is a GPU's.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread
from time import perf_counter, process_time, sleep
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from bench import machine, pictures
from bench.closed_loop import Http, request, run_http
from bench.gpu.tower import READY, tower
from bench.serving import UNCACHED, serving
from server.artifact.artifact import Artifact, Device
from server.errors import TwinlensError
from server.inference.cuda import BoundRunner, CudaUnusable, runners
from server.inference.encoder import Serving
from server.inference.runner import Runner

RUNNERS = 2
BATCHES = (1, 2, 4, 8, 16, 32, 64)
PARTS = ("forward", "embedding", "http", "yardstick")

SHARE_OF_TORCH = 0.8
FORWARD = 12_151
"""Pictures a second: published for CLIP ViT-B/32 in fp16 on an RTX 4090."""
OVER_HTTP = 2_500
"""Pictures a second: published for a pipeline on an A100."""


_START = 240.0
_WITHIN = 60.0
_WARM = 0.5


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be measured."""

    artifact: Artifact
    precisions: Sequence[str]
    """The first is that of all but the forward pass."""
    device: Device
    gpu: int
    batches: Sequence[int]
    seconds: float
    callers: int
    workers: Sequence[int]
    generators: int
    tensorrt: bool
    cache: Path
    """For TensorRT's engines and the like."""
    checkpoint: Path | None
    torch_python: str

    @property
    def most(self) -> int:
        return max(self.batches)

    @property
    def on_gpu(self) -> bool:
        return self.device == "cuda"


# --- the model alone -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def bound(asked: Asked, precision: str, *, graphs: bool) -> Iterator[list[Runner]]:
    """Two bound runners of the image tower. Raises CudaUnusable, BadSetting."""
    graph, size = asked.artifact.graph(precision), asked.artifact.spec.size
    made: list[Runner] = []
    try:
        if asked.on_gpu:
            made = runners(
                graph,
                most=asked.most,
                gpu=asked.gpu,
                count=RUNNERS,
                precision=precision,
                shape=(size, size, 3),
                graphs=graphs,
                engines=asked.cache / "tensorrt" if asked.tensorrt else None,
            )
        else:
            made = [BoundRunner(_on_cpu(graph), asked.most) for _ in range(RUNNERS)]
        yield made
    finally:
        for runner in made:
            runner.close()


def _on_cpu(graph: Path) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = max(1, len(os.sched_getaffinity(0)) // RUNNERS)
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])


def forward(asked: Asked, gpu: GpuWatch, tell: Callable[[str], None]) -> list[dict[str, Any]]:
    """Pictures a second of one runner, and of both side by side, for each precision and batch."""
    size = asked.artifact.spec.size
    pixels = list(np.random.default_rng(0).integers(0, 256, (asked.most, size, size, 3), np.uint8))
    rows: list[dict[str, Any]] = []
    for precision in asked.precisions:
        for wanted in (True, False) if asked.on_gpu and not asked.tensorrt else (False,):
            with bound(asked, precision, graphs=wanted) as made:
                graphs = all(getattr(runner, "graphs", False) for runner in made)
                if graphs != wanted:
                    tell(f"  {precision}: no CUDA graphs could be captured; the log says why")
                    continue
                for batch, count in itertools.product(asked.batches, sorted({1, len(made)})):
                    began = perf_counter()
                    rate = _rate(made[:count], pixels[:batch], asked.seconds)
                    rows.append(
                        {
                            "precision": precision,
                            "graphs": graphs,
                            "batch": batch,
                            "runners": count,
                            "picturesPerSecond": round(rate, 1),
                            "millisecondsPerBatch": round(1000 * batch * count / rate, 3),
                            "gpu": gpu.between(began, perf_counter()),
                        }
                    )
                    tell(_row(rows[-1]))
    return rows


def _row(row: dict[str, Any]) -> str:
    graphs = "CUDA graphs" if row["graphs"] else "no graphs"
    return (
        f"  {row['precision']}, {graphs}, batch {row['batch']:>3}, {row['runners']} at once: "
        f"{row['picturesPerSecond']:>9,.1f} pictures/s, {row['millisecondsPerBatch']:.2f} ms a batch{_busy(row['gpu'])}"
    )


def _rate(runners: Sequence[Runner], entries: Sequence[NDArray[np.uint8]], seconds: float) -> float:
    """Pictures a second of all runners together, each in a thread of its own."""

    def run(runner: Runner) -> int:
        runs = 0
        while perf_counter() < end:
            runner(entries)
            runs += 1
        return runs

    for runner in runners:
        runner(entries)
    with ThreadPoolExecutor(len(runners)) as threads:
        started = perf_counter()
        end = started + seconds
        runs = sum(threads.map(run, runners))
        return runs * len(entries) / (perf_counter() - started)


# --- bytes to vectors ------------------------------------------------------------------------------------------------


def embedding(asked: Asked, gpu: GpuWatch) -> dict[str, Any]:
    """Pictures a second from JPEGs to vectors in this process. Raises ImportError where something is not installed."""
    from server.batching.batcher import Batcher
    from server.batching.embedder import Embedder  # it needs the tokenizers, too

    cores = len(os.sched_getaffinity(0))
    callers = 2 * RUNNERS * asked.most if asked.on_gpu else asked.callers
    sent = distinct(callers * 2)

    async def run() -> tuple[float, float, float, float]:
        done = 0

        async def call(first: int) -> None:
            nonlocal done
            for turn in itertools.count():
                if perf_counter() >= end:
                    return
                await embedder.embed(sent[first + callers * (turn % 2)], within=_WITHIN)
                if perf_counter() >= begin:
                    done += 1

        async with Batcher(encoder.runners, encoder.alone) as batcher:
            embedder = Embedder(batcher, asked.artifact.spec, max_pixels=10**8, threads=cores)
            begin = perf_counter() + min(_WARM, asked.seconds)
            end = begin + asked.seconds
            try:
                async with asyncio.TaskGroup() as group:
                    for first in range(callers):
                        group.create_task(call(first))
                    await asyncio.sleep(begin - perf_counter())
                    busy = process_time()
                busy = process_time() - busy
            finally:
                await asyncio.to_thread(embedder.close)
        return done, perf_counter() - begin, busy, begin

    opened = Serving(gpu=asked.gpu, most=asked.most, cache=asked.cache, tensorrt=asked.tensorrt)
    with tower(asked.artifact, asked.precisions[0], asked.device, opened) as encoder:
        done, seconds, busy, begin = asyncio.run(run())
    return {
        "picturesPerSecond": round(done / seconds, 1),
        "callers": callers,
        "decodeThreads": cores,
        "coresBusy": round(busy / seconds, 2),
        "gpu": gpu.between(begin, begin + seconds),
    }


def distinct(count: int) -> list[bytes]:
    """So many JPEGs, no two of the same bytes: equal ones would be embedded once. What follows the end is ignored."""
    found = [one.data for one in pictures.photographs(min(count, 64))]
    return [found[number % len(found)] + number.to_bytes(4) for number in range(count)]


# --- over HTTP -------------------------------------------------------------------------------------------------------


def over_http(asked: Asked, workers: int, gpu: GpuWatch) -> dict[str, Any]:
    """Pictures a second of /embed-image on loopback. Raises RuntimeError when the server does not start."""
    callers = max(asked.callers, asked.generators)
    each = callers // asked.generators
    bodies = distinct(2 * each * asked.generators)
    given = {"gpu": asked.gpu, "most": asked.most, "workers": workers, "tensorrt": asked.tensorrt}
    with serving(
        asked.artifact.folder,
        asked.precisions[0],
        asked.device,
        arguments=UNCACHED,
        environment={"TWINLENS_TEST_GPU": json.dumps(given | {"cache": str(asked.cache)})},
        program=(sys.executable, "-m", "bench.gpu.app"),
    ) as server:
        shares = [
            [
                request(server.port, "/embed-image", pictures.form(body), headers={"Content-Type": pictures.FORM_TYPE})
                for body in bodies[number :: asked.generators]
            ]
            for number in range(asked.generators)
        ]
        deadline = perf_counter() + _START
        while (ready := server.log().count(READY)) < workers:  # the first to listen answers for all
            if perf_counter() > deadline:
                raise RuntimeError(f"{ready} of {workers} workers became ready within {_START:g} s")
            sleep(0.1)
        busy = server.cpu_seconds()
        began = perf_counter()
        rounds = _rounds(server.port, shares, asked.seconds, each)
        ended = perf_counter()
        busy = server.cpu_seconds() - busy
    return {
        "workers": workers,
        "callers": each * asked.generators,
        "picturesPerSecond": round(sum(one.pictures_per_second for one in rounds), 1),
        "p50": round(float(np.mean([one.p50 for one in rounds])), 2),
        "p99": round(max(one.p99 for one in rounds), 2),
        "generators": asked.generators,
        "generatorShareOfCores": round(sum(one.generator_cpu for one in rounds), 3),
        "serverCoresBusy": round(busy / (ended - began), 2),
        "gpu": gpu.between(began, ended),
    }


def _rounds(port: int, shares: Sequence[Sequence[bytes]], seconds: float, callers: int) -> list[Http]:
    if len(shares) == 1:
        return [_round(port, shares[0], seconds, callers)]
    with ProcessPoolExecutor(len(shares), multiprocessing.get_context("spawn")) as processes:
        asked = [processes.submit(_round, port, share, seconds, callers) for share in shares]
        return [one.result() for one in asked]


def _round(port: int, requests: Sequence[bytes], seconds: float, callers: int) -> Http:
    http, _ = asyncio.run(run_http(port, requests, seconds, callers))
    return http


# --- the yardstick ---------------------------------------------------------------------------------------------------


def yardstick(asked: Asked) -> list[dict[str, Any]]:
    """Pictures a second of torch.compile for each batch. Raises RuntimeError when it does not run."""
    command = [asked.torch_python, "-m", "bench.gpu.torch_tower", "--checkpoint", str(asked.checkpoint)]
    command += ["--batches", ",".join(map(str, asked.batches)), "--seconds", str(asked.seconds)]
    command += ["--device", f"cuda:{asked.gpu}" if asked.on_gpu else "cpu"]
    done = subprocess.run(command, cwd=pictures.ROOT, capture_output=True, text=True, check=False)  # noqa: S603 - ours
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["it said nothing"])[-1])
    rows: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return rows


# --- the GPU meanwhile -----------------------------------------------------------------------------------------------


class GpuWatch:
    """What nvidia-smi says of one GPU five times a second, for as long as the block. Nothing, where there is none."""

    def __init__(self, gpu: int | None) -> None:
        self._gpu = gpu
        self._seen: list[tuple[float, float, float]] = []
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> GpuWatch:
        if self._gpu is not None:
            query = ["--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits", "--loop-ms=200"]
            with contextlib.suppress(OSError):
                self._process = subprocess.Popen(  # noqa: S603 - the driver's own
                    ["nvidia-smi", f"--id={self._gpu}", *query],  # noqa: S607
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    text=True,
                )
                Thread(target=self._read, args=(self._process,), daemon=True).start()
        return self

    def _read(self, process: subprocess.Popen[str]) -> None:
        for line in process.stdout or ():
            with contextlib.suppress(ValueError):  # `[N/A]`
                busy, memory = map(float, line.split(","))
                self._seen.append((perf_counter(), busy, memory))

    def between(self, began: float, ended: float) -> dict[str, float] | None:
        """Mean utilisation in per cent, and most memory in MiB; None where nothing was seen."""
        seen = [(busy, memory) for at, busy, memory in self._seen if began <= at <= ended]
        if not seen:
            return None
        return {
            "utilisation": round(sum(busy for busy, _ in seen) / len(seen), 1),
            "memoryMiB": max(memory for _, memory in seen),
        }

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()


def _busy(gpu: dict[str, float] | None) -> str:
    return "" if gpu is None else f", GPU {gpu['utilisation']:.0f} %, {gpu['memoryMiB']:,.0f} MiB"


def about_gpu(gpu: int) -> str | None:
    """Name, driver and memory of a GPU, as nvidia-smi has them."""
    command = ["nvidia-smi", f"--id={gpu}", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - the driver's own
    except OSError:
        return None
    return done.stdout.strip() or None


# --- the aims --------------------------------------------------------------------------------------------------------


def aims(report: dict[str, Any], *, on_gpu: bool) -> list[dict[str, Any]]:
    """What was aimed at on an H100, what was found, and `met`, `missed` or `not measured`."""

    def best(rows: Sequence[dict[str, Any]] | None) -> float | None:
        return max((row["picturesPerSecond"] for row in rows), default=None) if rows else None

    ours = best([row for row in report.get("forward") or [] if row["precision"] == "fp16"])
    torch, http = best(report.get("yardstick")), best(report.get("http"))
    share = ours / torch if ours and torch else None

    def aim(about: str, least: float, found: float | None) -> dict[str, Any]:
        if not on_gpu or found is None:
            return {"about": about, "aim": least, "found": None, "verdict": "not measured"}
        return {
            "about": about,
            "aim": least,
            "found": round(found, 3),
            "verdict": "met" if found >= least else "missed",
        }

    return [
        aim("forward in fp16, as a share of torch.compile's", SHARE_OF_TORCH, share),
        aim("forward in fp16, pictures/s", FORWARD, ours),
        aim("over HTTP, pictures/s", OVER_HTTP, http),
    ]


# --- the command -----------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write down; the exit code is 2 when it could not begin."""
    parser = argparse.ArgumentParser("python -m bench.gpu", description=(__doc__ or "").split("\n\n")[0])
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--model", type=Path, default=Path("models/starter"), help="artifact folder (models/starter)")
    parser.add_argument("--precisions", help="comma-separated (fp16 and fp32, of these what the artifact has)")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"], help="cpu tries the benchmark itself")
    parser.add_argument("--gpu", type=int, default=0, help="which GPU; HTTP uses all that are visible (0)")
    parser.add_argument("--batches", type=_counts, default=BATCHES, help="batch sizes (1,2,4,8,16,32,64)")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of each measurement (2)")
    parser.add_argument("--callers", type=int, default=256, help="callers over HTTP at once (256)")
    parser.add_argument("--workers", type=_counts, help="worker processes over HTTP, to try in turn (1,2,4)")
    parser.add_argument("--generators", type=int, default=max(1, cores // 8), help="load generators (a core in eight)")
    parser.add_argument("--tensorrt", action="store_true", help="with TensorRT instead of CUDA graphs")
    parser.add_argument(
        "--cache", type=Path, help="folder for what may be kept, as TensorRT's engines (a temporary one)"
    )
    parser.add_argument("--checkpoint", type=Path, help="the artifact's checkpoint, for the yardstick")
    parser.add_argument(
        "--torch-python", default=sys.executable, help="a Python with torch and transformers (this one)"
    )
    parser.add_argument("--only", help=f"comma-separated, of {', '.join(PARTS)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything here as well")
    given = parser.parse_args(arguments)
    parts = (given.only or ",".join(PARTS)).split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"--only takes {', '.join(PARTS)}, not {', '.join(sorted(unknown))}")
    try:
        artifact = Artifact.read(given.model)
        with tempfile.TemporaryDirectory(prefix="twinlens-bench-", ignore_cleanup_errors=True) as folder:
            asked = Asked(
                artifact,
                _precisions(artifact, given.precisions),
                given.device,
                given.gpu,
                given.batches,
                given.seconds,
                given.callers,
                given.workers or ((1, 2, 4) if given.device == "cuda" else (1,)),
                given.generators,
                given.tensorrt,
                given.cache or Path(folder),
                given.checkpoint,
                given.torch_python,
            )
            report = measure(asked, parts)
    except (TwinlensError, CudaUnusable) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    if given.json is not None:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


def _counts(text: str) -> tuple[int, ...]:
    return tuple(sorted({int(one) for one in text.split(",") if int(one) > 0}))


def _precisions(artifact: Artifact, given: str | None) -> list[str]:
    """Raises ArtifactInvalid for one that the artifact lacks."""
    if given is None:
        known = artifact.manifest.precisions
        return [name for name in ("fp16", "fp32") if name in known] or list(known)
    return [precision for precision in given.split(",") if artifact.variant(precision)]


def measure(asked: Asked, parts: Sequence[str]) -> dict[str, Any]:
    """Everything that was asked for and can be had, told as it comes. Raises CudaUnusable, TwinlensError's kinds."""
    about = about_gpu(asked.gpu) if asked.on_gpu else None
    artifact, precision = asked.artifact, asked.precisions[0]
    missing: dict[str, str] = {}
    report: dict[str, Any] = {
        "machine": machine.describe() | ({"gpu": about} if about else {}),
        "command": ["python", "-m", "bench.gpu", *sys.argv[1:]],
        "artifact": {
            "name": artifact.manifest.name,
            "model": artifact.manifest.model,
            "precision": precision,
            "device": f"cuda:{asked.gpu}" if asked.on_gpu else "cpu",
            "space": artifact.space(precision).id,
        },
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "tensorrt": asked.tensorrt,
        "missing": missing,
    }

    def tell(line: str) -> None:
        print(line, flush=True)

    tell(machine.sentence() + (f"; {about}" if about else ""))
    tell(f"{artifact.manifest.model} ({', '.join(asked.precisions)})")
    if not asked.on_gpu:
        tell(_NOT_A_GPU)
    with GpuWatch(asked.gpu if asked.on_gpu else None) as gpu:
        if "forward" in parts:
            tell("forward, pixels to vectors, copies included:")
            report["forward"] = forward(asked, gpu, tell)
        if "embedding" in parts:
            try:
                row = report["embedding"] = embedding(asked, gpu)
                tell(
                    f"embedding, JPEGs to vectors ({precision}): {row['picturesPerSecond']:,.1f} pictures/s, "
                    f"{row['coresBusy']:.1f} cores busy{_busy(row['gpu'])}"
                )
            except ImportError as exc:
                missing["embedding"] = f"{exc.name} is not installed"
        if "http" in parts:
            with _noting(missing, "http"):
                import bench.gpu.app  # noqa: F401 - whether it can be had

                report["http"] = []
                for workers in asked.workers:
                    row = over_http(asked, workers, gpu)
                    report["http"].append(row)
                    tell(
                        f"HTTP, /embed-image ({precision}), {workers} workers, {row['callers']} callers: "
                        f"{row['picturesPerSecond']:,.1f} pictures/s, p50 {row['p50']:.0f}, p99 {row['p99']:.0f} ms, "
                        f"{row['serverCoresBusy']:.1f} cores busy{_busy(row['gpu'])}"
                    )
        if "yardstick" in parts:
            with _noting(missing, "yardstick"):
                if asked.checkpoint is None:
                    raise RuntimeError("no --checkpoint was given")
                report["yardstick"] = yardstick(asked)
                for row in report["yardstick"]:
                    rate = f"{row['picturesPerSecond']:>9,.1f} pictures/s"
                    tell(f"yardstick, {row['how']}, batch {row['batch']:>3}: {rate}")
    for part, why in missing.items():
        tell(f"{part} was not measured: {why}")
    report["aims"] = aims(report, on_gpu=asked.on_gpu)
    tell("aims, on an H100:")
    for aim in report["aims"]:
        found = "" if aim["found"] is None else f"{aim['found']:,} - "
        tell(f"  {aim['about']}, at least {aim['aim']:,}: {found}{aim['verdict']}")
    if not asked.on_gpu:
        tell(_NOT_A_GPU)
    return report


_NOT_A_GPU = "*** This runs on the CPU, to try the benchmark. These are NOT figures of a GPU. ***"


@contextlib.contextmanager
def _noting(missing: dict[str, str], part: str) -> Iterator[None]:
    """What keeps a part from being measured is noted, and the others go on."""
    try:
        yield
    except ImportError as exc:
        missing[part] = f"{exc.name} is not installed"
    except RuntimeError as exc:
        missing[part] = str(exc)
