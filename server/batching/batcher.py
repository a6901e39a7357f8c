"""Waiting pictures, or waiting texts, to batches. There is no timer: a runner that is free encodes whatever waits.

An idle server answers a lone picture at once, with all its cores. Under load several narrow runners work side by side,
and their batches grow by themselves. Invariants:

- each runner runs one batch at a time, in a thread of its own;
- the wide runner, which uses all cores, runs alone, and only for an entry that came alone;
- waiting entries are divided among the free runners: of eight entries, two free runners get four each;
- a batch holds entries of one shape, as they are: nothing is padded, so that no vector depends on its batch;
- the `FairQueue` says which entry is next: it is in the next batch, with others of its shape;
- an entry whose caller has left (its future is done) is dropped before a batch is made;
- every entry in a batch gets exactly one answer: a vector or an error.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Condition, Thread
from time import perf_counter
from typing import Any

from numpy.typing import NDArray

from server.artifact.artifact import Vectors
from server.batching.fair_queue import Caller, FairQueue
from server.errors import NotReady
from server.inference.runner import Runner

_log = logging.getLogger(__name__)

_ANYBODY = Caller()


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
    loop: asyncio.AbstractEventLoop


class Batcher:
    """Has runners encode whatever waits.

    A runner encodes a list of N entries of one shape, at most `most`, to float32[N, D]: pictures as uint8[S, S, 3], or
    texts as int64[L]. Each tower has its own batcher, and so its own threads: texts do not wait for pictures.

    Use as an async context manager. When it closes, everything that waits is still answered.
    """

    def __init__(self, runners: Sequence[Runner], alone: Runner | None = None) -> None:
        """`runners` work side by side; `alone` uses all cores, for a single entry while no other waits or runs."""
        self._runners = runners
        self._alone = alone
        self._waiting: FairQueue[_Entry] = FairQueue()
        self._condition = Condition()
        self._running = 0
        self._alone_runs = False
        self._open = False
        self._threads: list[Thread] = []
        self.on_batch: Callable[[int, float], None] | None = None
        """Called with the size and the seconds of each batch that ran, in the runner's thread."""

    async def __aenter__(self) -> Batcher:
        self._open = True
        for at, runner in enumerate(self._runners):
            thread = Thread(target=self._work, args=(runner,), name=f"encode-{at}", daemon=True)
            self._threads.append(thread)
            thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        with self._condition:
            self._open = False
            self._condition.notify_all()
        for thread in self._threads:
            await asyncio.to_thread(thread.join)
        # A thread's last answer was handed to the loop before it ended; this lets the loop deliver it.
        await asyncio.sleep(0)

    @property
    def waiting(self) -> int:
        """Entries that are in no batch yet."""
        return len(self._waiting)

    async def encode(self, given: NDArray[Any], caller: Caller = _ANYBODY) -> Encoded:
        """Wait for the vector of one entry: uint8[S, S, 3] or int64[L].

        Raises EncoderFailed for this entry alone, NotReady when closing. Cancelling withdraws the entry if it is in no
        batch yet.
        """
        loop = asyncio.get_running_loop()
        entry = _Entry(given, perf_counter(), loop.create_future(), loop)
        with self._condition:
            if not self._open:
                raise NotReady("The server is shutting down.")
            self._waiting.add(entry, caller)
            self._condition.notify()
        return await entry.answer

    def _work(self, own: Runner) -> None:
        """A runner's thread: batch after batch until closing, and then until nothing waits."""
        while True:
            with self._condition:
                while not (batch := self._next_batch(own)):
                    if not self._open and not len(self._waiting):
                        return
                    self._condition.wait()
                runner = own
                if self._alone is not None and not self._running and len(batch) == 1 and not len(self._waiting):
                    runner, self._alone_runs = self._alone, True
                self._running += 1
            self._answer(runner, batch)
            with self._condition:
                self._running -= 1
                if self._alone_runs:
                    self._alone_runs = False
                    self._condition.notify_all()  # the other runners waited, whatever came meanwhile

    def _next_batch(self, runner: Runner) -> list[_Entry]:
        """This runner's part of the waiting entries; none while the wide runner runs."""
        if self._alone_runs:
            return []
        free = len(self._runners) - self._running
        part = min(runner.most, -(-len(self._waiting) // free))
        first = self._waiting.take()
        while first is not None and first.answer.done():
            first = self._waiting.take()
        if first is None:
            return []
        shape = first.given.shape
        beside = self._waiting.fill(part - 1, lambda entry: entry.given.shape == shape)
        return [first, *(entry for entry in beside if not entry.answer.done())]

    def _answer(self, runner: Runner, batch: Sequence[_Entry]) -> None:
        """In the runner's thread: run a batch and answer each of its entries. Never raises."""
        started = perf_counter()
        try:
            vectors = runner([entry.given for entry in batch])
            seconds = perf_counter() - started
            answers = [
                # A copy, so that keeping one vector does not keep the entire batch.
                Encoded(vector.copy(), started - entry.queued_at, seconds, len(batch))
                for entry, vector in zip(batch, vectors, strict=True)
            ]
        except Exception as exc:
            if len(batch) > 1:
                _log.warning("A batch of %d failed (%s); its entries are tried one by one.", len(batch), exc)
                for entry in batch:
                    if not entry.answer.done():
                        self._answer(runner, [entry])
            else:  # whoever asked for it logs it, with the request that it was for
                batch[0].loop.call_soon_threadsafe(_fail, batch[0], exc)
        else:
            self._report(len(batch), seconds)
            batch[0].loop.call_soon_threadsafe(_deliver, batch, answers)

    def _report(self, size: int, seconds: float) -> None:
        try:
            if self.on_batch is not None:
                self.on_batch(size, seconds)
        except Exception:  # counting must not cost a caller the answer
            _log.exception("A batch could not be counted.")


def _deliver(batch: Sequence[_Entry], answers: Sequence[Encoded]) -> None:
    for entry, answer in zip(batch, answers, strict=True):
        if not entry.answer.done():
            entry.answer.set_result(answer)


def _fail(entry: _Entry, error: Exception) -> None:
    if not entry.answer.done():
        entry.answer.set_exception(error)
