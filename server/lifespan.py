"""What the server needs to answer, opened in order and closed in reverse. Warm before ready."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TypeVar

from server import __version__
from server.access.exact import ExactLimiter
from server.access.idempotency import Ledger
from server.access.keyring import Keyring
from server.access.limits import Limiter, LocalLimiter, limits_of
from server.access.terms import Terms
from server.access.trail import Trail
from server.artifact.artifact import Artifact
from server.artifact.grades import Grades, TextGrades
from server.batching.embedder import Embedder
from server.catalogue.catalogue import Catalogue
from server.catalogue.overview import Overview
from server.catalogue.recall import Sampler
from server.catalogue.rows import SpaceRow
from server.catalogue.sizes import Census
from server.catalogue.tally import Tallies
from server.database import isolation
from server.database.connections import connect, direct_of, try_connection
from server.database.pool import Pool, open_pool
from server.database.preconditions import require_catalogue
from server.database.replica import Replica
from server.database.runner import Runner
from server.engine import Engine, open_engine
from server.errors import (
    CatalogueFailed,
    CatalogueUnavailable,
    DatabaseUnfit,
    DatabaseUnusable,
    SessionNeeded,
    TwinlensError,
)
from server.health import Health, disks_of
from server.inference import gpus
from server.inference.encoder import Encoder
from server.ingest import demo
from server.ingest.backups import backup_runs
from server.ingest.fetch import Fetcher
from server.ingest.librarian import Librarian
from server.ingest.mark import Standing, settle
from server.ingest.storage import MediaStore
from server.ingest.sweep import Sweeper
from server.ingest.watch import watch
from server.limits import UNLIMITED, Limits
from server.operations.background import Background
from server.operations.metrics import SHARED, Metrics
from server.operations.running import Running
from server.operations.traces import open_traces
from server.operations.workers import PLACES, Place, report_ready, reporting_refusal
from server.settings import Settings, may_fetch_from_loopback
from server.spaces.maintenance import Maintenance
from server.spaces.spaces import SpaceDescription, open_space
from server.tracing import Tracer

_POOL_SIZE = 8
_BACKGROUND_POOL_SIZE = 4
_CONNECTION_TIMEOUT_SECONDS = 5.0
_DATABASE_PATIENCE_SECONDS = 600.0
_DATABASE_ASKED_EACH_SECONDS = 1.0
_INDEXES_EACH_SECONDS = 10.0
# Of the looks at the indexes: one in so many is thorough.
_THOROUGH_EACH_LOOKS = 60
_WORDS_EACH_SECONDS = 5.0
_METRICS_EACH_SECONDS = 1.0
_STORE_EACH_SECONDS = 5.0

_ALONE = Place()

T = TypeVar("T")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Services:
    """What routes use."""

    settings: Settings
    encoder: Encoder
    embedder: Embedder
    catalogue: Catalogue
    librarian: Librarian
    store: MediaStore
    fetcher: Fetcher
    metrics: Metrics
    keyring: Keyring
    terms: Terms
    trail: Trail
    ledger: Ledger
    health: Health
    overview: Overview
    running: Running
    tracer: Tracer | None

    @property
    def grades(self) -> Grades | None:
        """What a cosine between two pictures means in the space that is served."""
        return self.encoder.artifact.variant(self.encoder.precision).grades

    @property
    def text_grades(self) -> TextGrades | None:
        """What a cosine between a text and a picture means there."""
        return self.encoder.artifact.variant(self.encoder.precision).text_grades


@asynccontextmanager
async def open_services(settings: Settings, place: Place = _ALONE) -> AsyncIterator[Services]:
    """Artifact, engine, space, pool, catalogue, store: opened in this order. Raises StartRefused's kinds.

    They are there once a connection of the pool has answered.
    """
    started = perf_counter()
    metrics = Metrics(_folder(SHARED), _folder(PLACES))
    artifact = Artifact.read(settings.model)
    async with contextlib.AsyncExitStack() as stack:
        enter = stack.enter_async_context
        stack.enter_context(reporting_refusal())
        tracer = await enter(open_traces(os.environ))
        engine = await enter(
            open_engine(
                settings,
                artifact,
                gpu=_gpu_of(place, settings),
                on_batch=metrics.batched,
                on_embedded=metrics.embedded,
                on_rejected=lambda form, error: metrics.rejected(form, error.code),
            )
        )
        embedder = engine.embedder

        space = await _when_database_answers(partial(asyncio.to_thread, _open_space, settings, artifact))
        store = MediaStore.at(settings.media_url, settings.data / "media")
        standing = await _when_database_answers(partial(asyncio.to_thread, _settle, settings, store))
        store.on_failure = metrics.store_failed
        role = await _when_database_answers(partial(asyncio.to_thread, _role_of, settings))
        pool = await enter(_pool(settings, partial(_url, settings), least=2, most=_POOL_SIZE, role=role))
        # What is no client's: comparisons, sweeps, missing vectors. They are few, and callers wait for none of them.
        owners = await enter(
            _pool(
                settings,
                partial(_owners_url, settings),
                least=1,
                most=_BACKGROUND_POOL_SIZE,
                name="database, for work beside requests,",
            )
        )
        direct = direct_of(settings, _owners_url(settings))
        replica = await enter(_replica(settings, Runner(pool), metrics))
        catalogue = Catalogue(
            pool, space, recall=settings.target_recall, direct=direct, replica=replica, background=owners
        )
        await _when_database_answers(partial(_answer_once, catalogue, settings, role))
        keyring = Keyring(Runner(owners), direct=direct, always=settings.exposed and not settings.trust_network)
        await _when_database_answers(partial(_know_keys, keyring))
        background = await enter(Background())
        background.begin(keyring.run(), "keys")
        background.begin(keyring.listen(), "changes of keys")
        terms = _terms(settings, place, keyring, Runner(pool), background)
        trail = Trail(Runner(pool), days=settings.audit_days)
        background.begin(trail.run(), "audit")
        background.close_beside(trail.close)
        ledger = Ledger(Runner(pool))
        background.close_beside(ledger.close)
        background.begin(watch(store, _STORE_EACH_SECONDS), "store")
        background.begin(engine.pulse.run(), "pulse")
        disks = stack.enter_context(disks_of(settings, store))
        health = Health(embedder, engine.pulse, catalogue, store, disks, {"requests": pool, "background": owners})
        background.close_beside(health.close)
        background.begin(Sampler(catalogue, metrics.compared).run(), "recall")
        sweeper = Sweeper(owners, store, standing, first=place.first, on_removed=metrics.swept)
        background.begin(sweeper.run(), "sweep")
        librarian = Librarian(
            embedder, catalogue, store, sweeper.remember, own=standing.own, backup_runs=partial(backup_runs, owners)
        )
        background.close_beside(librarian.close)
        fetcher = await enter(_fetcher(settings, metrics))
        tallies = Tallies(_folder(PLACES))
        if place.first:
            if settings.demo:
                await demo.load(catalogue, librarian)
            background.begin(_maintain_indexes(catalogue), "indexes")
            background.begin(_catch_up_with_words(catalogue), "words")
            census = Census(
                Runner(owners),
                space,
                on_counted=metrics.counted,
                on_indexes=metrics.indexes_seen,
                on_tally=tallies.keep,
            )
            background.begin(census.run(), "sizes")
            background.begin(trail.forget(Runner(owners)), "old audit")
            background.begin(ledger.forget(Runner(owners)), "old idempotency keys")
            maintenance = Maintenance(
                owners, space, embedder, store, direct=direct, own=standing.own, on_reread=metrics.reread
            )
            background.begin(maintenance.run(), "missing vectors")
        if place.of > 1:
            background.begin(_share_metrics(metrics, health), "metrics")
        _tell_build(metrics, engine)
        _log_ready(settings, place, engine, perf_counter() - started)
        report_ready()
        yield Services(
            settings=settings,
            encoder=engine.encoder,
            embedder=embedder,
            catalogue=catalogue,
            librarian=librarian,
            store=store,
            fetcher=fetcher,
            metrics=metrics,
            keyring=keyring,
            terms=terms,
            trail=trail,
            ledger=ledger,
            health=health,
            overview=Overview(Runner(owners), space, tallies),
            running=Running.of(place, os.environ),
            tracer=tracer,
        )


def _folder(variable: str) -> Path | None:
    return Path(os.environ[variable]) if variable in os.environ else None


def _gpu_of(place: Place, settings: Settings) -> int:
    """The number of the worker's GPU; 0 where the model runs on the CPU."""
    count = gpus.usable(settings.device)
    return gpus.gpu_of(place.number, count) if count else 0


