"""A question that many ask at about the same time, asked once for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Shared(Generic[T]):
    """Asks once for all who come at about the same time.

    Whoever comes gets the result of an asking that begins after that moment. At most one asking is under way, and all
    who come meanwhile share the next. What it raises reaches all who share it.
    """

    def __init__(self, ask: Callable[[], Awaitable[T]]) -> None:
        self._ask = ask
        self._running: asyncio.Task[T] | None = None
        self._next: asyncio.Task[T] | None = None

    async def get(self) -> T:
        if self._next is None:
            self._next = asyncio.create_task(self._after(self._running))
            self._next.add_done_callback(_seen)  # all who share it may have left
        return await asyncio.shield(self._next)

    async def _after(self, running: asyncio.Task[T] | None) -> T:
        if running is not None and not running.done():
            await asyncio.wait({running})
        self._running, self._next = self._next, None
        return await self._ask()

    def close(self) -> None:
        """End what is under way."""
        for task in (self._running, self._next):
            if task is not None:
                task.cancel()


def _seen(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()
