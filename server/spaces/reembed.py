"""python -m server reembed: embed the catalogue with another model, beside the live one, then switch to it.

It keeps no state beside the tables: what is to be done is what has no vector in the new space. So it may be killed at
any moment; running it again goes on, and repeats what was not written yet, some dozens of pictures.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from psycopg import AsyncConnection

from server.artifact.artifact import Artifact
from server.catalogue.catalogue import Catalogue
from server.catalogue.rows import SpaceRow
from server.database import connections, migrations
from server.database.connections import connect
from server.database.failures import translated
from server.database.locks import LOCKS_OF_REEMBEDDING
from server.engine import open_engine
from server.errors import ReembeddingStopped, SpaceRefused
from server.inference import gpus
from server.ingest.storage import MediaStore
from server.operations.progress import Progress
from server.settings import Settings
from server.spaces import spaces
from server.spaces.backfill import Backfill, Backfilled
from server.spaces.spaces import ALL_TIME, about_space

_BATCH = 8
_BATCHES_AT_ONCE = 4
_MOST_AT_ONCE = 128
_ROUND = 2.0
_PATIENCE = 30.0
_LONGEST = 24 * 3600.0
# With no more than these missing the switch itself can fill them in.
_FEW = 16
_MOST_PASSES = 30

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """What `python -m server reembed` is told. `switch`: make the space live once it is complete; `follow`: then go on
    embedding what is added, until stopped."""

    switch: bool = True
    leave_out_unreadable: bool = False
    follow: bool = False


def give_way() -> None:
    """Let everybody else on this machine go first: this process and its threads take what is left over."""
    os.nice(19)
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


async def reembed(settings: Settings, folder: Path, url: str, options: Options) -> int:
    """Fill the space of the artifact in `folder`, then switch to it; the exit code. Raises as `run`."""
    artifact = Artifact.read(folder)
    artifact.check_files(artifact.files_to_run(settings.precision))
    await asyncio.to_thread(migrations.migrate, url)
    space = await asyncio.to_thread(lambda: spaces.register(url, **about_space(artifact, settings.precision)))
    async with _alone(url, space), _until_told() as stop:
        found = await asyncio.to_thread(spaces.missing, url, space)
        if space.live and not options.follow and not (found.untried or found.lost or found.unreadable):
            print(f"The space {space.id[:12]} ({space.model}) is live, and nothing is missing in it.")
            return 0
        settings = _modest(replace(settings, model=folder))
        pool = connections.open_pool(url, min_size=1, max_size=6, timeout=_PATIENCE, longest=_LONGEST)
        async with (
            open_engine(
                settings, artifact, words=False, decoding=settings.threads or len(os.sched_getaffinity(0))
            ) as engine,
            pool,
        ):
            store = MediaStore.at(settings.media_url, settings.data / "media")
            at_once = min(_MOST_AT_ONCE, _BATCHES_AT_ONCE * (settings.batch or _MOST_AT_ONCE))
            backfill = Backfill(pool, space, engine.embedder, store, at_once=at_once)
            total = found.untried + found.lost + found.unreadable
            catalogue = Catalogue(pool, space, recall=settings.target_recall)
            return await _Work(url, catalogue, backfill, options, stop, total).run()


def _modest(settings: Settings) -> Settings:
    """With half of the cores unless told, and without measuring how to use them beside whatever runs now."""
    if gpus.usable(settings.device):
        return settings
    threads = settings.threads or max(1, len(os.sched_getaffinity(0)) // 2)
    return replace(settings, threads=threads, batch=settings.batch or _BATCH)


class _Stop(asyncio.Event):
    """Set by SIGINT or SIGTERM; `signal` says which."""

    signal: signal.Signals = signal.SIGTERM


@contextlib.asynccontextmanager
async def _until_told() -> AsyncIterator[_Stop]:
    """SIGINT and SIGTERM are a request to stop; the second one ends at once."""
    stop, loop, task = _Stop(), asyncio.get_running_loop(), asyncio.current_task()

    def told(number: signal.Signals) -> None:
        if stop.is_set() and task is not None:
            task.cancel()
        stop.signal = number
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, told, number)
    try:
        yield stop
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


@contextlib.asynccontextmanager
async def _alone(url: str, space: SpaceRow) -> AsyncIterator[None]:
    """One process at a time re-embeds for a space; the database lets go of the lock when the process dies."""
    with translated():
        connection = await AsyncConnection.connect(url, autocommit=True, connect_timeout=10)
    async with connection:
        with translated():
            locks = (LOCKS_OF_REEMBEDDING, space.number)
            row = await (await connection.execute("SELECT pg_try_advisory_lock(%s, %s)", locks)).fetchone()
        if row is None or not row[0]:
            raise SpaceRefused(
                f"Another process is re-embedding for the space {space.id[:12]} at this moment: let it go on, or stop "
                "it before starting another."
            )
        yield


class _Work:
    """One run: fill, build what searches need, switch, follow."""

    def __init__(
        self, url: str, catalogue: Catalogue, backfill: Backfill, options: Options, stop: _Stop, total: int
    ) -> None:
        self._url = url
        self._catalogue = catalogue
        self._space = catalogue.space
        self._backfill = backfill
        self._options = options
        self._stop = stop
        self._progress = Progress(sys.stderr, total, "pictures")
        self._embedded = 0
        # Whatever was added below this transaction has been tried.
        self._since = ALL_TIME[0]
        self._failed: set[str] = set()

    async def run(self) -> int:
        short, model = self._space.id[:12], self._space.model
        _log.info("Embedding %d pictures in the space %s (%s).", self._progress.total, short, model)
        try:
            await self._fill_all()
            if not self._stop.is_set() and not self._space.live:
                _log.info("Counting what is there, and building the large clients' indexes, before the first search.")
                await self._prepare()
                await self._fill_all()
        finally:
            self._progress.close()
        if self._stop.is_set():
            return self._stopped()
        self._tell_unreadable()
        if self._space.live:
            print(f"The space {short} ({model}) is live, and has what can be embedded.")
        elif self._options.switch:
            if not await self._switch():
                return self._stopped()
            print(f"The space {short} ({model}) is live now. Start servers with its artifact.")
        else:
            print(
                f"The space {short} ({model}) has what can be embedded. This makes it live: "
                f"python -m server spaces switch {short}"
            )
        sys.stdout.flush()
        if self._options.follow:
            await self._follow()
        return 0

    async def _fill_all(self) -> None:
        """Pass after pass, each over what has come during the one before, until hardly anything has."""
        for _ in range(_MOST_PASSES):
            if await self._pass() <= _FEW or self._stop.is_set():
                return

    async def _pass(self) -> int:
        """Embed what has come since the last pass; how many were missing."""
        oldest, next_one = await self._backfill.horizon()
        first = self._since == ALL_TIME[0]
        number = 0
        async for page in self._backfill.missing(self._since, ALL_TIME[1] if first else next_one):
            ids = [one for one in page if one not in self._failed]
            number += len(ids)
            await self._fill(ids)
            if self._stop.is_set():
                return number
        self._since = oldest
        return number

    async def _fill(self, ids: Sequence[str], *, in_haste: bool = False) -> None:
        def tell(more: Backfilled) -> None:
            self._embedded += more.embedded
            self._failed.update(more.unreadable_ids)
            self._progress.total = max(self._progress.total, self._progress.done + more.tried)
            self._progress.add(more.tried)

        await self._backfill.fill(ids, on_done=tell, describe=not in_haste, stop=self._stop)

    async def _prepare(self) -> None:
        """What PostgreSQL should know and have before the first search."""
        await self._catalogue.analyse()
        while (await self._catalogue.maintain_indexes()).busy and not self._stop.is_set():
            await self._pause()  # a server is building one

    async def _switch(self) -> bool:
        """Make the space live; False where it was told to stop instead."""
        loop = asyncio.get_running_loop()

        def fill(ids: Sequence[str], within: float | None) -> None:
            if self._stop.is_set():
                raise ReembeddingStopped
            work = asyncio.run_coroutine_threadsafe(self._fill(ids, in_haste=within is not None), loop)
            try:
                work.result(within)
            except TimeoutError:
                work.cancel()

        space = await asyncio.to_thread(spaces.choose, self._url, self._space.id)
        try:
            await asyncio.to_thread(
                spaces.switch,
                self._url,
                space,
                leave_out_unreadable=self._options.leave_out_unreadable,
                fill=fill,
            )
        except ReembeddingStopped:
            if not self._stop.is_set():
                raise
            return False
        return True

    async def _follow(self) -> None:
        _log.info("Following what is added, until stopped.")
        while not self._stop.is_set():
            await self._pause()
            await self._pass()

    async def _pause(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), _ROUND)

    def _stopped(self) -> int:
        print(
            f"Stopped. {self._embedded:,} pictures were embedded and are kept; nothing was switched. The same "
            "command goes on from here.",
            file=sys.stderr,
        )
        return 128 + self._stop.signal

    def _tell_unreadable(self) -> None:
        if not self._failed:
            return
        with connect(self._url) as connection:
            query = spaces.queries_of(self._space)["reasons"]
            rows = connection.execute(query, {"number": self._space.number}).fetchall()
        reasons = "\n".join(f"  {count:>8,}  {reason} (such as {example})" for reason, count, example in rows)
        print(f"These could not be embedded:\n{reasons}", file=sys.stderr)