def _url(settings: Settings) -> str:
    """The database's URL as it is now: its password may have been changed since the start."""
    return settings.current("database_url") or ""


def _owners_url(settings: Settings) -> str:
    """The same, with the rights of the tables' owner."""
    return settings.owners_url or ""


def _pool(
    settings: Settings,
    url: Callable[[], str],
    *,
    least: int,
    most: int,
    role: str | None = None,
    name: str = "database",
) -> Pool:
    """`name`: what the log calls it when it is away."""
    return open_pool(
        url,
        min_size=least,
        max_size=most,
        timeout=_CONNECTION_TIMEOUT_SECONDS,
        longest=settings.deadline,
        pooling=settings.pooling,
        role=role,
        name=name,
    )


def _role_of(settings: Settings) -> str | None:
    """The role that serves. Raises DatabaseUnusable."""
    found = isolation.find(_url(settings))
    isolation.log(found)
    return found.role


def _replica(
    settings: Settings, primary: Runner, metrics: Metrics
) -> contextlib.AbstractAsyncContextManager[Replica | None]:
    """What searches run on beside the primary, where there is such a setting."""
    if settings.read_database_url is None:
        return contextlib.nullcontext()
    return Replica(
        lambda: settings.current("read_database_url") or "",
        primary,
        # Where it has not answered by then, there is time left to ask the primary.
        longest=settings.deadline / 3,
        on_read=metrics.read_of_search,
        on_use=metrics.replica_used,
    )


