"""Waiting pictures, or waiting texts, to batches. No timer: whenever the encoder is free it takes what waits.

An idle server answers a lone picture at once; under load the batch grows by itself. Invariants:

- the encoder runs one batch at a time, in the batcher's own thread;
- a batch holds entries of one shape, as they are: nothing is padded, so that no vector depends on its batch-mates;
- the entry that has waited longest is in the next batch, and those of its shape beside it, oldest first;
- an entry whose caller has left (its future is done) is dropped before a batch is made;
- every entry that is taken gets exactly one answer: a vector or an error.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.artifact import Vectors
from server.errors import NotReady

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Encoded:
    """One entry's answer: float32[D] of unit length, and where its time went, in seconds."""

    embedding: Vectors
    queue: float
    encode: float
    batch: int


@dataclass(slots=True)
class _Entry:
    given: NDArray[Any]
    queued_at: float
    answer: asyncio.Future[Encoded]


class Batcher:
    """Runs a tower's `encode` (blocking) over whatever waits, at most `max_batch` at once.

    `encode` takes N entries of one shape, stacked, to float32[N, D]: pictures as uint8[N, S, S, 3], which are all of
    one shape, or texts of one number of tokens as int64[N, L]. Each tower has a batcher, and so a thread, of its own:
    words do not wait for pictures.

    Use as an async context manager. On the way out everything that waits is still answered.
    """

    def __init__(self, encode: Callable[[NDArray[Any]], Vectors], *, max_batch: int = 16) -> None:
        self._encode = encode
        self._max_batch = max_batch
        self._waiting: deque[_Entry] = deque()
        self._wake = asyncio.Event()
        self._closing = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="encode")
        self._runner: asyncio.Task[None] | None = None
        self.on_batch: Callable[[int, float], None] | None = None
        """Called with the size and the seconds of each batch that ran."""

    async def __aenter__(self) -> Batcher:
        self._runner = asyncio.create_task(self._run(), name="batcher")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing = True
        self._wake.set()
        if self._runner is not None:
            await self._runner
        self._thread.shutdown()

    @property
    def waiting(self) -> int:
        """Entries that no batch has taken yet."""
        return len(self._waiting)

    async def encode(self, given: NDArray[Any]) -> Encoded:
        """Wait for the vector of one entry: uint8[S, S, 3] or int64[L].

        Raises EncoderFailed for this entry alone, NotReady when closing. Cancelling the caller withdraws the entry if
        no batch has taken it yet.
        """
        if self._closing or self._runner is None:
            raise NotReady("The server is shutting down.")
        entry = _Entry(given, perf_counter(), asyncio.get_running_loop().create_future())
        self._waiting.append(entry)
        self._wake.set()
        return await entry.answer

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            if batch := self._take():
                await loop.run_in_executor(self._thread, self._answer, loop, batch)
            elif self._closing:
                return
            else:
                self._wake.clear()
                await self._wake.wait()

    def _take(self) -> list[_Entry]:
        batch: list[_Entry] = []
        left: deque[_Entry] = deque()
        for entry in self._waiting:
            if entry.answer.done():
                continue
            if len(batch) < self._max_batch and (not batch or entry.given.shape == batch[0].given.shape):
                batch.append(entry)
            else:
                left.append(entry)
        self._waiting = left
        return batch

    def _answer(self, loop: asyncio.AbstractEventLoop, batch: Sequence[_Entry]) -> None:
        """In the batcher's thread. Never raises: whatever happens, each entry of the batch is answered."""
        started = perf_counter()
        try:
            vectors = self._encode(np.stack([entry.given for entry in batch]))
            seconds = perf_counter() - started
            answers = [
                # A copy, so that keeping one vector does not keep the whole batch.
                Encoded(vector.copy(), started - entry.queued_at, seconds, len(batch))
                for entry, vector in zip(batch, vectors, strict=True)
            ]
            if self.on_batch is not None:
                self.on_batch(len(batch), seconds)
        except Exception as exc:
            if len(batch) > 1:
                _log.warning("A batch of %d failed (%s); they are tried one by one.", len(batch), exc)
                for entry in batch:
                    self._answer(loop, [entry])
            else:
                _log.exception("A picture or a text could not be encoded.", exc_info=exc)
                loop.call_soon_threadsafe(_fail, batch[0], exc)
        else:
            loop.call_soon_threadsafe(_settle, batch, answers)


def _settle(batch: Sequence[_Entry], answers: Sequence[Encoded]) -> None:
    for entry, answer in zip(batch, answers, strict=True):
        if not entry.answer.done():
            entry.answer.set_result(answer)


def _fail(entry: _Entry, error: Exception) -> None:
    if not entry.answer.done():
        entry.answer.set_exception(error)
