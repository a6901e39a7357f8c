"""Admission control: new work is refused when the admitted work would take longer than the caller may wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any, TypeVar

from server.batching.fair_queue import BULK_TURN, Caller, Lane
from server.errors import DeadlineMissed, MediaRejected, Overloaded, TextRejected

# Admitted work is bounded by time (see `_admit`); this bounds its memory too.
_MOST_INSIDE = 1024

# The pace is the mean of about this many of the last answers.
_ANSWERS_IN_THE_MEAN = 10

# Refused for what was sent, not for lack of time.
_REJECTED = (MediaRejected, TextRejected)

Given = TypeVar("Given")
Made = TypeVar("Made")


class Admission:
    """Admits pictures, or texts, as long as they can be answered in time. Each kind has one of its own, as texts are
    much quicker."""

    def __init__(self, noun: str) -> None:
        """`noun`: what is admitted, as errors name it: Picture, Text."""
        self._noun = noun
        self._inside = 0
        # The work that was admitted and is not done, by lane, in units of a small picture or a text.
        self._work: dict[Lane, float] = {"interactive": 0.0, "bulk": 0.0}
        # Lately: seconds in which there was work, and how much work was done in them.
        self._busy = 0.0
        self._done = 0.0
        self._since = 0.0

    @property
    def inside(self) -> int:
        """How many were admitted and are not answered yet."""
        return self._inside

    async def each(
        self,
        work: Callable[[Given], Coroutine[Any, Any, Made]],
        given: Sequence[Given],
        *,
        within: float,
        caller: Caller,
        weight: float,
    ) -> list[Made]:
        """Run `work` on each given thing, all at once, within so many seconds; the results in order.

        `weight`: of all things together, where a small picture or a text weighs 1. Raises Overloaded before anything
        is begun when the admitted work would take longer than `within`, DeadlineMissed when time runs out, and
        otherwise what `work` raised for the first thing that failed.
        """
        async with self._admit(len(given), within, caller.lane, weight):
            tasks: list[asyncio.Task[Made]] = []
            try:
                async with asyncio.timeout(within):
                    if len(given) == 1:  # no task of its own is needed
                        return [await work(given[0])]
                    async with asyncio.TaskGroup() as group:
                        tasks = [group.create_task(work(one)) for one in given]
            except TimeoutError as exc:
                raise DeadlineMissed(retry_after=max(1.0, self._backlog(caller.lane))) from exc
            except BaseExceptionGroup as exc:
                failure = self._first_failure(tasks)
                raise failure from failure.__cause__ or exc
        return [task.result() for task in tasks]

    @asynccontextmanager
    async def _admit(self, count: int, within: float, lane: Lane, weight: float) -> AsyncIterator[None]:
        backlog = self._backlog(lane, weight)
        if self._inside and (backlog > within or self._inside + count > _MOST_INSIDE):
            raise Overloaded(retry_after=max(1.0, backlog - within))
        if not self._inside:
            self._since = perf_counter()
        self._inside += count
        self._work[lane] += weight
        counts, due = True, perf_counter() + within
        try:
            yield
        except _REJECTED:
            counts = False  # refused without encoding: that says nothing about the pace
            raise
        except asyncio.CancelledError:
            counts = perf_counter() >= due  # nor does work whose caller left
            raise
        finally:
            self._inside -= count
            self._work[lane] -= weight
            if not self._inside:
                self._work = dict.fromkeys(self._work, 0.0)  # what rounding left behind
            if counts:
                # Work that was too late counts as well: otherwise a server that answers nothing in time learns nothing.
                now = perf_counter()
                kept = (1 - 1 / _ANSWERS_IN_THE_MEAN) ** count
                self._busy = kept * self._busy + now - self._since
                self._done = kept * self._done + weight
                self._since = now

    def _backlog(self, lane: Lane, weight: float = 0.0) -> float:
        """Seconds, at the recent pace, until the admitted work that goes before this lane is answered.

        `weight`: of new work that is to be answered too.
        """
        if not self._done:
            return 0.0
        interactive, bulk = self._work["interactive"], self._work["bulk"]
        if lane == "interactive":  # of bulk work, only the entries that the queues give a turn in between
            bulk = min(bulk, interactive / (BULK_TURN - 1))
        return (interactive + bulk + weight) * self._busy / self._done

    def _first_failure(self, tasks: Sequence[asyncio.Task[Any]]) -> BaseException:
        """The error of the first thing that failed; where things are several, its sentence names which one."""
        failed = ((number, task.exception()) for number, task in enumerate(tasks, 1) if not task.cancelled())
        number, error = next((number, error) for number, error in failed if error is not None)
        if not isinstance(error, _REJECTED):
            return error
        # A copy, because equal pictures are decoded once, and another request may be about to show the same error.
        numbered = type(error).__new__(type(error))
        numbered.__dict__.update(error.__dict__)
        numbered.args = (f"{self._noun} {number} of {len(tasks)}: {error.sentence}",)
        return numbered