async def _when_database_answers(work: Callable[[], Awaitable[T]]) -> T:
    """The result of `work`; while the database is away it is waited for, since the parent process has just used it.

    Raises what waiting would not change at once, and the last reason when the patience is over.
    """
    deadline = perf_counter() + _DATABASE_PATIENCE_SECONDS
    while True:
        try:
            return await work()
        except DatabaseUnfit:
            raise
        except DatabaseUnusable as exc:
            if perf_counter() > deadline:
                raise
            _log.warning("Waiting for the database: %s", exc.sentence)
            await asyncio.sleep(_DATABASE_ASKED_EACH_SECONDS)


def _open_space(settings: Settings, artifact: Artifact) -> SpaceRow:
    """As `open_space`, of a database whose catalogue this role can read. Raises as it, and DatabaseUnfit."""
    url = _owners_url(settings)
    with connect(url) as connection:
        require_catalogue(connection)
    # The space was live when the parent started. It may be the way back now, and this server still answers those who
    # call it.
    return open_space(url, SpaceDescription.of(artifact, settings.precision), or_retired=True)


def _settle(settings: Settings, store: MediaStore) -> Standing:
    """As `settle`. The store was there when the parent started; without it, this server still answers searches."""
    return settle(_owners_url(settings), store, or_away=True)


async def _answer_once(catalogue: Catalogue, settings: Settings, role: str | None) -> None:
    """That the pool has a connection, on which the database answers. Raises DatabaseUnfit, DatabaseUnusable."""
    try:
        await catalogue.ping()
    except CatalogueUnavailable as exc:
        # Why the pool has no connection it tells its log alone.
        await try_connection(
            _url(settings),
            patience=_CONNECTION_TIMEOUT_SECONDS,
            longest=settings.deadline,
            pooling=settings.pooling,
            role=role,
        )
        raise DatabaseUnusable(exc.sentence) from exc


