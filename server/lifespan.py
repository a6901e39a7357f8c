"""What the server needs to answer, opened in order and closed in reverse. Warm before ready."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import itertools
import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from server.artifact.artifact import Artifact, Vectors
from server.artifact.grades import Grades
from server.batching.batcher import Batcher
from server.batching.embedder import Embedder, Words
from server.catalogue.catalogue import Catalogue
from server.catalogue.recall import Sampler
from server.database import connections
from server.errors import ArtifactInvalid, DatabaseUnusable, EncoderFailed, MediaRejected, StartRefused, TextRejected
from server.inference import graphs
from server.inference.cores import Layout, find, plain, remembered
from server.inference.cuda import gpu_of
from server.inference.encoder import Encoder, Serving, TextEncoder
from server.inference.runner import Runner
from server.ingest import demo
from server.ingest.librarian import Librarian
from server.ingest.storage import MediaStore
from server.operations.metrics import SHARED, Metrics
from server.operations.workers import Place, gpus
from server.preprocessing import media
from server.preprocessing.nvimagecodec import JpegDecoder
from server.preprocessing.text import Tokenizer
from server.settings import Settings
from server.spaces.mender import Mender
from server.spaces.spaces import SpaceRow, open_space

REFUSAL = "_TWINLENS_REFUSAL"
"""The variable that names the file in which a worker leaves the sentence why it cannot start."""

_POOL_SIZE = 8
_POOL_PATIENCE = 5.0
_DATABASE_PATIENCE = 600.0
_MAX_TEXTS = 32
_MAX_ON_GPU = 64
_INDEX_ROUND = 10.0
_THOROUGH_ROUND = 60
_TELL_ROUND = 1.0

_ALONE = Place()

ReadJpeg = Callable[[bytes], Image.Image]

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


@dataclass(frozen=True, slots=True)
class Engine:
    """A model that is proven, warm and ready: what turns pictures and words into vectors."""

    encoder: Encoder
    embedder: Embedder
    layout: Layout | None
    lowest: float
    """The goldens' lowest cosine."""


@asynccontextmanager
async def open_engine(
    settings: Settings,
    artifact: Artifact,
    metrics: Metrics,
    place: Place = _ALONE,
    *,
    words: bool = True,
    decoding: int | None = None,
) -> AsyncIterator[Engine]:
    """Encoder, goldens, batcher, embedder: in this order. Raises ArtifactInvalid.

    `words`: whether texts are to be read where the artifact can; `decoding`: threads that decode, one for each core
    where it is not said.
    """
    async with contextlib.AsyncExitStack() as stack:
        serving = _serving(settings, place)
        # Everything that takes hold of a GPU, one after the other, before anything runs on it.
        encoder = stack.enter_context(
            Encoder(artifact, settings.precision, settings.device, threads=settings.threads or 0, serving=serving)
        )
        reader = stack.enter_context(_reader(artifact, settings, serving)) if words else None
        read_jpeg = None
        if settings.decoder == "nvimagecodec":
            read_jpeg = JpegDecoder(serving.gpu if encoder.device != "cpu" else None)
        try:
            layout, lowest = _make_ready(settings, serving, encoder, reader, read_jpeg)
        except ArtifactInvalid as exc:
            towers = [encoder, reader.encoder] if reader is not None else [encoder]
            if not sum(tower.forget_copy() for tower in towers):
                raise
            _log.warning("Not with the optimised graphs, so with the artifact's own: %s", exc.sentence)
            layout, lowest = _make_ready(settings, serving, encoder, reader, read_jpeg)

        batcher = await stack.enter_async_context(Batcher(encoder.runners, encoder.alone))
        batcher.on_batch = lambda size, _: metrics.batched("image", size)
        texts = None
        if reader is not None:
            texts = await stack.enter_async_context(Batcher(reader.encoder.runners, reader.encoder.alone))
            texts.on_batch = lambda size, _: metrics.batched("text", size)
        embedder = Embedder(
            batcher,
            artifact.spec,
            max_pixels=settings.max_pixels,
            # Decoding lets go of the GIL, and the system shares the cores out between it and the model: where pictures
            # are large, decoding gets its part, and where they are small it seldom has anything to do.
            threads=decoding or len(os.sched_getaffinity(0)),
            words=Words(reader.tokenizer, texts) if reader is not None and texts is not None else None,
            cache=settings.cache,
            read_jpeg=read_jpeg,
        )
        embedder.on_embedded = metrics.embedded
        stack.push_async_callback(asyncio.to_thread, embedder.close)
        yield Engine(encoder, embedder, layout, lowest)


