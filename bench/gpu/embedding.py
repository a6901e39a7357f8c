"""Bytes to vectors in this process: the product's own decoding threads, batcher and runners. Needs the tokenizers."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections.abc import AsyncIterator, Sequence
from time import perf_counter, process_time
from typing import Any

from bench import pictures
from bench.gpu.setting import RUNNERS, Setting
from bench.gpu.tower import tower
from bench.gpu.watch import GpuWatch
from server.batching.batcher import Batcher
from server.batching.embedder import Embedder
from server.inference.encoder import Encoder, Serving

_WITHIN = 60.0
_WARM_UP = 0.5
_MAX_PIXELS = pictures.SIZE[0] * pictures.SIZE[1]


def measure(setting: Setting, gpu: GpuWatch) -> dict[str, Any]:
    """Pictures a second from JPEGs to vectors. Raises BadSetting, ArtifactInvalid."""
    callers = 2 * RUNNERS * setting.most if setting.on_gpu else setting.callers
    sent = pictures.distinct(callers * 2)
    serving = Serving(gpu=setting.gpu, most=setting.most, cache=setting.cache, tensorrt=setting.tensorrt)
    with tower(setting.artifact, setting.precisions[0], setting.device, serving) as encoder:
        return asyncio.run(_run(encoder, sent, callers, setting.seconds, gpu))


@contextlib.asynccontextmanager
async def open_embedder(encoder: Encoder, max_pixels: int) -> AsyncIterator[Embedder]:
    """What turns bytes into vectors with this tower, on a decoding thread for each core, as the product does."""
    async with Batcher(encoder.runners, encoder.alone) as batcher:
        threads = len(os.sched_getaffinity(0))
        embedder = Embedder(batcher, encoder.artifact.spec, max_pixels=max_pixels, threads=threads)
        try:
            yield embedder
        finally:
            await asyncio.to_thread(embedder.close)


async def _run(encoder: Encoder, sent: Sequence[bytes], callers: int, seconds: float, gpu: GpuWatch) -> dict[str, Any]:
    """Callers that take turns at `sent`, two pictures each; what they got in the measured seconds."""
    done = 0

    async def call(first: int) -> None:
        nonlocal done
        for turn in itertools.count():
            if perf_counter() >= end:
                return
            await embedder.embed(sent[first + callers * (turn % 2)], within=_WITHIN)
            if perf_counter() >= begin:
                done += 1

    async with open_embedder(encoder, _MAX_PIXELS) as embedder:
        begin = perf_counter() + min(_WARM_UP, seconds)
        end = begin + seconds
        async with asyncio.TaskGroup() as group:
            for first in range(callers):
                group.create_task(call(first))
            await asyncio.sleep(begin - perf_counter())
            busy = process_time()
        busy = process_time() - busy
    took = perf_counter() - begin
    return {
        "picturesPerSecond": round(done / took, 1),
        "callers": callers,
        "decodeThreads": len(os.sched_getaffinity(0)),
        "coresBusy": round(busy / took, 2),
        "gpu": gpu.between(begin, begin + took),
    }
