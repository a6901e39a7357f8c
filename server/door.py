"""Who is let in: work is refused at the door when what is already inside would take longer than it may."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any, TypeVar

from server.errors import DeadlineMissed, MediaRejected, Overloaded, TextRejected

# Requests in the house are bounded by time (see `_admit`); this bounds their memory too.
_MOST_INSIDE = 1024

# Refused for what was sent, not for want of time.
_REJECTED = (MediaRejected, TextRejected)

Given = TypeVar("Given")
Made = TypeVar("Made")


class Door:
    """Lets pictures, or texts, in for as long as they can be answered in time. One for each: words are the quicker."""

    def __init__(self, noun: str) -> None:
        """`noun`: what comes in, as it is called in an error: Picture, Text."""
        self._noun = noun
        self._inside = 0
        self._pace = 0.0

    @property
    def inside(self) -> int:
        """How many were let in and are not answered yet."""
        return self._inside

    async def each(
        self, work: Callable[[Given], Coroutine[Any, Any, Made]], given: Sequence[Given], *, within: float
    ) -> list[Made]:
        """Work on each thing that was given, all at once, within that many seconds; what was made, in order.

        Raises Overloaded at the door when the work that is already inside would take longer than `within`,
        DeadlineMissed when time runs out, and otherwise what the work on the first of those that failed raised.
        """
        async with self._admit(len(given), within):
            tasks: list[asyncio.Task[Made]] = []
            try:
                async with asyncio.timeout(within), asyncio.TaskGroup() as group:
                    tasks = [group.create_task(work(one)) for one in given]
            except TimeoutError as exc:
                raise DeadlineMissed(retry_after=max(1.0, self._backlog())) from exc
            except BaseExceptionGroup as exc:
                raise self._first_failure(tasks) from exc
        return [task.result() for task in tasks]

    @asynccontextmanager
    async def _admit(self, count: int, within: float) -> AsyncIterator[None]:
        backlog = self._backlog()
        if self._inside and (backlog > within or self._inside + count > _MOST_INSIDE):
            raise Overloaded(retry_after=max(1.0, backlog - within))
        self._inside += count
        started: float | None = perf_counter()
        try:
            yield
        except (*_REJECTED, asyncio.CancelledError):
            started = None  # refused in passing, or its caller left: that says nothing of the pace
            raise
        finally:
            if started is not None:
                # Little's law, the other way round: with n pictures inside, one that took t seconds came through at
                # n / t a second. Smoothed, since single requests differ; one that was too late counts as well.
                pace = (perf_counter() - started) / self._inside
                self._pace = pace if not self._pace else 0.9 * self._pace + 0.1 * pace
            self._inside -= count

    def _backlog(self) -> float:
        """Seconds until what is inside now will have been answered, by the pace of late."""
        return self._inside * self._pace

    def _first_failure(self, tasks: Sequence[asyncio.Task[Any]]) -> BaseException:
        """The error of the first thing that failed; among several it says which one that was."""
        failed = ((number, task.exception()) for number, task in enumerate(tasks, 1) if not task.cancelled())
        number, error = next((number, error) for number, error in failed if error is not None)
        if isinstance(error, _REJECTED) and len(tasks) > 1:
            error.args = (f"{self._noun} {number} of {len(tasks)}: {error.sentence}",)
        return error
