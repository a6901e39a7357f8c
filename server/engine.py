"""The engine: a model that is proven, warm and ready to turn pictures and texts into vectors."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from server.artifact.artifact import Artifact, Vectors
from server.batching.batcher import Batcher, Lanes
from server.batching.embedder import Embedder, Timings, Tower, Words
from server.batching.pulse import Pulse
from server.errors import ArtifactInvalid, EncoderFailed, MediaRejected, TextRejected, TwinlensError
from server.inference import graphs
from server.inference.cores import Layout, find, plain, remembered
from server.inference.encoder import Encoder, Serving, TextEncoder
from server.inference.runner import Runner
from server.preprocessing import media
from server.preprocessing.nvimagecodec import JpegDecoder
from server.preprocessing.text import Tokenizer
from server.settings import Settings

_MOST_TEXTS_IN_A_BATCH = 32
_MOST_PICTURES_IN_A_GPU_BATCH = 64

# With a short deadline, a large batch of bulk work may last longer than a request, and is not stuck.
_LEAST_STUCK_SECONDS = 10.0

ReadJpeg = Callable[[bytes], Image.Image]

_log = logging.getLogger(__name__)


def _ignore(*_: object) -> None:
    """For a caller that counts nothing."""


@dataclass(frozen=True, slots=True)
class Engine:
    """A model that is proven, warm and ready."""

    encoder: Encoder
    embedder: Embedder
    layout: Layout | None
    lowest: float
    """The goldens' lowest cosine."""
    pulse: Pulse


@asynccontextmanager
async def open_engine(
    settings: Settings,
    artifact: Artifact,
    *,
    gpu: int = 0,
    words: bool = True,
    decoding: int | None = None,
    aside: bool = False,
    on_batch: Callable[[Tower, int], None] = _ignore,
    on_embedded: Callable[[Tower, Timings], None] = _ignore,
    on_rejected: Callable[[str, MediaRejected], None] = _ignore,
) -> AsyncIterator[Engine]:
    """Encoder, goldens, batcher, embedder: in this order. Raises ArtifactInvalid, BadSetting.

    `gpu`: the number of the GPU to run on, where the model runs on one. `words`: whether to load the text tower, if the
    artifact has one. `decoding`: threads that decode; without it, one for each core. `aside`: load the model on a
    thread, so that others go on meanwhile; whoever asks for that must not be cancelled until it is loaded. `on_batch`
    is called with the tower and the size of each batch, `on_embedded` with the tower of each picture or text and the
    seconds that it spent in each stage, `on_rejected` with the format of each picture that could not be decoded, and
    why.
    """
    async with contextlib.AsyncExitStack() as stack:
        loading = _load(settings, artifact, gpu, words)
        model = await asyncio.to_thread(loading.__enter__) if aside else loading.__enter__()
        stack.push(loading)
        encoder, reader = model.encoder, model.reader
        batcher = await stack.enter_async_context(_batching(encoder, partial(on_batch, "image")))
        texts = None
        if reader is not None:
            texts = await stack.enter_async_context(_batching(reader.encoder, partial(on_batch, "text")))
        embedder = Embedder(
            batcher,
            artifact.spec,
            max_pixels=settings.max_pixels,
            # Decoding releases the GIL, and the system divides the cores between decoding and the model: large pictures
            # get the time that they need, and small ones need hardly any.
            threads=decoding or len(os.sched_getaffinity(0)),
            words=Words(reader.tokenizer, texts) if reader is not None and texts is not None else None,
            cache=settings.cache,
            read_jpeg=model.read_jpeg,
        )
        embedder.on_embedded = on_embedded
        embedder.decoding.on_rejected = on_rejected
        stack.push_async_callback(asyncio.to_thread, embedder.close)
        longest = max(settings.deadline, _LEAST_STUCK_SECONDS)
        pulse = Pulse(embedder.towers, _samples(encoder, reader), longest)
        yield Engine(encoder, embedder, model.layout, model.lowest, pulse)


def try_model(settings: Settings) -> str | None:
    """Open the settings' model, prove it by its goldens, close it: None, or the sentence why it cannot be served."""

    async def try_it() -> None:
        async with open_engine(settings, Artifact.read(settings.model)):
            pass

    try:
        asyncio.run(try_it())
    except TwinlensError as exc:
        return exc.sentence
    return None


@dataclass(frozen=True, slots=True)
class _Reader:
    """What reads texts, of an artifact with a text tower."""

    tokenizer: Tokenizer
    encoder: TextEncoder


@dataclass(frozen=True, slots=True)
class _Model:
    """What blocks while it is loaded and proven."""

    encoder: Encoder
    reader: _Reader | None
    read_jpeg: ReadJpeg | None
    layout: Layout | None
    lowest: float


