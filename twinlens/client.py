"""The client that waits for its answers."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from copy import copy
from functools import wraps
from itertools import islice
from threading import Event
from time import monotonic
from typing import Any, Self

import httpx

from twinlens import transport
from twinlens.base import Base
from twinlens.conversation import Outcome, Send, converse
from twinlens.errors import ConnectionFailed, TwinlensError
from twinlens.request import Item, Page, Request, Result
from twinlens.steps import Finished, Task, begun, failed, told
from twinlens.uploads import CONCURRENCY, Progress, Upload, UploadReport, Uploads


class Client(Base):
    """Calls a Twinlens, and waits for each answer.

        with Client("https://search.shop.example", key=key) as client:
            for match in client.search("shoe.jpg", limit=5).results:
                print(match.product_id, match.similarity)

    It may be used by several threads at once, which share its connections.
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
        self._http = httpx.Client(headers=transport.HEADERS)
        self._stopped = Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. Calls that wait for another try give up."""
        self._stopped.set()
        self._http.close()

    def send(self, request: Request[Result]) -> Result:
        """What every method does with its request."""
        steps = converse(request, self._options)
        step = begun(steps)
        while not isinstance(step, Finished):
            step = told(steps, self._sent(step) if isinstance(step, Send) else self._paused(step.seconds))
        return step.value

    def _sent(self, send: Send) -> Outcome:
        ends = monotonic() + send.seconds
        try:
            with self._http.stream(**transport.arguments(send)) as response:
                content = bytearray()
                for chunk in response.iter_bytes():
                    content += chunk
                    if send.most_bytes is not None and len(content) > send.most_bytes:
                        return transport.TOO_MUCH
                    if monotonic() > ends:  # httpx's own limit is on each read
                        return transport.LATE
                return transport.answer_of(response, bytes(content))
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            return transport.broken(exc)

    def _paused(self, seconds: float) -> Outcome:
        if self._stopped.wait(seconds):
            raise ConnectionFailed("The client was closed while a call waited for another try.")
        return None

    # --- many at once ------------------------------------------------------------------------------------------------

    def upload_many(
        self,
        uploads: Iterable[Upload],
        *,
        concurrency: int = CONCURRENCY,
        progress: Progress | None = None,
        resume: str | os.PathLike[str] | None = None,
    ) -> UploadReport:
        """Upload many pictures, a few at a time; what came of them.

        `uploads`: a list or any iterator, which is read as places become free. `concurrency`: how many at a time, on
        threads. `progress`: called after each, with what came of it and of all so far. `resume`: a file that keeps what
        is done. When the same call is made again after it was interrupted, what is in there is not sent again; once all
        is done, the file is removed. Without it, what was sent is sent again, and the server keeps one of the same
        bytes.

        An upload that fails is in the report. Raises ConnectionFailed, AnswerUnreadable, Unauthorized or Forbidden
        where no other would succeed either, once those under way have ended; ValueError where `resume` is a file of
        other work; OSError where it cannot be written.
        """
        work = Uploads(uploads, self._options, resume, progress)
        try:
            with closing(self.run_many(work.tasks(), concurrency)) as results:
                for one in results:
                    work.note(one)
            return work.finish()
        finally:
            work.close()

    def run_many(self, tasks: Iterable[Task[Result]], concurrency: int) -> Generator[Result]:
        """The results of tasks, so many at a time, in the order that they are done.

        When one fails, or this is closed, no more are begun, and those under way give up before their next try.
        """
        worker, waiting = copy(self), iter(tasks)
        worker._stopped = Event()
        running: set[Future[Result]] = set()
        with ThreadPoolExecutor(concurrency, "twinlens") as pool:
            try:
                while True:
                    running |= {pool.submit(worker.perform, one) for one in islice(waiting, concurrency - len(running))}
                    if not running:
                        return
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    for one in done:
                        yield one.result()
            finally:
                worker._stopped.set()

    def perform(self, task: Task[Result]) -> Result:
        """Send what a task asks for, until it is finished."""
        step = begun(task)
        while not isinstance(step, Finished):
            try:
                answer = self.send(step)
            except TwinlensError as exc:
                step = failed(task, exc)
            else:
                step = told(task, answer)
        return step.value

    # --- how the calls become methods; see `twinlens.methods` ---------------------------------------------------------

    def method(self, build: Callable[..., Request[Result]]) -> Callable[..., Result]:
        @wraps(build)
        def method(*args: Any, **given: Any) -> Result:
            return self.send(build(*args, **given))

        return method

    def listing_method(self, build: Callable[..., Request[Page[Item]]]) -> Callable[..., Iterator[Item]]:
        @wraps(build)
        def method(*args: Any, **given: Any) -> Iterator[Item]:
            return self._listed(build(*args, **given))

        return method

    def _listed(self, request: Request[Page[Item]]) -> Iterator[Item]:
        while True:
            page = self.send(request)
            yield from page.items
            if page.next is None:
                return
            request = request.with_query(cursor=page.next)
