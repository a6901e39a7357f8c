"""Waiting pictures, or waiting texts, to batches. There is no timer: a runner that is free encodes whatever waits.

An idle server answers a lone picture at once, with all its cores. Under load several narrow runners work side by side,
and their batches grow by themselves. Invariants:

- each runner runs one batch at a time, in a thread of its own;
- the wide runner, which uses all cores, runs alone, and only for an entry that came alone;
- waiting entries are divided among the free runners: of eight entries, two free runners get four each;
- a batch holds entries of one shape, as they are: nothing is padded, so that no vector depends on its batch;
- the `FairQueue` says which entry is next: it is in the next batch, with others of its shape;
- bulk entries never make an interactive one wait for long: see `_most_bulk_beside`;
- an entry whose caller has left (its future is done) is dropped before a batch is made;
- every entry in a batch gets exactly one answer: a vector or an error.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Condition, Thread
from time import perf_counter
from typing import Any

from numpy.typing import NDArray

from server.artifact.artifact import Vectors
from server.batching import spans
from server.batching.fair_queue import Caller, FairQueue, Lane
from server.batching.priority import give_way
from server.batching.waiting import Waiting, waits
from server.errors import NotReady
from server.inference.runner import Runner
from server.tracing import span

_log = logging.getLogger(__name__)

_ANYBODY = Caller()

# For so long after an interactive entry another one is expected, and bulk runs are kept brief: an entry that comes just
# after a run has begun waits until it ends.
_EXPECTED_SECONDS = 10.0
_BRIEF_SECONDS = 0.01

# How much the latest run counts in the mean of the seconds that a run takes for each of its entries.
_LATEST = 0.2


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
    lane: Lane
    queued_at: float
    answer: asyncio.Future[Encoded]
    loop: asyncio.AbstractEventLoop
    turn: spans.Turn | None = None
    """Where the request that it is for is traced."""


class Batcher:
    """Has runners encode whatever waits.

    A runner encodes a list of N entries of one shape, at most `most`, to float32[N, D]: pictures as uint8[S, S, 3], or
    texts as int64[L]. Each tower has its own batcher, and so its own threads: texts do not wait for pictures.

    Use as an async context manager. When it closes, everything that waits is still answered.
    """

    def __init__(self, runners: Sequence[Runner], alone: Runner | None = None, *, gives_way: bool = False) -> None:
        """`runners` work side by side; `alone` uses all cores, for a single entry while no other waits or runs.

        `gives_way`: run at a lower priority than the threads of other batchers.
        """
        self._gives_way = gives_way
        self._runners = runners
        self._alone = alone
        self._waiting: FairQueue[_Entry] = FairQueue()
        self._condition = Condition()
        self._began: dict[int, float] = {}
        self._alone_runs = False
        self._open = False
        self._interactive_at = float("-inf")
        self._seconds_each = 0.0
        self._threads: list[Thread] = []
        self.failing = False
        """Whether the last run failed, of a single entry: the model may be at fault, or the entry."""
        self.on_batch: Callable[[int, float], None] | None = None
        """Called with the size and the seconds of each batch that ran, in the runner's thread."""

    async def __aenter__(self) -> Batcher:
        self._open = True
        for at, runner in enumerate(self._runners):
            thread = Thread(target=self._work, args=(at, runner), name=f"encode-{at}", daemon=True)
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

    def waits(self) -> Mapping[Lane, Waiting]:
        """What is in no batch yet, by lane."""
        with self._condition:
            return waits(self._waiting, perf_counter())

    def longest_run(self) -> float:
        """Seconds since the oldest of the runs began that have not ended; 0 while none runs."""
        with self._condition:
            return max((perf_counter() - began for began in self._began.values()), default=0.0)

    @property
    def lanes(self) -> Mapping[Lane, Batcher]:
        """The batchers, by the lane of what they are for: this one, for both."""
        return {"interactive": self}

    async def encode(self, given: NDArray[Any], caller: Caller = _ANYBODY) -> Encoded:
        """Wait for the vector of one entry: uint8[S, S, 3] or int64[L].

        Raises EncoderFailed for this entry alone, NotReady when closing. Cancelling withdraws the entry if it is in no
        batch yet.
        """
        loop = asyncio.get_running_loop()
        now = perf_counter()
        entry = _Entry(given, caller.lane, now, loop.create_future(), loop, spans.Turn.begin(now))
        with self._condition:
            if not self._open:
                raise NotReady("The server is shutting down.")
            self._waiting.add(entry, caller)
            if caller.lane == "interactive":
                self._interactive_at = entry.queued_at
            self._condition.notify()
        seconds = None
        try:
            encoded = await entry.answer
            seconds = encoded.encode
        finally:
            if entry.turn is not None:
                entry.turn.end(seconds)
        return encoded

    def _work(self, at: int, own: Runner) -> None:
        """A runner's thread: batch after batch until closing, and then until nothing waits."""
        if self._gives_way:
            give_way()
        while True:
            with self._condition:
                while not (batch := self._next_batch(own)):
                    if not self._open and not len(self._waiting):
                        return
                    self._condition.wait()
                runner = own
                if self._alone is not None and not self._began and len(batch) == 1 and not len(self._waiting):
                    runner, self._alone_runs = self._alone, True
                started = self._began[at] = perf_counter()
            with spans.batch([entry.turn for entry in batch], started):
                self._answer(runner, batch)
            seconds = perf_counter() - started
            with self._condition:
                del self._began[at]
                self._seconds_each += _LATEST * (seconds / len(batch) - self._seconds_each)
                if self._alone_runs:
                    self._alone_runs = False
                    self._condition.notify_all()  # the other runners waited, whatever came meanwhile

    def _next_batch(self, runner: Runner) -> list[_Entry]:
        """This runner's part of the waiting entries; none while the wide runner runs."""
        if self._alone_runs:
            return []
        free = len(self._runners) - len(self._began)
        part = min(runner.most, -(-len(self._waiting) // free))
        first = self._waiting.take()
        while first is not None and first.answer.done():
            first = self._waiting.take()
        if first is None:
            return []
        shape = first.given.shape
        beside = self._waiting.fill(
            part - 1, lambda entry: entry.given.shape == shape, most_bulk=self._most_bulk_beside(first)
        )
        return [first, *(entry for entry in beside if not entry.answer.done())]

    def _most_bulk_beside(self, first: _Entry) -> int | None:
        """How many bulk entries may go with this one, beside those whose turn it is; None for any number.

        While interactive entries come, none go with an interactive one, which would wait for their part of the run; and
        a run of bulk entries is as brief as a single entry, or 10 ms, where more than one fits in that.
        """
        if perf_counter() - self._interactive_at > _EXPECTED_SECONDS:
            return None
        if first.lane == "interactive":
            return 0
        return int(_BRIEF_SECONDS / self._seconds_each) - 1 if 0 < self._seconds_each < _BRIEF_SECONDS else 0

    def _answer(self, runner: Runner, batch: Sequence[_Entry]) -> None:
        """In the runner's thread: run a batch and answer each of its entries. Never raises."""
        started = perf_counter()
        try:
            with span("encode"):
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
                self.failing = True
                batch[0].loop.call_soon_threadsafe(_fail, batch[0], exc)
        else:
            self.failing = False
            self._report(len(batch), seconds)
            batch[0].loop.call_soon_threadsafe(_deliver, batch, answers)

    def _report(self, size: int, seconds: float) -> None:
        try:
            if self.on_batch is not None:
                self.on_batch(size, seconds)
        except Exception:  # counting must not cost a caller the answer
            _log.exception("A batch could not be counted.")


class Lanes:
    """Two batchers, one for each lane, where the runners of bulk work can give way to the others."""

    def __init__(self, interactive: Batcher, bulk: Batcher) -> None:
        self.lanes: Mapping[Lane, Batcher] = {"interactive": interactive, "bulk": bulk}

    async def encode(self, given: NDArray[Any], caller: Caller = _ANYBODY) -> Encoded:
        """As `Batcher.encode`."""
        return await self.lanes[caller.lane].encode(given, caller)

    def waits(self) -> Mapping[Lane, Waiting]:
        """As `Batcher.waits`: what waits for each of the two, in its own lane."""
        return {lane: batcher.waits()[lane] for lane, batcher in self.lanes.items()}

    def longest_run(self) -> float:
        """As `Batcher.longest_run`, of both."""
        return max(batcher.longest_run() for batcher in self.lanes.values())


def _deliver(batch: Sequence[_Entry], answers: Sequence[Encoded]) -> None:
    for entry, answer in zip(batch, answers, strict=True):
        if not entry.answer.done():
            entry.answer.set_result(answer)


def _fail(entry: _Entry, error: Exception) -> None:
    if not entry.answer.done():
        entry.answer.set_exception(error)