@contextlib.contextmanager
def _load(settings: Settings, artifact: Artifact, gpu: int, words: bool) -> Iterator[_Model]:
    """Load the towers, prove the goldens, warm up. Raises ArtifactInvalid, BadSetting."""
    with contextlib.ExitStack() as stack:
        serving = _serving(settings, gpu)
        # Everything that initialises a GPU, one after the other, before anything runs on it.
        encoder = stack.enter_context(
            Encoder(artifact, settings.precision, settings.device, threads=settings.threads or 0, serving=serving)
        )
        reader = stack.enter_context(_reader(artifact, settings, serving)) if words else None
        read_jpeg: ReadJpeg | None = None
        if settings.decoder == "nvimagecodec":
            read_jpeg = JpegDecoder(serving.gpu if encoder.device != "cpu" else None)
        try:
            layout, lowest = _make_ready(settings, serving, encoder, reader, read_jpeg)
        except ArtifactInvalid as exc:
            towers = [encoder, reader.encoder] if reader is not None else [encoder]
            if not sum(tower.forget_copy() for tower in towers):
                raise
            _log.warning("The optimised graphs are not used, but the artifact's own: %s", exc.sentence)
            layout, lowest = _make_ready(settings, serving, encoder, reader, read_jpeg)
        yield _Model(encoder, reader, read_jpeg, layout, lowest)


@asynccontextmanager
async def _batching(tower: Encoder | TextEncoder, on_batch: Callable[[int], None]) -> AsyncIterator[Batcher | Lanes]:
    """What makes batches for a tower: one batcher, or one for each lane where bulk work can run at a lower priority."""

    def report(size: int, _: float) -> None:
        on_batch(size)

    async with Batcher(tower.runners, tower.alone) as batcher:
        batcher.on_batch = report
        if not tower.for_bulk:
            yield batcher
            return
        async with Batcher(tower.for_bulk, tower.for_bulk_alone, gives_way=True) as bulk:
            bulk.on_batch = report
            yield Lanes(batcher, bulk)


def _samples(encoder: Encoder, reader: _Reader | None) -> Mapping[Tower, NDArray[Any]]:
    """By tower, one of the entries that warm it up."""
    samples: dict[Tower, NDArray[Any]] = {"image": encoder.samples[0]}
    if reader is not None and reader.encoder.samples:
        samples["text"] = reader.encoder.samples[0]
    return samples


def _serving(settings: Settings, gpu: int) -> Serving:
    return Serving(
        gpu=gpu,
        most=settings.batch or _MOST_PICTURES_IN_A_GPU_BATCH,
        cache=settings.data / "cache",
        tensorrt=settings.tensorrt,
    )


def _lay_out(settings: Settings, serving: Serving, encoder: Encoder, reader: _Reader | None) -> Layout | None:
    """On the CPU: divide the cores among runners in the quickest way, and return the layout. None on a GPU.

    Raises ArtifactInvalid, and EncoderFailed when not even one picture can be encoded.
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
            # With sessions of its own: the 600 MB that they allocate for the largest batch are freed with them.
            with Encoder(encoder.artifact, encoder.precision, "cpu", threads=encoder.threads, serving=serving) as trial:
                return find(trial.on_cpu, sample, encoder.threads, settings.batch)

        layout = remembered(settings.data / "cache" / name, search)
    encoder.lay_out(layout)
    if reader is not None:
        reader.encoder.lay_out(msgspec.structs.replace(layout, batch=_MOST_TEXTS_IN_A_BATCH))
    return layout


@contextlib.contextmanager
def _reader(artifact: Artifact, settings: Settings, serving: Serving) -> Iterator[_Reader | None]:
    """Load the tokenizer and the text tower; None for an artifact without a text tower, which loads neither."""
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
    """Divide the cores, prove the goldens, warm up; gives the layout and the goldens' lowest cosine.

    Raises ArtifactInvalid.
    """
    try:
        layout = _lay_out(settings, serving, encoder, reader)
        return layout, _prove(encoder.artifact, encoder, reader, read_jpeg)
    except EncoderFailed as exc:
        raise ArtifactInvalid(f"The model does not run on {encoder.device}: {exc.__cause__ or exc.sentence}") from exc


def _prove(artifact: Artifact, encoder: Encoder, reader: _Reader | None, read_jpeg: ReadJpeg | None) -> float:
    """Run the goldens through the very steps that will serve, then warm up; the goldens' lowest cosine.

    Raises ArtifactInvalid.
    """

    def to_pixels(data: bytes) -> NDArray[np.uint8]:
        # The bound on callers' pictures is not for the goldens.
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
    """The runner at this place, or the last one where there are fewer, as a function of a batch."""
    runner = runners[min(at, len(runners) - 1)]
    return lambda batch: runner(list(batch))
