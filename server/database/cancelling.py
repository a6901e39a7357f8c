"""How to end work that may be waiting for the database."""

from __future__ import annotations

import asyncio
from typing import Any

_PATIENCE_SECONDS = 1.0
_TIMES = 4
"""The first cancellation ends most work, the second a statement of a silent server, and a third what its end awaits."""


async def end(*tasks: asyncio.Future[Any]) -> set[asyncio.Future[Any]]:
    """Cancel tasks and wait until they have ended; gives those that have not after some seconds.

    Their results and errors are dropped. Cancelled once, psycopg asks the server to cancel the statement, and waits up
    to ten seconds for the server to comply. Cancelled again, it closes the connection at once.
    """
    running = {task for task in tasks if not task.done()}
    for _ in range(_TIMES):
        if not running:
            break
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=_PATIENCE_SECONDS)
    for task in tasks:
        if task.done() and not task.cancelled():
            task.exception()  # retrieved, or asyncio would log one that nobody retrieved
    return running
