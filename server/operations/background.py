"""What a server does beside answering, for as long as it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, Self

from server.database.cancelling import end


class Background:
    """Work that goes on while a block lasts. At its end all of it is ended at once, since each may take seconds to end
    where the database hangs."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []
        self._closing: list[Callable[[], Awaitable[None]]] = []

    def begin(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run a coroutine as a task of this name."""
        self._tasks.append(asyncio.create_task(work, name=name))

    def close_beside(self, close: Callable[[], Awaitable[None]]) -> None:
        """Have this called at the end, beside the ending of the tasks."""
        self._closing.append(close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Raises what a task has raised before."""
        failed = [task for task in self._tasks if task.done() and not task.cancelled()]
        await asyncio.gather(end(*self._tasks), *(close() for close in self._closing))
        for task in failed:
            task.result()
