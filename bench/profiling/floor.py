"""The model alone, in this process: what a picture costs at least."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter, process_time

import numpy as np
from numpy.typing import NDArray

from server.inference.runner import Runner

BATCHES = (1, 4, 8, 16)


@dataclass(frozen=True, slots=True)
class Bare:
    """One round of the model alone: pictures a second, and what one costs."""

    pictures_per_second: float
    core_milliseconds: float


def run_bare(runs: Sequence[Runner], pixels: NDArray[np.uint8], batch: int, seconds: float) -> Bare:
    """Encode uint8[N, S, S, 3] in batches for that long, each of `runs` in a thread of its own."""
    batches = [list(pixels[start : start + batch]) for start in range(0, len(pixels) - batch + 1, batch)]

    def one(run: Runner) -> tuple[int, float]:
        started, turn = perf_counter(), 0
        while perf_counter() - started < seconds:
            run(batches[turn % len(batches)])
            turn += 1
        return turn * batch, perf_counter() - started

    with ThreadPoolExecutor(len(runs)) as threads:
        used = process_time()
        done = list(threads.map(one, runs))
        used = process_time() - used
    return Bare(sum(count / took for count, took in done), used / sum(count for count, _ in done) * 1000)


def best_batch(runs: Sequence[Runner], pixels: NDArray[np.uint8], seconds: float) -> int:
    """The batch with which a picture costs least."""
    costs = {batch: run_bare(runs, pixels, batch, seconds).core_milliseconds for batch in BATCHES}
    return min(costs, key=lambda batch: costs[batch])
