"""Bytes and texts to embeddings, off the event loop: admit, decode on a pool of threads, encode in batches, in time.

The first half of a picture's way: `media` decodes, `batcher` and `encoder` make the vector. What the second half
(the catalogue) needs beside the vector travels with it: digest, size, format, thumbnail. A text goes the same way, with
admission control, a pool and a batcher of its own, so that texts never wait for pictures.

Recent vectors are kept for the client that asked, and what is being embedded for it already is not embedded a second
time. Clients share threads and batches, so that how long one waits tells how busy the server is, and no more.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Literal, TypeVar

from PIL import Image

from server.artifact.artifact import PreprocessingSpec, Tokens, Vectors
from server.batching.admission import Admission
from server.batching.batcher import Batcher, Lanes
from server.batching.decoding import Decoding, Seen
from server.batching.fair_queue import Caller, Lane
from server.batching.threads import Pool
from server.batching.vector_cache import Counted, VectorCache
from server.batching.waiting import Waiting
from server.errors import NoTextTower
from server.preprocessing.blank import is_blank
from server.preprocessing.formats import Format
from server.preprocessing.proposals import Proposal
from server.preprocessing.region import Region
from server.preprocessing.text import Tokenizer
from server.tracing import span

# Handing bytes to a thread and back costs about as much as hashing so many.
_HASHED_AT_ONCE_BYTES = 200_000

# For admission control so many bytes weigh as much as one more small picture: decoding costs about that (decision 18).
_BYTES_THAT_WEIGH_ONE = 2_500_000

# Nobody types a longer text twice, and the memory of a key is not counted.
_LONGEST_KEPT_CHARACTERS = 300

Tower = Literal["image", "text"]

Timings = Mapping[str, float]
"""Where the time of one picture or text went, in seconds: `decode` and `resize`, or `tokenize`; `queue` and `encode`.
Empty for a picture or text that was kept."""

_ANYBODY = Caller()

Made = TypeVar("Made")


@dataclass(frozen=True, slots=True)
class Known:
    """What is kept of a picture, or of a region of one: its vector, float32[D] of unit length, its format, width and
    height."""

    embedding: Vectors
    format: Format
    width: int
    height: int
    blank: bool
    """One colour throughout, as the model sees it: see `is_blank`."""


@dataclass(frozen=True, slots=True)
class Embedded(Known):
    """A picture, or a region of one, with its vector. `digest` is the SHA-256 of the picture's bytes: a region has that
    of the file that it is cut from, and is not what the file shows."""

    digest: bytes
    thumbnail: bytes | None
    timings: Timings


@dataclass(frozen=True, slots=True)
class KnownText:
    """A text's vector, float32[D] of unit length."""

    embedding: Vectors


@dataclass(frozen=True, slots=True)
class EmbeddedText(KnownText):
    timings: Timings


@dataclass(frozen=True, slots=True)
class Words:
    """What reads texts: a tokenizer, and the batcher of the text tower."""

    tokenizer: Tokenizer
    batcher: Batcher | Lanes


def _key(digest: bytes, region: Region | None) -> bytes:
    """What tells a picture, or a region of it, from all others in a cache: a region has 32 bytes more."""
    return digest if region is None else digest + region.key


def _weight(data: bytes) -> float:
    return 1 + len(data) / _BYTES_THAT_WEIGH_ONE


async def digest_of(data: bytes | bytearray) -> bytes:
    """SHA-256 of a picture's bytes: equal for the very same file only, not for one that looks like it."""
    if len(data) <= _HASHED_AT_ONCE_BYTES:
        return hashlib.sha256(data).digest()
    return await asyncio.to_thread(lambda: hashlib.sha256(data).digest())


async def _digests_of(pictures: Sequence[bytes]) -> list[bytes]:
    """As `digest_of`, of many: together they would hold up everyone else on the event loop."""
    if len(pictures) == 1:
        return [await digest_of(pictures[0])]
    return await asyncio.to_thread(lambda: [hashlib.sha256(data).digest() for data in pictures])