@asynccontextmanager
async def open_services(settings: Settings, place: Place = _ALONE) -> AsyncIterator[Services]:
    """Artifact, engine, pool, catalogue: in this order. Raises StartRefused's kinds."""
    started = perf_counter()
    metrics = Metrics(Path(os.environ[SHARED]) if SHARED in os.environ else None)
    artifact = Artifact.read(settings.model)
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(refusing())
        engine = await stack.enter_async_context(open_engine(settings, artifact, metrics, place))
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
            mender = Mender(pool, space, embedder, store)
            stack.push_async_callback(_cancel, asyncio.create_task(mender.run(), name="missing vectors"))
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


def claim_space(url: str, artifact: Artifact, precision: str, *, or_retired: bool = False) -> SpaceRow:
    """The database's row of the artifact's space; an empty database takes the space as its live one.

    `or_retired`: one that was live will do. Raises SpaceNotLive, naming both, when the database holds another.
    """
    return open_space(url, **about_space(artifact, precision), or_retired=or_retired)


def about_space(artifact: Artifact, precision: str) -> dict[str, Any]:
    """What the database is told of an artifact's space."""
    space = artifact.space(precision)
    return {
        "space_id": space.id,
        "dimensions": space.dimensions,
        "model": artifact.manifest.model,
        "manifest": msgspec.to_builtins(artifact.manifest),
        "artifact_path": str(artifact.folder.resolve()),
    }


@dataclass(frozen=True, slots=True)
class _Reader:
    """What an artifact with a text tower brings."""

    tokenizer: Tokenizer
    encoder: TextEncoder


def _serving(settings: Settings, place: Place) -> Serving:
    found = gpus(settings)
    return Serving(
        gpu=gpu_of(place.number, found) if found else 0,
        most=settings.batch or _MAX_ON_GPU,
        cache=settings.data / "cache",
        tensorrt=settings.tensorrt,
    )


def _lay_out(settings: Settings, serving: Serving, encoder: Encoder, reader: _Reader | None) -> Layout | None:
    """On the CPU: give the cores to the model as is best for it; what was chosen.

    Raises ArtifactInvalid, and EncoderFailed where not even one picture runs.
    """
    if encoder.device != "cpu":
        return None
    if settings.threads and settings.batch:
        layout = plain(settings.threads, settings.batch)
    else:
        size = encoder.artifact.spec.size
        sample = np.zeros((size, size, 3), np.uint8)
        name = f"layout-{graphs.key(encoder.digest)}-{encoder.threads}-{settings.batch or 'auto'}.json"

        def search() -> Layout:
            # With sessions of its own: what they have allocated for the largest batch goes with them, 600 MB of it.
            with Encoder(encoder.artifact, encoder.precision, "cpu", threads=encoder.threads, serving=serving) as trial:
                return find(trial.on_cpu, sample, encoder.threads, settings.batch)

        layout = remembered(settings.data / "cache" / name, search)
    encoder.lay_out(layout)
    if reader is not None:
        reader.encoder.lay_out(msgspec.structs.replace(layout, batch=_MAX_TEXTS))
    return layout


@contextlib.contextmanager
def _reader(artifact: Artifact, settings: Settings, serving: Serving) -> Iterator[_Reader | None]:
    """Open what reads texts; None for an artifact without a text tower, which pays for nothing of it."""
    if (tower := artifact.manifest.text) is None:
        yield None
        return
    tokenizer = Tokenizer.read(artifact.folder / tower.tokenizer, tower)
    with TextEncoder(
        artifact, settings.precision, settings.device, threads=settings.threads or 0, serving=serving
    ) as encoder:
        yield _Reader(tokenizer, encoder)


