"""A caller who has left needs no answer: the work for that caller is dropped, wherever it waits."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from server.errors import CallerLeft
from server.http.request import Request

Made = TypeVar("Made")


async def while_here(request: Request, work: Coroutine[Any, Any, Made]) -> Made:
    """Await work for as long as the connection stands. Raises CallerLeft, and the errors of the work.

    The body must have been read already: the message that the caller left arrives in its place. Not for work that
    writes: a caller may send a change and not wait for the answer.
    """
    job = asyncio.ensure_future(work)
    job.add_done_callback(_look)
    try:
        await asyncio.sleep(0)  # the first step of the work is all of it where the result is in a cache
        return await (job if job.done() else _first(request, job))
    finally:
        if not job.done():
            job.cancel()
            await asyncio.wait((job,))  # so that the work withdraws its entries from the queues


async def _first(request: Request, job: asyncio.Future[Made]) -> Made:
    """The result of the work, if it comes before the caller leaves. Raises CallerLeft."""
    left = asyncio.create_task(_left(request))
    left.add_done_callback(_look)
    try:
        await asyncio.wait((job, left), return_when=asyncio.FIRST_COMPLETED)
        if not job.done() and left.exception() is None:
            raise CallerLeft
        return await job
    finally:
        left.cancel()


def _look(task: asyncio.Future[Any]) -> None:
    """Retrieve the error of a task that failed just as its caller left: asyncio would log one that nobody retrieved."""
    if not task.cancelled():
        task.exception()


async def _left(request: Request) -> None:
    """Wait until the connection is closed; any other message after the body is ignored."""
    while (await request.receive())["type"] != "http.disconnect":  # noqa: ASYNC110 - what it waits for is in `receive`
        await asyncio.sleep(0)  # a server that repeats the same message must not block the event loop
