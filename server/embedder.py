"""Bytes and words to embeddings, off the event loop: permit at the door, decode on a pool, encode in batches, in time.

The first half of a picture's way: `media` decodes, `batcher` and `encoder` make the vector. What the second half
(the catalogue) needs beside the vector travels with it: size, format, thumbnail. A text goes the same way beside it,
through a door, a thread and a batcher of its own, so that words never wait for pictures.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from threading import Lock
from time import perf_counter
from typing import Literal

from server import media
from server.artifact import PreprocessingSpec, Tokens, Vectors
from server.batcher import Batcher
from server.door import Door
from server.errors import NoTextTower
from server.text import Tokenizer

# Decoding takes up to 12 bytes a pixel: pictures of more pixels than this are decoded one at a time.
_LARGE = 16_000_000

Tower = Literal["image", "text"]

Timings = Mapping[str, float]
"""Where the time of one picture or text went, in seconds: `decode` or `tokenize`, then `queue` and `encode`."""


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


@dataclass(frozen=True, slots=True)
class EmbeddedText:
    """A text's vector, float32[D] of unit length."""

    embedding: Vectors
    timings: Timings


@dataclass(frozen=True, slots=True)
class Words:
    """What reads texts: a tokenizer, and the batcher of the text tower."""

    tokenizer: Tokenizer
    batcher: Batcher


class Embedder:
    """Turns pictures' bytes and texts into vectors for many callers at once."""

    def __init__(
        self,
        batcher: Batcher,
        spec: PreprocessingSpec,
        *,
        max_pixels: int,
        threads: int,
        words: Words | None = None,
    ) -> None:
        """`max_pixels`: of one picture; `threads`: that decode; `words`: None where there is no text tower."""
        self._batcher = batcher
        self._spec = spec
        self._max_pixels = max_pixels
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._turn = Lock()
        self._words = words
        self._tokenizing = ThreadPoolExecutor(1, thread_name_prefix="tokenize")
        self.pictures = Door("Picture")
        self.texts = Door("Text")
        self.on_embedded: Callable[[Tower, Timings], None] | None = None
        """Called with the timings of each picture and text that was embedded."""

    @property
    def reads_text(self) -> bool:
        return self._words is not None

    def close(self) -> None:
        self._pool.shutdown()
        self._tokenizing.shutdown()

    async def embed(self, data: bytes, *, within: float, thumbnail: bool = False) -> Embedded:
        """One picture. See `embed_all`."""
        (embedded,) = await self.embed_all([data], within=within, thumbnail=thumbnail)
        return embedded

    async def embed_all(self, pictures: Sequence[bytes], *, within: float, thumbnail: bool = False) -> list[Embedded]:
        """Embed each picture, in order, within that many seconds.

        Raises MediaRejected's kinds for the first picture that cannot be used, Overloaded at the door when the work
        that is already inside would take longer than `within`, DeadlineMissed when time runs out, EncoderFailed.
        """
        return await self.pictures.each(lambda data: self._embed(data, thumbnail), pictures, within=within)

    async def embed_texts(self, texts: Sequence[str], *, within: float) -> list[EmbeddedText]:
        """Embed each text, in order, within that many seconds. Empty ones get the vector that the model gives them.

        Raises NoTextTower, TextRejected's kinds for the first text that cannot be read, and otherwise as for pictures.
        """
        if self._words is None:
            raise NoTextTower
        words = self._words
        return await self.texts.each(lambda text: self._embed_text(words, text), texts, within=within)

    async def thumbnail(self, data: bytes) -> bytes:
        """The WebP thumbnail of a picture. Raises MediaRejected's kinds."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._shrink, data)

    async def _embed(self, data: bytes, thumbnail: bool) -> Embedded:
        loop = asyncio.get_running_loop()
        decoded = await loop.run_in_executor(self._pool, self._decode, data, thumbnail)
        encoded = await self._batcher.encode(decoded.pixels)
        timings = {"decode": decoded.seconds, "queue": encoded.queue, "encode": encoded.encode}
        self._tell("image", timings)
        return Embedded(encoded.embedding, decoded.format, decoded.width, decoded.height, decoded.thumbnail, timings)

    async def _embed_text(self, words: Words, text: str) -> EmbeddedText:
        def tokenize() -> tuple[Tokens, float]:
            started = perf_counter()
            return words.tokenizer.tokens(text), perf_counter() - started

        tokens, seconds = await asyncio.get_running_loop().run_in_executor(self._tokenizing, tokenize)
        encoded = await words.batcher.encode(tokens)
        timings = {"tokenize": seconds, "queue": encoded.queue, "encode": encoded.encode}
        self._tell("text", timings)
        return EmbeddedText(encoded.embedding, timings)

    def _tell(self, tower: Tower, timings: Timings) -> None:
        if self.on_embedded is not None:
            self.on_embedded(tower, timings)

    def _decode(self, data: bytes, thumbnail: bool) -> _Decoded:
        started = perf_counter()
        width, height = media.measure(data, max_pixels=self._max_pixels)
        with self._turn if width * height > _LARGE else nullcontext():
            picture = media.decode(data, max_pixels=self._max_pixels, jpeg_at_least=self._spec.jpeg_at_least)
            pixels = media.to_pixels(picture, self._spec)
            small = self._shrink(data, picture) if thumbnail else None
        return _Decoded(pixels, picture.format, picture.width, picture.height, small, perf_counter() - started)

    def _shrink(self, data: bytes, picture: media.Picture | None = None) -> bytes:
        """The thumbnail, from the picture as it was decoded where that is large enough for it."""
        if picture is None or not media.fills_thumbnail(picture):
            picture = media.decode(data, max_pixels=self._max_pixels, jpeg_at_least=media.THUMBNAIL)
        return media.thumbnail(picture)
