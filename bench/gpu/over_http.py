"""Over HTTP: the product's own /embed-image under granian, asked by callers in processes of their own."""

from __future__ import annotations

import asyncio
import multiprocessing
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from time import perf_counter, sleep
from typing import Any

import msgspec
import numpy as np

from bench import pictures
from bench.closed_loop import Http, request, run_http
from bench.gpu.app import READY
from bench.gpu.setting import WORKER_VARIABLE, Setting, WorkerSetting
from bench.gpu.watch import GpuWatch
from bench.serving import UNCACHED, Serving, serving

_START = 240.0


def measure(setting: Setting, workers: int, gpu: GpuWatch) -> dict[str, Any]:
    """Pictures a second of /embed-image on loopback. Raises RuntimeError when the server does not start."""
    callers = max(setting.callers, setting.generators)
    each = callers // setting.generators
    bodies = pictures.distinct(2 * each * setting.generators)
    given = WorkerSetting(setting.gpu, setting.most, workers, setting.tensorrt, str(setting.cache))
    with serving(
        setting.artifact.folder,
        setting.precisions[0],
        setting.device,
        arguments=UNCACHED,
        environment={WORKER_VARIABLE: msgspec.json.encode(given).decode()},
        program=(sys.executable, "-m", "bench.gpu.app"),
    ) as server:
        shares = [
            [
                request(server.port, "/embed-image", pictures.form(body), headers={"Content-Type": pictures.FORM_TYPE})
                for body in bodies[number :: setting.generators]
            ]
            for number in range(setting.generators)
        ]
        _wait_for_all(server, workers)
        busy = server.cpu_seconds()
        began = perf_counter()
        rounds = _rounds(server.port, shares, setting.seconds, each)
        ended = perf_counter()
        busy = server.cpu_seconds() - busy
    return {
        "workers": workers,
        "callers": each * setting.generators,
        "picturesPerSecond": round(sum(one.pictures_per_second for one in rounds), 1),
        "p50": round(float(np.mean([one.p50 for one in rounds])), 2),
        "p99": round(max(one.p99 for one in rounds), 2),
        "generators": setting.generators,
        "generatorShareOfCores": round(sum(one.generator_cpu for one in rounds), 3),
        "serverCoresBusy": round(busy / (ended - began), 2),
        "gpu": gpu.between(began, ended),
    }


def _wait_for_all(server: Serving, workers: int) -> None:
    """The first worker that listens answers for all: so each logs when it is ready. Raises RuntimeError."""
    deadline = perf_counter() + _START
    while (ready := server.log().count(READY)) < workers:
        if perf_counter() > deadline:
            raise RuntimeError(f"{ready} of {workers} workers became ready within {_START:g} s")
        sleep(0.1)


def _rounds(port: int, shares: Sequence[Sequence[bytes]], seconds: float, callers: int) -> list[Http]:
    if len(shares) == 1:
        return [_round(port, shares[0], seconds, callers)]
    with ProcessPoolExecutor(len(shares), multiprocessing.get_context("spawn")) as processes:
        asked = [processes.submit(_round, port, share, seconds, callers) for share in shares]
        return [one.result() for one in asked]


def _round(port: int, requests: Sequence[bytes], seconds: float, callers: int) -> Http:
    http, _ = asyncio.run(run_http(port, requests, seconds, callers))
    return http
