"""The client whose answers are awaited."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable
from contextlib import aclosing
from functools import wraps
from itertools import islice
from typing import Any, Self

import httpx

from twinlens import transport
from twinlens.base import Base
from twinlens.conversation import Outcome, Send, converse
from twinlens.errors import TwinlensError
from twinlens.request import Item, Page, Request, Result
from twinlens.steps import Finished, Task, begun, failed, told
from twinlens.uploads import CONCURRENCY, Progress, Upload, UploadReport, Uploads


class AsyncClient(Base):
    """Calls a Twinlens from asyncio: every method of `Client`, awaited.

        async with AsyncClient("https://search.shop.example", key=key) as client:
            answer = await client.search("shoe.jpg", limit=5)

    Files are read, and arrays made PNG, on threads, so that the event loop goes on.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        key: str | None = None,
        client: str | None = None,
        deadline: float = 60.0,
        retries: int = 4,
    ) -> None:
        super().__init__(url, key=key, client=client, deadline=deadline, retries=retries)
        self._http = httpx.AsyncClient(headers=transport.HEADERS)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def send(self, request: Request[Result]) -> Result:
        """What every method does with its request."""
        steps = converse(request, self._options)
        step = begun(steps)
        while not isinstance(step, Finished):
            step = told(steps, await (self._sent(step) if isinstance(step, Send) else self._paused(step.seconds)))
        return step.value

    async def _sent(self, send: Send) -> Outcome:
        try:
            async with (
                asyncio.timeout(send.seconds),
                self._http.stream(**transport.arguments(send)) as response,
            ):
                content = bytearray()
                async for chunk in response.aiter_bytes():
                    content += chunk
                    if send.most_bytes is not None and len(content) > send.most_bytes:
                        return transport.TOO_MUCH
                return transport.answer_of(response, bytes(content))
        except TimeoutError:
            return transport.LATE
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            return transport.broken(exc)

    async def _paused(self, seconds: float) -> Outcome:
        await asyncio.sleep(seconds)
        return None

    # --- many at once ------------------------------------------------------------------------------------------------

    async def upload_many(
        self,
        uploads: Iterable[Upload],
        *,
        concurrency: int = CONCURRENCY,
        progress: Progress | None = None,
        resume: str | os.PathLike[str] | None = None,
    ) -> UploadReport:
        """As `Client.upload_many`; what is under way when one fails, or when this is cancelled, is cancelled."""
        work = Uploads(uploads, self._options, resume, progress)
        try:
            async with aclosing(self.run_many(work.tasks(), concurrency)) as results:
                async for one in results:
                    work.note(one)
            return work.finish()
        finally:
            work.close()

    async def run_many(self, tasks: Iterable[Task[Result]], concurrency: int) -> AsyncGenerator[Result]:
        """The results of tasks, so many at a time, in the order that they are done.

        When one fails, or this is closed, those under way are cancelled.
        """
        waiting = iter(tasks)
        running: set[asyncio.Task[Result]] = set()
        try:
            while True:
                running |= {
                    asyncio.create_task(self.perform(one)) for one in islice(waiting, concurrency - len(running))
                }
                if not running:
                    return
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for one in done:
                    yield one.result()
        finally:
            for left in running:
                left.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def perform(self, task: Task[Result]) -> Result:
        """Send what a task asks for, until it is finished. Its own work, such as reading a file, is done on threads."""
        step = await asyncio.to_thread(begun, task)
        while not isinstance(step, Finished):
            try:
                answer = await self.send(step)
            except TwinlensError as exc:
                step = await asyncio.to_thread(failed, task, exc)
            else:
                step = await asyncio.to_thread(told, task, answer)
        return step.value

    # --- how the calls become methods; see `twinlens.methods` ---------------------------------------------------------

    def method(self, build: Callable[..., Request[Result]]) -> Callable[..., Coroutine[Any, Any, Result]]:
        @wraps(build)
        async def method(*args: Any, **given: Any) -> Result:
            return await self.send(await asyncio.to_thread(build, *args, **given))

        return method

    def listing_method(self, build: Callable[..., Request[Page[Item]]]) -> Callable[..., AsyncIterator[Item]]:
        @wraps(build)
        def method(*args: Any, **given: Any) -> AsyncIterator[Item]:
            return self._listed(build(*args, **given))

        return method

    async def _listed(self, request: Request[Page[Item]]) -> AsyncIterator[Item]:
        while True:
            page = await self.send(request)
            for item in page.items:
                yield item
            if page.next is None:
                return
            request = request.with_query(cursor=page.next)
