"""Whoever has left needs no answer: what would have been theirs is dropped, wherever it waits."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from server.errors import CallerLeft
from server.http.request import Request

Made = TypeVar("Made")


async def while_here(request: Request, work: Coroutine[Any, Any, Made]) -> Made:
    """Await work for as long as the connection stands. Raises CallerLeft, and what the work raises.

    The body must have been read: the server tells of a caller who left where the next part of it would come. Not for
    what writes: a caller may send that and not wait for the answer.
    """
    job = asyncio.ensure_future(work)
    job.add_done_callback(_look)
    left = asyncio.create_task(_left(request))
    left.add_done_callback(_look)
    try:
        await asyncio.wait((job, left), return_when=asyncio.FIRST_COMPLETED)
        if not job.done() and left.exception() is None:
            raise CallerLeft
        return await job
    finally:
        left.cancel()
        if not job.done():
            job.cancel()
            await asyncio.wait((job,))  # it withdraws what waits


def _look(task: asyncio.Future[Any]) -> None:
    """What fails just as its caller's time is up is nobody's error, and no lost one."""
    if not task.cancelled():
        task.exception()


async def _left(request: Request) -> None:
    """Until the connection is closed; whatever else comes after the body says nothing."""
    while (await request.receive())["type"] != "http.disconnect":  # noqa: ASYNC110 - what it waits for is in `receive`
        await asyncio.sleep(0)  # a server that tells the same again and again must not stop us