async def _know_keys(keyring: Keyring) -> None:
    """Raises DatabaseUnusable while the database cannot be asked, DatabaseUnfit where its tables cannot be read."""
    try:
        await keyring.refresh()
    except CatalogueUnavailable as exc:
        raise DatabaseUnusable(exc.sentence) from exc
    except CatalogueFailed as exc:
        raise DatabaseUnfit(f"The keys in the database cannot be read. {exc.line}") from exc


def _terms(settings: Settings, place: Place, keyring: Keyring, runner: Runner, background: Background) -> Terms:
    """The limits of keys and clients, and who keeps account of them."""
    limiter: Limiter = LocalLimiter()
    if settings.limits == "exact":
        limiter = exact = ExactLimiter(runner, place.of)
        background.begin(exact.run(), "limits")
    of_keys, of_clients = (
        Limits.of(limits_of(text)) if text is not None else UNLIMITED
        for text in (settings.key_limits, settings.client_limits)
    )
    return Terms(keyring, limiter, of_keys, of_clients, place.of)


def _fetcher(settings: Settings, metrics: Metrics) -> Fetcher:
    """What fetches pictures by URL."""
    if loopback := may_fetch_from_loopback(os.environ):
        _log.warning("Pictures may be fetched from this machine itself, as only tests need it.")
    return Fetcher(settings.fetch_hosts, most=settings.max_upload, loopback=loopback, on_fetched=metrics.fetched)


async def _maintain_indexes(catalogue: Catalogue) -> None:
    """Maintain the large clients' indexes for as long as the server runs."""
    for number in itertools.count():
        try:
            await catalogue.maintain_indexes(thorough=number % _THOROUGH_EACH_LOOKS == 0)
        except SessionNeeded as exc:
            _log.warning("This server builds no indexes, so large clients' searches are exact. %s", exc.sentence)
            return
        except TwinlensError as exc:
            _log.warning("The indexes could not be maintained; another try follows: %s", exc.line)
        except Exception:
            _log.exception("The indexes could not be maintained; another try follows.")
        await asyncio.sleep(_INDEXES_EACH_SECONDS)


async def _catch_up_with_words(catalogue: Catalogue) -> None:
    """Write down what products are called, where that is due, for as long as the server runs."""
    while True:
        try:
            if clients := await catalogue.lexicon.catch_up():
                _log.info("Wrote down the words that products are found by; clients whose were due: %d.", clients)
        except TwinlensError as exc:
            _log.warning("The words of products could not be written down; another try follows: %s", exc.line)
        except Exception:
            _log.exception("The words of products could not be written down; another try follows.")
        await asyncio.sleep(_WORDS_EACH_SECONDS)


async def _share_metrics(metrics: Metrics, health: Health) -> None:
    """Keep this worker's figures up to date: any worker that is asked for the metrics adds up those of all workers."""
    while True:
        try:
            metrics.observe(health.load())
        except OSError:
            _log.exception("The metrics could not be written; another try follows.")
        await asyncio.sleep(_METRICS_EACH_SECONDS)


def _tell_build(metrics: Metrics, engine: Engine) -> None:
    encoder = engine.encoder
    metrics.serves(
        version=__version__,
        model=encoder.model,
        space=encoder.space.id,
        precision=encoder.precision,
        device=encoder.device,
    )


def _log_ready(settings: Settings, place: Place, engine: Engine, seconds: float) -> None:
    encoder = engine.encoder
    _log.info(
        "Ready after %.1f s at http://%s:%d - %s (%s, %s) on %s%s, goldens at cosine %.7f, space %s%s",
        seconds,
        settings.host,
        settings.port,
        encoder.model,
        settings.precision,
        "pictures and words" if engine.embedder.reads_text else "pictures only",
        encoder.device,
        f" ({engine.layout})" if engine.layout else "",
        engine.lowest,
        encoder.space.short_id,
        f", worker {place.number + 1} of {place.of}" if place.of > 1 else "",
        extra={"fields": {"event": "ready", "model": encoder.model, "space": encoder.space.id}},
    )
