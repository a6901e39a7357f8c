"""Waiting for what others do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import perf_counter

_PAUSE = 0.05


async def until(condition: Callable[[], bool] | Callable[[], Awaitable[bool]], longest: float, what: str) -> None:
    """Wait until the condition holds. Raises RuntimeError, with `what` did not happen, after so many seconds."""
    deadline = perf_counter() + longest
    while True:
        holds = condition()
        if holds if isinstance(holds, bool) else await holds:
            return
        if perf_counter() > deadline:
            raise RuntimeError(f"{what} within {longest:g} s")
        await asyncio.sleep(_PAUSE)
