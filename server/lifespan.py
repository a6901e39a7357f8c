"""What the server needs to answer, opened in order and closed in reverse. Warm before ready."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from server.artifact.artifact import Artifact
from server.artifact.grades import Grades
from server.batching.embedder import Embedder
from server.catalogue.catalogue import Catalogue
from server.catalogue.recall import Sampler
from server.catalogue.rows import SpaceRow
from server.database import connections
from server.engine import open_engine
from server.errors import DatabaseUnusable
from server.inference import gpus
from server.inference.encoder import Encoder
from server.ingest import demo
from server.ingest.librarian import Librarian
from server.ingest.storage import MediaStore
from server.operations.metrics import SHARED, Load, Metrics, Vectors
from server.operations.workers import Place, refusing
from server.settings import Settings
from server.spaces.maintenance import Maintenance
from server.spaces.spaces import claim_space

_POOL_SIZE = 8
_POOL_PATIENCE = 5.0
_DATABASE_PATIENCE = 600.0
_INDEX_ROUND = 10.0
_THOROUGH_ROUND = 60
_TELL_ROUND = 1.0


_ALONE = Place()

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Services:
    """What routes use."""

    settings: Settings
    encoder: Encoder
    embedder: Embedder
    catalogue: Catalogue
    librarian: Librarian
    metrics: Metrics

    @property
    def grades(self) -> Grades | None:
        """What a cosine between two pictures means in the space that is served."""
        return self.encoder.artifact.variant(self.encoder.precision).grades

    @property
    def text_grades(self) -> Grades | None:
        """The same between words and a picture."""
        return self.encoder.artifact.variant(self.encoder.precision).text_grades


@asynccontextmanager
async def open_services(settings: Settings, place: Place = _ALONE) -> AsyncIterator[Services]:
    """Artifact, engine, pool, catalogue: in this order. Raises StartRefused's kinds."""
    started = perf_counter()
    metrics = Metrics(Path(os.environ[SHARED]) if SHARED in os.environ else None)
    artifact = Artifact.read(settings.model)
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(refusing())
        engine = await stack.enter_async_context(
            open_engine(
                settings,
                artifact,
                gpu=gpus.gpu_of(place.number, found) if (found := gpus.usable(settings.device)) else 0,
                on_batch=metrics.batched,
                on_embedded=metrics.embedded,
            )
        )
        encoder, embedder = engine.encoder, engine.embedder

        url = settings.database_url or ""
        space = await _claim_when_it_answers(url, artifact, settings.precision)
        pool = connections.open_pool(
            url, min_size=2, max_size=_POOL_SIZE, timeout=_POOL_PATIENCE, longest=settings.deadline
        )
        catalogue = Catalogue(await stack.enter_async_context(pool), space, recall=settings.target_recall)
        sampler = Sampler(catalogue, metrics.compared)
        stack.push_async_callback(_cancel, asyncio.create_task(sampler.run(), name="recall"))
        store = MediaStore.at(settings.media_url, settings.data / "media")
        librarian = Librarian(embedder, catalogue, store)
        stack.push_async_callback(librarian.close)

        if place.first:
            if settings.demo:
                await demo.load(catalogue, librarian)
            stack.push_async_callback(_cancel, asyncio.create_task(_tend(catalogue), name="indexes"))
            maintenance = Maintenance(pool, space, embedder, store)
            stack.push_async_callback(_cancel, asyncio.create_task(maintenance.run(), name="missing vectors"))
        if place.of > 1:
            stack.push_async_callback(_cancel, asyncio.create_task(_tell(metrics, embedder), name="metrics"))
        _log.info(
            "Ready after %.1f s at http://%s:%d - %s (%s, %s) on %s%s, goldens at cosine %.7f, space %s%s",
            perf_counter() - started,
            settings.host,
            settings.port,
            encoder.model,
            settings.precision,
            "pictures and words" if embedder.reads_text else "pictures only",
            encoder.device,
            f" ({engine.layout})" if engine.layout else "",
            engine.lowest,
            encoder.space.id[:12],
            f", worker {place.number + 1} of {place.of}" if place.of > 1 else "",
        )
        yield Services(settings, encoder, embedder, catalogue, librarian, metrics)


def load_of(embedder: Embedder) -> Load:
    """What the embedder has inside, and what it has counted, as the metrics take it."""
    vectors: dict[str, Vectors] = {
        tower: Vectors(kept=known.hits, joined=known.joined, made=known.made, bytes=known.bytes)
        for tower, known in embedder.known.items()
    }
    return Load(embedder.pictures.inside, embedder.texts.inside, vectors)


async def _claim_when_it_answers(url: str, artifact: Artifact, precision: str) -> SpaceRow:
    """As `claim_space`; a database that is away is waited for, since the parent has just used it."""
    deadline = perf_counter() + _DATABASE_PATIENCE
    while True:
        try:
            # Its parent has seen the space live. Now it may be the way back, and those who still ask here are answered.
            return await asyncio.to_thread(claim_space, url, artifact, precision, or_retired=True)
        except DatabaseUnusable as exc:
            if perf_counter() > deadline:
                raise
            _log.warning("Waiting for the database: %s", exc.sentence)
            await asyncio.sleep(1.0)


async def _tend(catalogue: Catalogue) -> None:
    """Look after the large clients' indexes for as long as the server runs."""
    for number in itertools.count():
        try:
            await catalogue.maintain_indexes(thorough=number % _THOROUGH_ROUND == 0)
        except Exception:
            _log.exception("The indexes could not be looked after; another try follows.")
        await asyncio.sleep(_INDEX_ROUND)


async def _tell(metrics: Metrics, embedder: Embedder) -> None:
    """Several workers: whichever is asked for the metrics tells those of all, so each keeps its own up to date."""
    while True:
        try:
            metrics.observe(load_of(embedder))
        except OSError:
            _log.exception("The metrics could not be written; another try follows.")
        await asyncio.sleep(_TELL_ROUND)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
