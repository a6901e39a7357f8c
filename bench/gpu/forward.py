"""The model alone: ready pixels through the product's runners, copies to the GPU and back included."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from bench.gpu.setting import RUNNERS, Setting
from bench.gpu.watch import GpuWatch, shown
from server.inference.cuda import BoundRunner, runners
from server.inference.runner import Runner

Row = dict[str, Any]


def measure(setting: Setting, gpu: GpuWatch, progress: Callable[[str], None]) -> list[Row]:
    """Pictures a second of one runner, and of both side by side, for each precision and batch size.

    `progress` is called with a line for each row. Raises CudaUnusable, BadSetting.
    """
    size = setting.artifact.spec.size
    pixels = list(np.random.default_rng(0).integers(0, 256, (setting.most, size, size, 3), np.uint8))
    rows: list[Row] = []
    for precision in setting.precisions:
        for wanted in (True, False) if setting.on_gpu and not setting.tensorrt else (False,):
            with bound(setting, precision, graphs=wanted) as made:
                graphs = all(getattr(runner, "graphs", False) for runner in made)
                if graphs != wanted:
                    progress(f"  {precision}: no CUDA graphs could be captured; the log says why")
                    continue
                for batch, count in itertools.product(setting.batches, sorted({1, len(made)})):
                    began = perf_counter()
                    rate = _rate(made[:count], pixels[:batch], setting.seconds)
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
                    progress(_line(rows[-1]))
    return rows


@contextlib.contextmanager
def bound(setting: Setting, precision: str, *, graphs: bool) -> Iterator[list[Runner]]:
    """Two bound runners of the image tower. Raises CudaUnusable, BadSetting."""
    graph, size = setting.artifact.graph(precision), setting.artifact.spec.size
    made: list[Runner] = []
    try:
        if setting.on_gpu:
            made = runners(
                graph,
                most=setting.most,
                gpu=setting.gpu,
                count=RUNNERS,
                precision=precision,
                shape=(size, size, 3),
                graphs=graphs,
                engines=setting.cache / "tensorrt" if setting.tensorrt else None,
            )
        else:
            made = [BoundRunner(_on_cpu(graph), setting.most) for _ in range(RUNNERS)]
        yield made
    finally:
        for runner in made:
            runner.close()


def _on_cpu(graph: Path) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = max(1, len(os.sched_getaffinity(0)) // RUNNERS)
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])


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


def _line(row: Row) -> str:
    graphs = "CUDA graphs" if row["graphs"] else "no graphs"
    return (
        f"  {row['precision']}, {graphs}, batch {row['batch']:>3}, {row['runners']} at once: "
        f"{row['picturesPerSecond']:>9,.1f} pictures/s, {row['millisecondsPerBatch']:.2f} ms a batch{shown(row['gpu'])}"
    )