class Embedder:
    """Turns pictures' bytes and texts into vectors for many callers at once."""

    def __init__(
        self,
        batcher: Batcher | Lanes,
        spec: PreprocessingSpec,
        *,
        max_pixels: int,
        threads: int,
        words: Words | None = None,
        cache: int = 0,
        read_jpeg: Callable[[bytes], Image.Image] | None = None,
    ) -> None:
        """`max_pixels`: of one picture; `threads`: that decode; `words`: None where there is no text tower; `cache`:
        bytes of memory for vectors that may be asked for again; `read_jpeg`: as `media.decode` has it."""
        self._batcher = batcher
        self.decoding = Decoding(spec, max_pixels=max_pixels, threads=threads, read_jpeg=read_jpeg)
        self._words = words
        self._tokenizing = Pool(1, name="tokenize")
        self.pictures = Admission("Picture")
        self.texts = Admission("Text")
        # A text's vector is quick to make again, so texts get a quarter of the memory.
        self._pictures: VectorCache[bytes, Known, Embedded] = VectorCache(cache - cache // 4)
        self._texts: VectorCache[str, KnownText, EmbeddedText] = VectorCache(cache // 4)
        self.known: Mapping[Tower, Counted] = {"image": self._pictures, "text": self._texts}
        """What each cache has counted: vectors found, joined and made."""
        self.on_embedded: Callable[[Tower, Timings], None] | None = None
        """Called with the timings of each picture and text that was embedded; not for one whose vector was kept."""

    @property
    def towers(self) -> Mapping[Tower, Batcher | Lanes]:
        """What makes the batches of each tower."""
        texts: Mapping[Tower, Batcher | Lanes] = {} if self._words is None else {"text": self._words.batcher}
        return {"image": self._batcher, **texts}

    def queues(self) -> Mapping[tuple[str, Tower], Mapping[Lane, Waiting]]:
        """What waits before each stage of each tower."""
        found: dict[tuple[str, Tower], Mapping[Lane, Waiting]] = {
            (stage, "image"): waits for stage, waits in self.decoding.queues().items()
        }
        if self._words is not None:
            found["tokenize", "text"] = self._tokenizing.waits()
        return found | {("encode", tower): batcher.waits() for tower, batcher in self.towers.items()}

    @property
    def reads_text(self) -> bool:
        return self._words is not None

    def close(self) -> None:
        self.decoding.close()
        self._tokenizing.close()

    async def embed(
        self,
        data: bytes,
        *,
        within: float,
        thumbnail: bool = False,
        caller: Caller = _ANYBODY,
        digest: bytes | None = None,
        region: Region | None = None,
    ) -> Embedded:
        """One picture, or a region of it; `digest` of all its bytes, where the caller has it already. Otherwise as
        `embed_all`.

        A vector that is known has no thumbnail: with `thumbnail` the picture is decoded in any case.
        """
        digest = digest or await digest_of(data)
        if not thumbnail and (known := self._recall(digest, caller, region)) is not None:
            return known
        (embedded,) = await self.pictures.each(
            lambda one: self._embed(one, digest, thumbnail, caller, region),
            [data],
            within=within,
            caller=caller,
            weight=_weight(data),
        )
        return embedded

    async def embed_all(
        self,
        pictures: Sequence[bytes],
        *,
        within: float,
        caller: Caller = _ANYBODY,
        regions: Sequence[Region | None] | None = None,
    ) -> list[Embedded]:
        """Embed each picture, in order, within that many seconds; `regions`: what of each, None for all of it.

        Raises MediaRejected's kinds for the first picture that cannot be used, Overloaded before anything is begun when
        the admitted work would take longer than `within`, DeadlineMissed when time runs out, EncoderFailed.
        """
        digests = await _digests_of(pictures)
        regions = [None] * len(pictures) if regions is None else regions
        known = [self._recall(digest, caller, region) for digest, region in zip(digests, regions, strict=True)]

        async def embed(number: int) -> Embedded:
            # All pictures are passed on, the known ones too, so that an error names the right picture by its place.
            return known[number] or await self._embed(pictures[number], digests[number], False, caller, regions[number])

        new = sum(_weight(data) for data, found in zip(pictures, known, strict=True) if found is None)
        if not new:
            return [one for one in known if one is not None]
        return await self.pictures.each(embed, range(len(pictures)), within=within, caller=caller, weight=new)

    def is_word(self, word: str) -> bool:
        """As `Tokenizer.is_word`; nothing is one where there is no text tower."""
        return self._words is not None and self._words.tokenizer.is_word(word)

    async def embed_texts(
        self, texts: Sequence[str], *, within: float, caller: Caller = _ANYBODY
    ) -> list[EmbeddedText]:
        """Embed each text, in order, within that many seconds. Empty ones get the vector that the model gives them.

        Raises NoTextTower, TextRejected's kinds for the first text that cannot be read, and otherwise as for pictures.
        """
        if self._words is None:
            raise NoTextTower
        words = self._words
        known = [self._recall_text(text, caller) for text in texts]

        async def embed(number: int) -> EmbeddedText:
            return known[number] or await self._embed_text(words, texts[number], caller)

        if not (new := known.count(None)):
            return [one for one in known if one is not None]
        return await self.texts.each(embed, range(len(texts)), within=within, caller=caller, weight=new)

    async def look(self, data: bytes, since: int, caller: Caller = _ANYBODY) -> Seen:
        """What a picture is, and whether the version `since` of the readers read it otherwise; makes no vector.

        Raises MediaRejected's kinds.
        """
        return await self.decoding.look(data, since, caller)

    async def propose(self, data: bytes, caller: Caller = _ANYBODY) -> list[Proposal]:
        """Which parts of a picture show something, as far as can be told without a model.

        Raises MediaRejected's kinds.
        """
        return await self.decoding.propose(data, caller)

    async def thumbnail(self, data: bytes, caller: Caller = _ANYBODY) -> bytes:
        """The WebP thumbnail of a picture. Raises MediaRejected's kinds."""
        return await self.decoding.thumbnail(data, caller)

    def _recall(self, digest: bytes, caller: Caller, region: Region | None) -> Embedded | None:
        """A picture, or a region of it, that was embedded for this client a moment ago, by the digest of its bytes."""
        if (known := self._pictures.get(caller.client, _key(digest, region))) is None:
            return None
        return Embedded(known.embedding, known.format, known.width, known.height, known.blank, digest, None, {})

    def _recall_text(self, text: str, caller: Caller) -> EmbeddedText | None:
        known = self._texts.get(caller.client, text)
        return None if known is None else EmbeddedText(known.embedding, {})

    async def _embed(
        self, data: bytes, digest: bytes, thumbnail: bool, caller: Caller, region: Region | None
    ) -> Embedded:
        # By lane, since a picture may be at the end of the client's own thousand pictures in the bulk lane.
        key = (_key(digest, region), caller.lane, thumbnail)
        about = {"twinlens.tower": "image", "twinlens.lane": caller.lane, "twinlens.bytes": len(data)}
        with span("embed", about):
            return await self._pictures.join(
                caller.client, key, lambda: self._make(data, digest, thumbnail, caller, region)
            )

    async def _make(
        self, data: bytes, digest: bytes, thumbnail: bool, caller: Caller, region: Region | None
    ) -> Embedded:
        decoded = await self.decoding.decode(data, caller, thumbnail=thumbnail, region=region)
        encoded = await self._batcher.encode(decoded.pixels, caller)
        timings = {**decoded.timings, "queue": encoded.queue, "encode": encoded.encode}
        self._report("image", timings)
        blank = is_blank(decoded.pixels)
        about = (encoded.embedding, decoded.format, decoded.width, decoded.height, blank)
        self._pictures.put(caller.client, _key(digest, region), Known(*about))
        return Embedded(*about, digest, decoded.thumbnail, timings)

    async def _embed_text(self, words: Words, text: str, caller: Caller) -> EmbeddedText:
        key = (text, caller.lane)
        with span("embed", {"twinlens.tower": "text", "twinlens.lane": caller.lane}):
            return await self._texts.join(caller.client, key, lambda: self._make_text(words, text, caller))

    async def _make_text(self, words: Words, text: str, caller: Caller) -> EmbeddedText:
        def tokenize() -> tuple[Tokens, float]:
            started = perf_counter()
            with span("tokenize"):
                return words.tokenizer.tokens(text), perf_counter() - started

        tokens, seconds = await self._tokenizing.run(tokenize, caller)
        encoded = await words.batcher.encode(tokens, caller)
        timings = {"tokenize": seconds, "queue": encoded.queue, "encode": encoded.encode}
        self._report("text", timings)
        if len(text) <= _LONGEST_KEPT_CHARACTERS:
            self._texts.put(caller.client, text, KnownText(encoded.embedding))
        return EmbeddedText(encoded.embedding, timings)

    def _report(self, tower: Tower, timings: Timings) -> None:
        if self.on_embedded is not None:
            self.on_embedded(tower, timings)
