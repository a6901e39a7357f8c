"""Bringing in the rows of a feed: what that works with, wherever it is done, and how it is done on this machine."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

from server.artifact.artifact import Artifact
from server.bulk.on_demand import OnDemand
from server.catalogue.rows import SpaceRow
from server.database.pool import Pool, open_pool
from server.engine import open_engine
from server.ingest.feed_writer import FeedWriter
from server.ingest.feeds.bucket import bucket_at
from server.ingest.fetch import Fetcher
from server.ingest.letting_go import LettingGo
from server.ingest.mark import Standing
from server.ingest.pictures import Pictures
from server.ingest.pipeline import Counts, Failed, Pipeline
from server.ingest.spool import Placed
from server.ingest.storage import MediaStore
from server.operations.stopping import Stop
from server.settings import Settings
from server.spaces.reembed import with_few_threads

_MOST_PICTURES_AT_ONCE = 128
_BATCHES_AT_ONCE = 4
_CONNECTION_TIMEOUT_SECONDS = 30.0
_STATEMENT_TIMEOUT_SECONDS = 3600.0


@dataclass(frozen=True, kw_only=True)
class Job:
    """A run of a feed, in values that any process can begin with. Secrets are left out of its repr, as of settings'."""

    settings: Settings
    feed: str
    space: SpaceRow
    standing: Standing
    role: str | None
    """That serves, beneath row-level security; None where there is none."""
    bucket: str | None
    """URL of where the keys of rows lead to, if not the store."""
    reread: bool
    loopback: bool
    """Whether pictures may be fetched from the machine itself."""

    def store(self) -> MediaStore:
        """The store of the database, which must have its mark."""
        store = MediaStore.at(self.settings.media_url, self.settings.data / "media")
        store.expected = self.standing.id
        return store

    def pictures(self, store: MediaStore, fetcher: Fetcher) -> Pictures:
        """What fetches the pictures of rows."""
        bucket = store if self.bucket is None else bucket_at(self.bucket)
        return Pictures(most=self.settings.max_upload, bucket=bucket, fetcher=fetcher)

    def fetcher(self) -> Fetcher:
        """What fetches pictures by URL."""
        return Fetcher(self.settings.fetch_hosts, most=self.settings.max_upload, loopback=self.loopback)


@dataclass(slots=True)
class Opening:
    """What opening the model took while rows were brought in."""

    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Run:
    """What bringing in the rows works with in the process of the command."""

    job: Job
    artifact: Artifact
    url: str
    """Of the database, with the rights of its owner."""
    serving_url: str
    writer: FeedWriter
    store: MediaStore
    letting_go: LettingGo
    stop: Stop
    on_failed: Callable[[Failed], None]
    on_done: Callable[[int], None]
    opening: Opening = field(default_factory=Opening)


BringRows = Callable[[Iterator[Placed], int], Awaitable[Counts]]
"""Brings in these rows, of which there are so many, as `Pipeline.run` does."""

Bring = Callable[[Run], AbstractAsyncContextManager[BringRows]]
"""Gets ready to bring in rows."""


@asynccontextmanager
async def here(run: Run) -> AsyncIterator[BringRows]:
    """Bring the rows in on this machine, with one model. Raises ArtifactInvalid, BadSetting."""
    settings = with_few_threads(run.job.settings)
    decoding = settings.threads or len(os.sched_getaffinity(0))
    at_once = min(_MOST_PICTURES_AT_ONCE, _BATCHES_AT_ONCE * (settings.batch or _MOST_PICTURES_AT_ONCE))
    opened = partial(open_engine, settings, run.artifact, words=False, decoding=decoding, aside=True)
    async with OnDemand(opened) as model, run.job.fetcher() as fetcher:
        pipeline = Pipeline(
            writer=run.writer,
            embedder=model,
            store=run.store,
            pictures=run.job.pictures(run.store, fetcher),
            let_go=lambda keys: run.letting_go.let_go(*keys),
            at_once=at_once,
            stop=run.stop,
            on_failed=run.on_failed,
            on_done=run.on_done,
            reread=run.job.reread,
        )

        async def bring(rows: Iterator[Placed], count: int) -> Counts:
            try:
                return await pipeline.run(rows)
            finally:
                run.opening.seconds = model.seconds

        yield bring


def pool_for(settings: Settings, url: str, role: str | None, *, least: int = 1) -> Pool:
    """Connections for the statements of a run; `least`: that are kept while there is nothing to do."""
    return open_pool(
        url,
        min_size=least,
        max_size=3,
        timeout=_CONNECTION_TIMEOUT_SECONDS,
        longest=_STATEMENT_TIMEOUT_SECONDS,
        pooling=settings.pooling,
        role=role,
    )
