"""Admission control: new work is refused when the admitted work would take longer than the caller may wait.

Each lane has places of its own, so that bulk work never fills those of searches. In each lane a client may hold as many
places as stay free, so that no client fills a lane: one alone gets half of it, two get a third each.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any, TypeVar

from server.batching.fair_queue import BULK_TURN, LANES, Caller
from server.errors import DeadlineMissed, MediaRejected, Overloaded, TextRejected

PLACES = 2048
"""Of each lane. Admitted work is bounded by time (see `_admit`); this bounds its memory too."""

# The pace is the mean of about this many of the last answers.
_ANSWERS_IN_THE_MEAN = 10

# Refused for what was sent, not for lack of time.
_REJECTED = (MediaRejected, TextRejected)

Given = TypeVar("Given")
Made = TypeVar("Made")


@dataclass(slots=True)
class _Held:
    """What was admitted for one caller and is not answered yet: how many, and their weight."""

    count: int = 0
    weight: float = 0.0


class Admission:
    """Admits pictures, or texts, as long as they can be answered in time. Each kind has one of its own, as texts are
    much quicker."""

    def __init__(self, noun: str) -> None:
        """`noun`: what is admitted, as errors name it: Picture, Text."""
        self._noun = noun
        self._inside = 0
        # Whoever has nothing inside is left out.
        self._held: dict[Caller, _Held] = {}
        self._free = dict.fromkeys(LANES, PLACES)
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
        async with self._admit(len(given), within, caller, weight):
            tasks: list[asyncio.Task[Made]] = []
            try:
                async with asyncio.timeout(within):
                    if len(given) == 1:  # no task of its own is needed
                        return [await work(given[0])]
                    async with asyncio.TaskGroup() as group:
                        tasks = [group.create_task(work(one)) for one in given]
            except TimeoutError as exc:
                raise DeadlineMissed(retry_after=max(1.0, self._backlog(caller))) from exc
            except BaseExceptionGroup as exc:
                failure = self._first_failure(tasks)
                raise failure from failure.__cause__ or exc
        return [task.result() for task in tasks]

    @asynccontextmanager
    async def _admit(self, count: int, within: float, caller: Caller, weight: float) -> AsyncIterator[None]:
        backlog = self._backlog(caller, count, weight)
        if self._inside and (backlog > within or not self._has_places(count, caller)):
            raise Overloaded(retry_after=max(1.0, backlog - within))
        if not self._inside:
            self._since = perf_counter()
        self._hold(caller, count, weight)
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
            self._hold(caller, -count, -weight)
            if counts:
                # Work that was too late counts as well: otherwise a server that answers nothing in time learns nothing.
                now = perf_counter()
                kept = (1 - 1 / _ANSWERS_IN_THE_MEAN) ** count
                self._busy = kept * self._busy + now - self._since
                self._done = kept * self._done + weight
                self._since = now

    def _has_places(self, count: int, caller: Caller) -> bool:
        """Whether the caller would then hold no more places than are free. An empty lane takes any number."""
        free = self._free[caller.lane]
        held = self._held.get(caller, _Held()).count
        return free == PLACES or held + count <= free - count

    def _hold(self, caller: Caller, count: int, weight: float) -> None:
        """Take so many places with so much work, or, below 0, give them back."""
        held = self._held.setdefault(caller, _Held())
        held.count += count
        held.weight += weight
        if not held.count:
            del self._held[caller]  # and with it what rounding left behind
        self._inside += count
        self._free[caller.lane] -= count

    def _backlog(self, caller: Caller, count: int = 0, weight: float = 0.0) -> float:
        """Seconds, at the recent pace, until the admitted work that goes before the caller's next is answered.

        `count`, `weight`: of new work that is to be answered too. Within a lane clients take turns, so of another
        client's work only as many entries go before as the caller has; and of the other lane's work all goes before
        bulk work, and before interactive work the entries that the queues give a turn in between.
        """
        if not self._done:
            return 0.0
        own = self._held.get(caller, _Held())
        ahead, entries = own.weight + weight, own.count + count
        beside = 0.0
        for other, held in self._held.items():
            if other.lane != caller.lane:
                beside += held.weight
            elif other != caller:
                ahead += held.weight * min(1.0, entries / held.count)
        if caller.lane == "interactive":
            beside = min(beside, ahead / (BULK_TURN - 1))
        return (ahead + beside) * self._busy / self._done

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
