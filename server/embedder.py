"""Bytes to embeddings, off the event loop: permit at the door, decode on a pool, encode in batches, in time.

The first half of a picture's way: `media` decodes, `batcher` and `encoder` make the vector. What the second half
(the catalogue) needs beside the vector travels with it: size, format, thumbnail.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from threading import Lock
from time import perf_counter

from server import media
from server.artifact import PreprocessingSpec, Vectors
from server.batcher import Batcher
from server.errors import DeadlineMissed, MediaRejected, Overloaded

# Requests in the house are bounded by time (see `_admit`); this bounds their memory too.
_MOST_PICTURES = 1024
# Decoding takes up to 12 bytes a pixel: pictures of more pixels than this are decoded one at a time.
_LARGE = 16_000_000


@dataclass(frozen=True, slots=True)
class Timings:
    """Where one picture's time went, in seconds."""

    decode: float
    queue: float
    encode: float


@dataclass(frozen=True, slots=True)
class Embedded:
    """A picture with its vector, float32[D] of unit length."""

    embedding: Vectors
    format: media.Format
    width: int
    height: int
    thumbnail: bytes | None
    timings: Timings


@dataclass(frozen=True, slots=True)
class _Decoded:
    pixels: media.Pixels
    format: media.Format
    width: int
    height: int
    thumbnail: bytes | None
    seconds: float


class Embedder:
    """Turns pictures' bytes into vectors for many callers at once."""

    def __init__(self, batcher: Batcher, spec: PreprocessingSpec, *, max_pixels: int, threads: int) -> None:
        """`max_pixels`: of one picture; `threads`: that decode."""
        self._batcher = batcher
        self._spec = spec
        self._max_pixels = max_pixels
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._turn = Lock()
        self._inside = 0
        self._pace = 0.0
        self.on_picture: Callable[[Timings], None] | None = None
        """Called with the timings of each picture that was embedded."""

    @property
    def inside(self) -> int:
        """Pictures that were let in and are not answered yet."""
        return self._inside

    def close(self) -> None:
        self._pool.shutdown()

    async def embed(self, data: bytes, *, within: float, thumbnail: bool = False) -> Embedded:
        """One picture. See `embed_all`."""
        (embedded,) = await self.embed_all([data], within=within, thumbnail=thumbnail)
        return embedded

    async def embed_all(self, pictures: Sequence[bytes], *, within: float, thumbnail: bool = False) -> list[Embedded]:
        """Embed each picture, in order, within that many seconds.

        Raises MediaRejected's kinds for the first picture that cannot be used, Overloaded at the door when the work
        that is already inside would take longer than `within`, DeadlineMissed when time runs out, EncoderFailed.
        """
        async with self._admit(len(pictures), within):
            tasks = []
            try:
                async with asyncio.timeout(within), asyncio.TaskGroup() as group:
                    tasks = [group.create_task(self._embed(data, thumbnail)) for data in pictures]
            except TimeoutError as exc:
                raise DeadlineMissed(retry_after=max(1.0, self._backlog())) from exc
            except BaseExceptionGroup as exc:
                raise _first_failure(tasks) from exc
        return [task.result() for task in tasks]

    async def thumbnail(self, data: bytes) -> bytes:
        """The WebP thumbnail of a picture. Raises MediaRejected's kinds."""

        def shrink() -> bytes:
            return media.thumbnail(media.decode(data, max_pixels=self._max_pixels).image)

        return await asyncio.get_running_loop().run_in_executor(self._pool, shrink)

    @asynccontextmanager
    async def _admit(self, pictures: int, within: float) -> AsyncIterator[None]:
        backlog = self._backlog()
        if self._inside and (backlog > within or self._inside + pictures > _MOST_PICTURES):
            raise Overloaded(retry_after=max(1.0, backlog - within))
        self._inside += pictures
        started: float | None = perf_counter()
        try:
            yield
        except MediaRejected:
            started = None  # refused in passing: that says nothing of the pace
            raise
        finally:
            if started is not None:
                # Little's law, the other way round: with n pictures inside, one that took t seconds came through at
                # n / t a second. Smoothed, since single requests differ; one that was too late counts as well.
                pace = (perf_counter() - started) / self._inside
                self._pace = pace if not self._pace else 0.9 * self._pace + 0.1 * pace
            self._inside -= pictures

    def _backlog(self) -> float:
        """Seconds until what is inside now will have been answered, by the pace of late."""
        return self._inside * self._pace

    async def _embed(self, data: bytes, thumbnail: bool) -> Embedded:
        loop = asyncio.get_running_loop()
        decoded = await loop.run_in_executor(self._pool, self._decode, data, thumbnail)
        encoded = await self._batcher.encode(decoded.pixels)
        timings = Timings(decoded.seconds, encoded.queue, encoded.encode)
        if self.on_picture is not None:
            self.on_picture(timings)
        return Embedded(encoded.embedding, decoded.format, decoded.width, decoded.height, decoded.thumbnail, timings)

    def _decode(self, data: bytes, thumbnail: bool) -> _Decoded:
        started = perf_counter()
        width, height = media.measure(data, max_pixels=self._max_pixels)
        with self._turn if width * height > _LARGE else nullcontext():
            picture = media.decode(data, max_pixels=self._max_pixels)
            pixels = media.to_pixels(picture.image, self._spec)
            small = media.thumbnail(picture.image) if thumbnail else None
        return _Decoded(pixels, picture.format, picture.width, picture.height, small, perf_counter() - started)


def _first_failure(tasks: Sequence[asyncio.Task[Embedded]]) -> BaseException:
    """The error of the first picture that failed; among several it says which one that was."""
    failed = ((number, task.exception()) for number, task in enumerate(tasks, 1) if not task.cancelled())
    number, error = next((number, error) for number, error in failed if error is not None)
    if isinstance(error, MediaRejected) and len(tasks) > 1:
        error.args = (f"Picture {number} of {len(tasks)}: {error.sentence}",)
    return error
