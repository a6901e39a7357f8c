"""Whoever has left needs no answer: what would have been theirs is dropped, wherever it waits."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from server.clients import Request
from server.errors import CallerLeft

Made = TypeVar("Made")


async def while_here(request: Request, work: Coroutine[Any, Any, Made]) -> Made:
    """Await work for as long as the connection stands. Raises CallerLeft, and what the work raises.

    The body must have been read: the server tells of a caller who left where the next part of it would come. Not for
    what writes: a caller may send that and not wait for the answer.
    """
    job = asyncio.ensure_future(work)
    left = asyncio.create_task(_left(request))
    try:
        await asyncio.wait((job, left), return_when=asyncio.FIRST_COMPLETED)
        if not job.done():
            raise CallerLeft
        return job.result()
    finally:
        left.cancel()
        if not job.done():
            job.cancel()
            await asyncio.wait((job,))  # it withdraws what waits; its error, if it has one, is nobody's
            if not job.cancelled():
                job.exception()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