def _make_ready(
    settings: Settings, serving: Serving, encoder: Encoder, reader: _Reader | None, read_jpeg: ReadJpeg | None
) -> tuple[Layout | None, float]:
    """Lay the cores out, prove the goldens, warm up; gives the layout and the goldens' lowest cosine.

    Raises ArtifactInvalid.
    """
    try:
        layout = _lay_out(settings, serving, encoder, reader)
        return layout, _prove(encoder.artifact, encoder, reader, read_jpeg)
    except EncoderFailed as exc:
        raise ArtifactInvalid(f"The model does not run on {encoder.device}: {exc.__cause__ or exc.sentence}") from exc


def _prove(artifact: Artifact, encoder: Encoder, reader: _Reader | None, read_jpeg: ReadJpeg | None) -> float:
    """The goldens, through the very steps that will serve, and a warm-up; the goldens' lowest cosine.

    Raises ArtifactInvalid.
    """

    def to_pixels(data: bytes) -> NDArray[np.uint8]:
        # The bound on callers' pictures is no bound on ours.
        return media.read_pixels(data, artifact.spec, max_pixels=sys.maxsize, read_jpeg=read_jpeg)

    if reader is None:
        artifact = artifact.without_words()
    try:
        pictures, texts = encoder.each_way(), reader.encoder.each_way() if reader else ()
        lowest = 1.0
        for at in range(max(len(pictures), len(texts))):
            words = (reader.tokenizer.tokens, _encode(texts, at)) if reader else ()
            lowest = min(lowest, artifact.self_test(encoder.precision, to_pixels, _encode(pictures, at), *words))
        encoder.warm_up()
        if reader is not None:
            reader.encoder.warm_up()
    except MediaRejected as exc:
        raise ArtifactInvalid(f"A golden no longer decodes here (link: bytes to pixels): {exc.sentence}") from exc
    except TextRejected as exc:
        raise ArtifactInvalid(f"A golden text no longer gives tokens (link: text to tokens): {exc.sentence}") from exc
    return lowest


def _encode(runners: Sequence[Runner], at: int) -> Callable[[NDArray[Any]], Vectors]:
    """One of the runners, the last where there are fewer, as a function of a batch."""
    runner = runners[min(at, len(runners) - 1)]
    return lambda batch: runner(list(batch))


@contextlib.contextmanager
def refusing() -> Iterator[None]:
    """In a worker, when the start must be refused: tell the parent why, instead of being started again and again."""
    try:
        yield
    except StartRefused as exc:
        if (refusal := os.environ.get(REFUSAL)) is None:
            raise
        Path(refusal).write_text(exc.sentence)
        parent = multiprocessing.parent_process()
        if parent is not None and parent.pid == os.getppid():  # an orphan's parent is process 1
            os.kill(os.getppid(), signal.SIGTERM)
        # Raised further it would end in a page of traceback; the parent says the sentence.
        os._exit(2)


def belong_to_parent() -> None:
    """For a worker: nothing but its parent ends it, and it never outlives its parent."""
    # A terminal sends Ctrl-C to a whole process group. The parent passes its end on, once; Granian's worker hangs when
    # it is told a second time while it drains.
    os.setpgid(0, 0)
    # An orphan would hold the port with no database behind it, so there is nothing left for it to drain.
    pr_set_pdeathsig = 1
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL)


def log_to_stderr() -> None:
    """Plain lines on standard error, for the parent and for each worker."""
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
    # Every lost and mended connection would be a line; what matters of it reaches the caller as an error.
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)


async def _tend(catalogue: Catalogue) -> None:
    """Look after the large clients' indexes for as long as the server runs."""
    for number in itertools.count():
        try:
            await catalogue.tend_indexes(thorough=number % _THOROUGH_ROUND == 0)
        except Exception:
            _log.exception("The indexes could not be looked after; another try follows.")
        await asyncio.sleep(_INDEX_ROUND)


async def _tell(metrics: Metrics, embedder: Embedder) -> None:
    """Several workers: whichever is asked for the metrics tells those of all, so each keeps its own up to date."""
    while True:
        try:
            metrics.observe(embedder)
        except OSError:
            _log.exception("The metrics could not be written; another try follows.")
        await asyncio.sleep(_TELL_ROUND)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
