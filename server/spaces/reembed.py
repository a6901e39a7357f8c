"""Re-embedding: embed the catalogue with another model beside the live one, then switch to the new model's space.

Nothing is remembered beside the tables: a media is to be embedded when it has no vector in the new space. So a run may
be killed at any moment. The next run goes on, and repeats only what was not written yet, some dozens of pictures.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from psycopg.rows import class_row

from server.artifact.artifact import Artifact
from server.catalogue.catalogue import Catalogue
from server.catalogue.rows import SpaceRow
from server.database import connections, migrations
from server.database.advisory import held_if_free
from server.database.connections import Direct, connect
from server.database.failures import translated
from server.database.locks import LOCKS_OF_REEMBEDDING
from server.database.pool import open_pool
from server.engine import open_engine
from server.errors import ReembeddingStopped, SessionNeeded, SpaceRefused
from server.inference import gpus
from server.ingest.mark import settle
from server.ingest.storage import MediaStore
from server.operations.progress import Progress
from server.operations.stopping import Stop, stop_on_signals
from server.settings import Settings
from server.spaces import spaces
from server.spaces.backfill import Backfill, Backfilled
from server.spaces.spaces import EARLIEST, LATEST, SpaceDescription
from server.spaces.switch import MOST_FILLED_WHILE_LOCKED, switch

_BATCH = 8
_BATCHES_AT_ONCE = 4
_MOST_PICTURES_AT_ONCE = 128
_FOLLOW_EACH_SECONDS = 2.0
_CONNECTION_TIMEOUT_SECONDS = 30.0
_STATEMENT_TIMEOUT_SECONDS = 24 * 3600.0
_MOST_PASSES = 30

Ending = Literal["complete", "live", "switched", "filled", "stopped"]
"""How a run ended. `complete`: the space is live and nothing was missing; `live`: the space was live already, and has
now what can be embedded; `switched`: it is live now; `filled`: it has what can be embedded, and is not live; `stopped`:
a signal came first."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """`switch`: make the space live once it is complete; `leave_out_unreadable`: although some pictures could not be
    embedded; `follow`: then go on embedding what is added, until stopped."""

    switch: bool = True
    leave_out_unreadable: bool = False
    follow: bool = False


@dataclass(frozen=True)
class Reason:
    """Why media could not be embedded: the reason, how many media it holds for, and the id of one."""

    reason: str
    media: int
    example: str


@dataclass(frozen=True)
class Unreadable:
    """What could not be embedded, by the most frequent reasons."""

    reasons: Sequence[Reason]


@dataclass(frozen=True)
class Outcome:
    """How a run ended for a space, and how many pictures it embedded."""

    space: SpaceRow
    ending: Ending
    embedded: int = 0
    stopped_by: signal.Signals | None = None
    """Where the ending is `stopped`."""


Report = Callable[[Unreadable | Outcome], None]
"""Called with what could not be embedded, before the switch; and with the outcome, before following begins."""


def lower_priority() -> None:
    """Let all other processes of this machine go first: this process and its threads use what they leave over.

    At the lowest priority alone, whoever wakes up beside this process may wait for it until its slice has ended.
    """
    os.nice(19)
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


async def reembed(settings: Settings, folder: Path, url: str, options: Options, report: Report) -> Outcome:
    """Fill the space of the artifact in `folder`, then switch to it, as `options` say.

    Raises ArtifactInvalid, DatabaseUnusable, SpaceRefused's kinds, StoreRefused, CatalogueUnavailable's
    kinds, StorageFailed.
    """
    artifact = Artifact.read(folder)
    artifact.check_files(artifact.files_to_run(settings.precision))
    direct = connections.direct_of(settings, url)
    # Servers may be running, and of an older version.
    await asyncio.to_thread(migrations.require_migrated, url, writing=True)
    store = MediaStore.at(settings.media_url, settings.data / "media")
    await asyncio.to_thread(settle, url, store)
    space = await asyncio.to_thread(spaces.register, url, SpaceDescription.of(artifact, settings.precision))
    async with _only_run(direct, space), stop_on_signals() as stop:
        found = await asyncio.to_thread(spaces.missing, url, space)
        if space.live and not options.follow and not found.total:
            outcome = Outcome(space, "complete")
            report(outcome)
            return outcome
        settings = with_few_threads(replace(settings, model=folder))
        pool = open_pool(
            url,
            min_size=1,
            max_size=6,
            timeout=_CONNECTION_TIMEOUT_SECONDS,
            longest=_STATEMENT_TIMEOUT_SECONDS,
            pooling=settings.pooling,
        )
        decoding = settings.threads or len(os.sched_getaffinity(0))
        async with open_engine(settings, artifact, words=False, decoding=decoding) as engine, pool:
            at_once = min(_MOST_PICTURES_AT_ONCE, _BATCHES_AT_ONCE * (settings.batch or _MOST_PICTURES_AT_ONCE))
            backfill = Backfill(pool, space, engine.embedder, store, at_once=at_once)
            catalogue = Catalogue(pool, space, recall=settings.target_recall, direct=direct)
            return await _Reembedding(url, catalogue, backfill, options, stop, report).run(found.total)


def with_few_threads(settings: Settings) -> Settings:
    """On the CPU: half of the cores unless a setting says otherwise, and no measuring of layouts beside other work."""
    if gpus.usable(settings.device):
        return settings
    threads = settings.threads or max(1, len(os.sched_getaffinity(0)) // 2)
    return replace(settings, threads=threads, batch=settings.batch or _BATCH)


@contextlib.asynccontextmanager
async def _only_run(direct: Direct, space: SpaceRow) -> AsyncIterator[None]:
    """One process at a time re-embeds for a space; the database releases the lock when the process dies."""
    lock = (LOCKS_OF_REEMBEDDING, space.number)
    async with contextlib.AsyncExitStack() as stack:
        with translated():
            locked = await stack.enter_async_context(held_if_free(direct.url, lock, pooling=direct.pooling))
        if not locked:
            raise SpaceRefused(
                f"Another process is re-embedding for the space {space.short_id} at this moment: let it go on, or stop "
                "it before starting another."
            )
        yield


class _Reembedding:
    """One run: fill the space, prepare it for searches, switch to it, follow what is added."""

    def __init__(
        self, url: str, catalogue: Catalogue, backfill: Backfill, options: Options, stop: Stop, report: Report
    ) -> None:
        self._url = url
        self._catalogue = catalogue
        self._space = catalogue.space
        self._backfill = backfill
        self._options = options
        self._stop = stop
        self._report = report
        self._progress = Progress(sys.stderr, 0, "pictures")
        self._embedded = 0
        # Media that were added below this transaction have been tried.
        self._since = EARLIEST
        self._failed: set[str] = set()

    async def run(self, missing: int) -> Outcome:
        """`missing`: how many media the space lacks at the start, for the progress that is shown."""
        self._progress.total = missing
        _log.info("Embedding %d pictures in the space %s (%s).", missing, self._space.short_id, self._space.model)
        try:
            await self._fill_all()
            if not self._stop.is_set() and not self._space.live:
                _log.info("Collecting statistics, and building the large clients' indexes, before the first search.")
                await self._prepare()
                await self._fill_all()
        finally:
            self._progress.close()
        if not self._stop.is_set() and self._failed:
            self._report(await asyncio.to_thread(self._unreadable))
        ending = await self._finish()
        stopped_by = self._stop.signal if ending == "stopped" else None
        outcome = Outcome(self._space, ending, self._embedded, stopped_by)
        self._report(outcome)
        if self._options.follow and ending != "stopped":
            await self._follow()
        return outcome

    async def _finish(self) -> Ending:
        """Switch to the space if that is wanted; how the run ends."""
        if self._stop.is_set():
            return "stopped"
        if self._space.live:
            return "live"
        if not self._options.switch:
            return "filled"
        return "switched" if await self._switch() else "stopped"

    async def _fill_all(self) -> None:
        """Pass after pass, each over what was added during the one before, until the switch can embed the rest."""
        for _ in range(_MOST_PASSES):
            if await self._pass() <= MOST_FILLED_WHILE_LOCKED or self._stop.is_set():
                return

    async def _pass(self) -> int:
        """Embed what was added since the last pass; how many media were missing."""
        horizon = await self._backfill.horizon()
        first = self._since == EARLIEST
        number = 0
        async for page in self._backfill.missing(self._since, LATEST if first else horizon.unseen_from):
            ids = [one for one in page if one not in self._failed]
            number += len(ids)
            await self._fill(ids)
            if self._stop.is_set():
                return number
        self._since = horizon.complete_below
        return number

    async def _fill(self, ids: Sequence[str], *, in_haste: bool = False) -> None:
        def count(more: Backfilled) -> None:
            self._embedded += more.embedded
            self._failed.update(more.unreadable_ids)
            self._progress.total = max(self._progress.total, self._progress.done + more.tried)
            self._progress.add(more.tried)

        await self._backfill.fill(ids, on_done=count, describe=not in_haste, stop=self._stop)

    async def _prepare(self) -> None:
        """Give PostgreSQL the statistics and the indexes that the first search needs."""
        await self._catalogue.analyse()
        try:
            while (await self._catalogue.maintain_indexes()).busy and not self._stop.is_set():
                await self._pause()  # a server is building one
        except SessionNeeded as exc:
            _log.warning("The large clients' searches are exact, and slow, until they have indexes. %s", exc.sentence)

    async def _switch(self) -> bool:
        """Make the space live; False when a signal came first."""
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
                switch,
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
            await asyncio.wait_for(self._stop.wait(), _FOLLOW_EACH_SECONDS)

    def _unreadable(self) -> Unreadable:
        with connect(self._url) as connection, connection.cursor(row_factory=class_row(Reason)) as cursor:
            query = spaces.queries_of(self._space)["reasons"]
            return Unreadable(cursor.execute(query, {"number": self._space.number}).fetchall())
