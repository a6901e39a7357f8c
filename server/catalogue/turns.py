"""Turns of writes of one thing: those that wait for a locked row must leave connections to everybody else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from server.errors import CatalogueBusy


@dataclass(slots=True)
class _Queue:
    room: asyncio.Semaphore
    callers: int = field(default=0)


class Turns:
    """Lets so many callers in at once for each thing. Only the event loop's thread may use it."""

    def __init__(self, at_once: int, patience: float) -> None:
        """`patience`: seconds that a caller waits for a turn."""
        self._at_once = at_once
        self._patience = patience
        self._queues: dict[Hashable, _Queue] = {}

    def __len__(self) -> int:
        """How many things somebody waits for or has a turn of."""
        return len(self._queues)

    @asynccontextmanager
    async def turn(self, thing: Hashable) -> AsyncIterator[None]:
        """A turn for as long as the block lasts. Raises CatalogueBusy for who has waited for too long."""
        queue = self._queues.setdefault(thing, _Queue(asyncio.Semaphore(self._at_once)))
        queue.callers += 1
        try:
            try:
                async with asyncio.timeout(self._patience):
                    await queue.room.acquire()
            except TimeoutError:
                raise CatalogueBusy from None
            try:
                yield
            finally:
                queue.room.release()
        finally:
            queue.callers -= 1
            if not queue.callers:
                del self._queues[thing]
