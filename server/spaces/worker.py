"""The embedding worker: embeds pictures that another system writes, beside servers or with none.

It waits for notices of the database, and looks every few seconds, since notices do not come through every pooler. Where
the database or the store is away, it waits for that, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from server.artifact.artifact import Artifact
from server.database import connections, migrations
from server.database.connections import Direct
from server.database.failures import translated
from server.database.locks import LOCKS_OF_EMBEDDING
from server.database.pool import open_pool
from server.database.queries import Queries
from server.database.seats import Seat, seat
from server.engine import open_engine
from server.errors import CatalogueUnavailable, Overloaded, StorageFailed
from server.ingest.mark import settle
from server.ingest.storage import MediaStore
from server.operations.progress import Progress
from server.operations.stopping import stop_on_signals
from server.settings import Settings
from server.spaces import spaces
from server.spaces.pending import PAUSE_SECONDS, Pending, Tally, look
from server.spaces.reembed import with_few_threads
from server.spaces.spaces import SpaceDescription
from server.spaces.standing import Standing, standing

_MOST_PICTURES_AT_ONCE = 64
_BATCHES_AT_ONCE = 4
_CONNECTION_TIMEOUT_SECONDS = 30.0
_STATEMENT_TIMEOUT_SECONDS = 600.0
_POOL_SIZE = 4

POLL_SECONDS = 5.0
"""Between two looks where no notice comes."""

PATIENCE_SECONDS = 120.0
"""For so long a run that is to end waits for a database or a store that is away."""

_LONGEST_WAIT_SECONDS = 60.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """`once`: end when nothing is due; `low_priority`: on half of the cores; `poll`: seconds between two looks;
    `patience`: seconds for which a run `once` waits for what is away; `pause`: seconds before a second try."""

    once: bool = False
    low_priority: bool = False
    poll: float = POLL_SECONDS
    patience: float = PATIENCE_SECONDS
    pause: float = PAUSE_SECONDS


@dataclass(frozen=True)
class Ended:
    """What a run has done, and the signal that stopped it, where one did."""

    done: Tally
    stopped_by: signal.Signals | None


async def work(settings: Settings, url: str, options: Options) -> Ended:
    """Embed pending pictures, until stopped or, with `once`, until none is due.

    Raises ArtifactInvalid, DatabaseUnusable, SpaceNotLive, StoreRefused, SpaceDropped; and with `once`, for what was
    away too long, CatalogueUnavailable's kinds, StoreUnavailable, Overloaded.
    """
    artifact = Artifact.read(settings.model)
    artifact.check_files(artifact.files_to_run(settings.precision))
    direct = connections.direct_of(settings, url)
    # Servers may be running, and of an older version.
    await asyncio.to_thread(migrations.require_migrated, url, writing=True)
    store = MediaStore.at(settings.media_url, settings.data / "media")
    await asyncio.to_thread(settle, url, store)
    space = await asyncio.to_thread(spaces.open_space, url, SpaceDescription.of(artifact, settings.precision))
    if options.low_priority:
        settings = with_few_threads(settings)
    settings = replace(settings, cache=0)  # nobody asks for a vector twice
    pool = open_pool(
        lambda: settings.owners_url or url,
        min_size=1,
        max_size=_POOL_SIZE,
        timeout=_CONNECTION_TIMEOUT_SECONDS,
        longest=_STATEMENT_TIMEOUT_SECONDS,
        pooling=settings.pooling,
    )
    decoding = settings.threads or len(os.sched_getaffinity(0))
    async with (
        stop_on_signals() as stop,
        open_engine(settings, artifact, words=False, decoding=decoding) as engine,
        pool,
    ):
        batch = engine.layout.batch if engine.layout is not None else settings.batch or _MOST_PICTURES_AT_ONCE
        pending = Pending(
            pool,
            space,
            engine.embedder,
            store,
            at_once=min(_MOST_PICTURES_AT_ONCE, _BATCHES_AT_ONCE * batch),
            most_bytes=settings.max_upload,
            pause=options.pause,
        )
        worker = Worker(pending, store, direct, options, stop)
        if options.once:
            worker.show(await asyncio.to_thread(standing, url))
        try:
            done = await worker.run()
        finally:
            worker.close()
    return Ended(done, stop.signal if stop.is_set() else None)


class Worker:
    """One run of the worker."""

    def __init__(
        self, pending: Pending, store: MediaStore, direct: Direct, options: Options, stop: asyncio.Event
    ) -> None:
        self._pending = pending
        self._store = store
        self._direct = direct
        self._options = options
        self._stop = stop
        self._done = Tally()
        self._progress: Progress | None = None
        # Numbers of seats that were lost: what was marked with them is given back once the database is there again.
        self._earlier: list[int] = []
        self._away_since: float | None = None
        self._wait = 1.0

    def show(self, left: Standing) -> None:
        """Show how far the run is."""
        self._progress = Progress(sys.stderr, left.waiting + left.put_off, "pictures")

    def close(self) -> None:
        if self._progress is not None:
            self._progress.close()

    async def run(self) -> Tally:
        """Work until stopped or, with `once`, until nothing is due. Raises as `work`."""
        while not self._stop.is_set():
            try:
                async with self._seat() as at:
                    await look(self._store)
                    await self._work(at)
                    return self._done
            except (CatalogueUnavailable, StorageFailed, Overloaded) as exc:
                await self._wait_out(exc)
        return self._done

    @asynccontextmanager
    async def _seat(self) -> AsyncIterator[Seat]:
        async with contextlib.AsyncExitStack() as stack:
            with translated():
                listen = Queries.read("pending.sql")["listen"]
                opened = seat(self._direct.url, LOCKS_OF_EMBEDDING, listen, pooling=self._direct.pooling)
                at = await stack.enter_async_context(opened)
            while self._earlier:
                await self._pending.give_back(self._earlier[-1])
                self._earlier.pop()
            self._earlier.append(at.number)
            yield at
            self._earlier.remove(at.number)  # nothing is marked with it any more

    async def _work(self, at: Seat) -> None:
        said = False
        while not self._stop.is_set():
            if at.lost:  # it is what woke this: a database that has gone is not waited for in the pool first
                raise CatalogueUnavailable
            at.news.clear()  # before looking: what is written from here on sets it again
            await self._pending.tidy()
            done = await self._pending.embed(at, stop=self._stop, on_done=self._count)
            done += await self._pending.embed(at, stop=self._stop, on_done=self._count, alone=True)
            if done.tried:
                self._say(done)
            if at.lost:
                raise CatalogueUnavailable
            self._found_again()
            if done.tried:
                continue
            if self._options.once:
                return
            if not said:
                said = True
                how = "as soon as they are written" if at.hears else "by looking for them"
                _log.info(
                    "Waiting for pictures that another system writes, as worker %d; they are found %s, and every %g s.",
                    at.number,
                    how,
                    self._options.poll,
                    extra={"fields": {"event": "worker_waiting", "worker": at.number}},
                )
            due = await self._pending.next_due()
            await self._pause(self._options.poll if due is None else min(due, self._options.poll), at.news)

    def _count(self, more: Tally) -> None:
        self._done += more
        if self._progress is not None:
            self._progress.total = max(self._progress.total, self._done.tried)
            self._progress.add(more.tried)

    def _say(self, done: Tally) -> None:
        fields = {"embedded": done.embedded, "setAside": done.set_aside, "putOff": done.put_off}
        _log.info(
            "Pictures embedded: %d; set aside as failed: %d; to be tried again later: %d.",
            *fields.values(),
            extra={"fields": {"event": "pictures_embedded", **fields}},
        )

    async def _wait_out(self, trouble: CatalogueUnavailable | StorageFailed | Overloaded) -> None:
        """Wait until another try may succeed, longer each time. Raises the trouble where that was enough."""
        now = time.monotonic()
        if self._away_since is None:
            self._away_since = now
        if self._options.once and now - self._away_since >= self._options.patience:
            raise trouble
        _log.warning("Waiting, since nothing can be embedded at the moment: %s", trouble.line)
        await self._pause(self._wait)
        self._wait = min(self._wait * 2, _LONGEST_WAIT_SECONDS)

    def _found_again(self) -> None:
        if self._away_since is not None:
            _log.info("The database and the store are there again.")
        self._away_since, self._wait = None, 1.0

    async def _pause(self, seconds: float, *news: asyncio.Event) -> None:
        """Wait so long, or until one of these events, or until stopped."""
        waits = [asyncio.create_task(one.wait()) for one in (self._stop, *news)]
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()
