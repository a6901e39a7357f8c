"""Who is let in: work is refused at the door when what is already inside would take longer than it may."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any, TypeVar

from server.batching.fair_queue import BULK_TURN, Caller, Lane
from server.errors import DeadlineMissed, MediaRejected, Overloaded, TextRejected

# Requests in the house are bounded by time (see `_admit`); this bounds their memory too.
_MOST_INSIDE = 1024

# Of how many of the last answers the pace is the mean, about.
_MEMORY = 10

# Refused for what was sent, not for want of time.
_REJECTED = (MediaRejected, TextRejected)

Given = TypeVar("Given")
Made = TypeVar("Made")


class Admission:
    """Lets pictures, or texts, in for as long as they can be answered in time. One for each: words are the quicker."""

    def __init__(self, noun: str) -> None:
        """`noun`: what comes in, as it is called in an error: Picture, Text."""
        self._noun = noun
        self._inside = 0
        # The work that was let in and is not done, by lane, in units of a small picture or a text.
        self._work: dict[Lane, float] = {"interactive": 0.0, "bulk": 0.0}
        # Seconds that passed while there was work, and how much of it was done in them, of late.
        self._busy = 0.0
        self._done = 0.0
        self._since = 0.0

    @property
    def inside(self) -> int:
        """How many were let in and are not answered yet."""
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
        """Work on each thing that was given, all at once, within that many seconds; what was made, in order.

        `weight`: of all of it together, where a small picture or a text weighs 1. Raises Overloaded at the door when
        the work that is already inside would take longer than `within`, DeadlineMissed when time runs out, and
        otherwise what the work on the first of those that failed raised.
        """
        async with self._admit(len(given), within, caller.lane, weight):
            tasks: list[asyncio.Task[Made]] = []
            try:
                async with asyncio.timeout(within):
                    if len(given) == 1:  # needs no task of its own
                        return [await work(given[0])]
                    async with asyncio.TaskGroup() as group:
                        tasks = [group.create_task(work(one)) for one in given]
            except TimeoutError as exc:
                raise DeadlineMissed(retry_after=max(1.0, self._backlog(caller.lane))) from exc
            except BaseExceptionGroup as exc:
                raise self._first_failure(tasks) from exc
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
        tells, due = True, perf_counter() + within
        try:
            yield
        except _REJECTED:
            tells = False  # refused in passing: that says nothing of the pace
            raise
        except asyncio.CancelledError:
            tells = perf_counter() >= due  # nor does one whose caller left
            raise
        finally:
            self._inside -= count
            self._work[lane] -= weight
            if not self._inside:
                self._work = dict.fromkeys(self._work, 0.0)  # what rounding left behind
            if tells:
                # One that was too late counts as well: otherwise a server that answers nothing in time learns nothing.
                now = perf_counter()
                kept = (1 - 1 / _MEMORY) ** count
                self._busy = kept * self._busy + now - self._since
                self._done = kept * self._done + weight
                self._since = now

    def _backlog(self, lane: Lane, weight: float = 0.0) -> float:
        """Seconds until what is inside now, and goes before this lane, will have been answered, by the pace of late.

        `weight`: of what would come after it.
        """
        if not self._done:
            return 0.0
        interactive, bulk = self._work["interactive"], self._work["bulk"]
        if lane == "interactive":  # of bulk work only what the queues let through in between
            bulk = min(bulk, interactive / (BULK_TURN - 1))
        return (interactive + bulk + weight) * self._busy / self._done

    def _first_failure(self, tasks: Sequence[asyncio.Task[Any]]) -> BaseException:
        """The error of the first thing that failed; among several it says which one that was."""
        failed = ((number, task.exception()) for number, task in enumerate(tasks, 1) if not task.cancelled())
        number, error = next((number, error) for number, error in failed if error is not None)
        if not isinstance(error, _REJECTED):
            return error
        # A copy: equal pictures are decoded once, so that another request may be about to show the same error.
        told = type(error).__new__(type(error))
        told.__dict__.update(error.__dict__)
        told.args = (f"{self._noun} {number} of {len(tasks)}: {error.sentence}",)
        return told
