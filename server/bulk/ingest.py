"""Bringing a feed into the catalogue, or in step with it again; beside servers, or while none runs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
import zlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

from server.access.audit import record
from server.artifact.artifact import Artifact
from server.bulk import pruning
from server.bulk.bringing import Bring, Job, Run, here, pool_for
from server.catalogue.catalogue import Catalogue
from server.catalogue.rows import SpaceRow
from server.database import isolation, migrations
from server.database.advisory import held_if_free
from server.database.connections import Direct, connect, direct_of
from server.database.failures import translated
from server.database.locks import LOCKS_OF_FEEDS
from server.database.pool import Pool
from server.database.runner import Runner
from server.errors import IngestRefused, SessionNeeded
from server.ingest.backups import backup_runs
from server.ingest.failures import Failures
from server.ingest.feed import Feed, Row, Wrong
from server.ingest.feed_writer import FeedWriter
from server.ingest.letting_go import LettingGo
from server.ingest.mark import settle
from server.ingest.pipeline import Counts, Failed
from server.ingest.spool import Spool
from server.ingest.storage import MediaStore
from server.operations.progress import Progress
from server.operations.stopping import Stop, stop_on_signals
from server.settings import Settings, may_fetch_from_loopback
from server.spaces.spaces import SpaceDescription, open_space

_INDEXES_EACH_SECONDS = 2.0
_MOST_CLIENTS_IN_THE_AUDIT = 100

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Options:
    """`name`: of the feed, by which its next run knows what it has brought. `prune`: take out what has left the feed,
    unless more than `prune_at_most` of it would go, a share. `reread`: read also files that look unchanged."""

    name: str
    prune: bool = False
    prune_at_most: float = 0.2
    reread: bool = False


@dataclass(slots=True)
class Outcome:
    """How a run ended."""

    counts: Counts = field(default_factory=Counts)
    pictures_removed: int = 0
    """That rows had before, or that have left the feed."""
    products_removed: int = 0
    stopped_by: signal.Signals | None = None
    not_pruned: bool = False
    """Whether nothing was taken out since lines are wrong: what they name may seem to have left the feed."""
    seconds: float = 0.0
    bringing_seconds: float = 0.0
    """Of these, what bringing in the rows took, without what the model took to open where a picture needed it."""


def read(feed: Feed, spool: Spool, failures: Failures) -> None:
    """Read the whole feed: its rows into the spool, and its wrong lines to the failures. Raises FeedUnreadable."""
    for one in feed.read():
        if isinstance(one, Row):
            spool.add(one)
        elif isinstance(one, Wrong):
            failures.wrong(one)
    spool.finish()


async def ingest(
    settings: Settings,
    url: str,
    spool: Spool,
    failures: Failures,
    options: Options,
    *,
    bucket: str | None = None,
    bring: Bring = here,
) -> Outcome:
    """Bring the rows of the spool into the catalogue. `bucket`: the URL of where the keys of rows lead to, if not the
    store. `bring`: on this machine, or elsewhere.

    What a run has written stays, however it ends; the next one begins with the rest. Raises IngestRefused,
    ArtifactInvalid, DatabaseUnusable, SpaceNotLive, StoreRefused, CatalogueUnavailable's kinds, StorageFailed's kinds.
    """
    started = time.monotonic()
    artifact = Artifact.read(settings.model)
    artifact.check_files(artifact.files_to_run(settings.precision))
    direct = direct_of(settings, url)
    await asyncio.to_thread(_make_ready, settings, url)
    store = MediaStore.at(settings.media_url, settings.data / "media")
    standing = await asyncio.to_thread(settle, url, store)
    space = await asyncio.to_thread(open_space, url, SpaceDescription.of(artifact, settings.precision))
    serving_url = settings.current("database_url") or url
    role = (await asyncio.to_thread(isolation.find, serving_url)).role
    job = Job(
        settings=settings,
        feed=options.name,
        space=space,
        standing=standing,
        role=role,
        bucket=bucket,
        reread=options.reread,
        loopback=may_fetch_from_loopback(os.environ),
    )
    async with _only_run(direct, options.name), stop_on_signals() as stop:
        async with pool_for(settings, url, None) as owners, pool_for(settings, serving_url, role) as clients:
            writer = FeedWriter(options.name, space, Runner(clients), Runner(owners))
            prune = options.prune and not failures.count
            if prune:
                pruning.require(await pruning.look(writer, spool), options.prune_at_most)
            await asyncio.to_thread(_audit, url, options.name, spool.clients(_MOST_CLIENTS_IN_THE_AUDIT))
            outcome = Outcome(not_pruned=options.prune and not prune)
            # What remains when it lets objects go is swept later.
            letting_go = LettingGo(store, own=standing.own, backup_runs=partial(backup_runs, owners))
            progress = Progress(sys.stderr, spool.count, "rows")

            def fail(failed: Failed) -> None:
                progress.failed += 1
                failures.failed(failed)

            run = Run(
                job=job,
                artifact=artifact,
                url=url,
                serving_url=serving_url,
                writer=writer,
                store=store,
                letting_go=letting_go,
                stop=stop,
                on_failed=fail,
                on_done=progress.add,
            )
            async with bring(run) as bring_rows:
                began = time.monotonic()
                try:
                    outcome.counts = await bring_rows(spool.placed(), spool.count)
                finally:
                    outcome.bringing_seconds = time.monotonic() - began - run.opening.seconds
                    progress.close()
            if not stop.is_set():
                await _take_out(writer, spool, letting_go, outcome, prune=prune)
            if outcome.counts.added or outcome.pictures_removed:
                await _tend(settings, owners, space, direct, stop)
        if stop.is_set():
            outcome.stopped_by = stop.signal
        outcome.seconds = time.monotonic() - started
        return outcome


async def _take_out(writer: FeedWriter, spool: Spool, letting_go: LettingGo, outcome: Outcome, *, prune: bool) -> None:
    """Remove the pictures that rows had before; with `prune`, also what has left the feed."""

    async def let_go(keys: Sequence[str]) -> None:
        await letting_go.let_go(*keys)

    if prune:
        outcome.products_removed, outcome.pictures_removed = await pruning.prune(writer, spool, let_go)
    else:
        outcome.pictures_removed = await pruning.clear(writer, let_go)


def lock_of(name: str) -> tuple[int, int]:
    """The advisory lock of whoever brings in the feed of this name."""
    return LOCKS_OF_FEEDS, zlib.crc32(name.encode()) - 2**31


def _make_ready(settings: Settings, url: str) -> None:
    """Make an empty database a catalogue's, as the first start of a server does; and see that another one is up to
    date. Raises DatabaseUnusable."""
    with connect(url) as connection:
        state = migrations.look(connection)
    if state.applied:
        migrations.require_migrated(url, writing=True)
    else:
        migrations.migrate_directly(settings, url)
        isolation.arrange(url, settings.serving_url)


def _audit(url: str, name: str, clients: Sequence[str]) -> None:
    """Keep that the feed is brought in: for each client, as long as they are few."""
    with connect(url) as connection, connection.transaction():
        few: Sequence[str | None] = clients if len(clients) < _MOST_CLIENTS_IN_THE_AUDIT else [None]
        for client_id in few or [None]:
            record(connection, "ingest", client_id=client_id, object=name)


async def _tend(settings: Settings, owners: Pool, space: SpaceRow, direct: Direct, stop: Stop) -> None:
    """Give PostgreSQL the statistics and the indexes that searches need after many rows have changed."""
    catalogue = Catalogue(owners, space, recall=settings.target_recall, direct=direct)
    _log.info("Collecting statistics, and building the large clients' indexes.")
    await catalogue.analyse()
    try:
        while not stop.is_set() and (await catalogue.maintain_indexes()).busy:
            with contextlib.suppress(TimeoutError):  # a server is building one
                await asyncio.wait_for(stop.wait(), _INDEXES_EACH_SECONDS)
    except SessionNeeded as exc:
        _log.warning("The large clients' searches are exact, and slow, until they have indexes. %s", exc.sentence)


@asynccontextmanager
async def _only_run(direct: Direct, name: str) -> AsyncIterator[None]:
    """One process at a time brings in a feed; the database releases the lock when the process dies."""
    async with contextlib.AsyncExitStack() as stack:
        with translated():
            locked = await stack.enter_async_context(held_if_free(direct.url, lock_of(name), pooling=direct.pooling))
        if not locked:
            raise IngestRefused(
                f"Another process is bringing in the feed {name} at this moment: let it go on, or stop it before "
                "starting another."
            )
        yield
