"""Handlers that were not done by their deadline: each was answered for, and what is left of it is ended apart."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from server.database.cancelling import end

_log = logging.getLogger(__name__)


class Overdue:
    """The overdue handlers of an app. None outlives the app."""

    def __init__(self) -> None:
        self._ending: set[asyncio.Task[None]] = set()

    def end(self, handling: asyncio.Future[Any], name: str) -> None:
        """End a handler without waiting for it; its result or error is dropped. `name`: what the log calls it."""
        ending = asyncio.create_task(self._end(handling, name))
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    async def close(self) -> None:
        """Wait until all have ended: a few seconds at most."""
        await asyncio.gather(*self._ending)

    async def _end(self, handling: asyncio.Future[Any], name: str) -> None:
        if await end(handling):
            _log.error("%s was answered at its deadline, but its work cannot be stopped.", name)
