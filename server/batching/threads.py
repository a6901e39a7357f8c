"""Threads for blocking work beside the model's: decoding pictures, tokenizing texts. Bounded, and fair.

A pool of the standard library runs jobs in the order in which they came, so that one call with 256 pictures would delay
every caller behind it. Here jobs wait in a `FairQueue`, and a job whose caller has left is never begun.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextvars import Context, copy_context
from dataclasses import dataclass
from threading import Condition, Thread
from time import perf_counter
from typing import Any, TypeVar

from server.batching.fair_queue import Caller, FairQueue, Lane
from server.batching.priority import give_way
from server.batching.waiting import Waiting, waits
from server.errors import NotReady
from server.tracing import record

Made = TypeVar("Made")


@dataclass(frozen=True, slots=True)
class _Job:
    work: Callable[[], Any]
    answer: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop
    queued_at: float
    context: Context
    """Of whoever asked for it: the work runs within."""


class Pool:
    """So many threads. When it closes, every job that waits is still done."""

    def __init__(self, threads: int, *, name: str, gives_way: bool = False) -> None:
        """`gives_way`: to every thread of ordinary priority, as bulk work does to searches."""
        self._name = name
        self._gives_way = gives_way
        self._waiting: FairQueue[_Job] = FairQueue()
        self._condition = Condition()
        self._closing = False
        self._threads = [Thread(target=self._run, name=f"{name}-{at}", daemon=True) for at in range(threads)]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Jobs that no thread has begun yet."""
        return len(self._waiting)

    def waits(self) -> Mapping[Lane, Waiting]:
        """What no thread has begun yet, by lane."""
        with self._condition:
            return waits(self._waiting, perf_counter())

    async def run(self, work: Callable[[], Made], caller: Caller) -> Made:
        """Run `work` in one of the threads: what it returns or raises. Cancelling withdraws it if it has not begun.

        Raises NotReady when closing.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Made] = loop.create_future()
        with self._condition:
            if self._closing:
                raise NotReady("The server is shutting down.")
            self._waiting.add(_Job(work, answer, loop, perf_counter(), copy_context()), caller)
            self._condition.notify()
        return await answer

    def close(self) -> None:
        with self._condition:
            self._closing = True
            self._condition.notify_all()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        if self._gives_way:
            give_way()
        while (job := self._next()) is not None:
            try:
                made = job.context.run(self._begin, job)
            except BaseException as exc:  # whatever it is, the caller must see it
                job.loop.call_soon_threadsafe(_deliver, job.answer, None, exc)
            else:
                job.loop.call_soon_threadsafe(_deliver, job.answer, made, None)
                del made
            del job  # while this thread waits, it must not keep a picture in memory

    def _begin(self, job: _Job) -> Any:
        record("wait", job.queued_at, attributes={"twinlens.pool": self._name})
        return job.work()

    def _next(self) -> _Job | None:
        """The next job whose caller is still there; waits for one. None when closing and nothing waits."""
        with self._condition:
            while True:
                while (job := self._waiting.take()) is not None:
                    if not job.answer.done():
                        return job
                if self._closing:
                    return None
                self._condition.wait()


def _deliver(answer: asyncio.Future[Any], made: Any, error: BaseException | None) -> None:
    if answer.done():  # its caller left while it ran
        return
    if error is not None:
        answer.set_exception(error)
    else:
        answer.set_result(made)
