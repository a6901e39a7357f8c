"""Bytes of pictures to pixels, off the event loop, on threads of their own: large pictures one at a time.

It knows no model. So it also runs where pictures are decoded and another machine embeds them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import TypeVar

from PIL import Image

from server.artifact.artifact import PreprocessingSpec
from server.batching.fair_queue import Caller, Lane
from server.batching.threads import Pool
from server.batching.waiting import Waiting
from server.errors import MediaRejected, PictureTooLarge
from server.preprocessing import media
from server.preprocessing.blank import is_blank
from server.preprocessing.formats import Format, name_of
from server.preprocessing.proposals import EDGE, Proposal, proposed
from server.preprocessing.readings import read_otherwise
from server.preprocessing.region import Region
from server.tracing import span

# Decoding takes up to 12 bytes a pixel: pictures of more pixels than this are decoded one at a time.
_LARGE_PIXELS = 16_000_000

Made = TypeVar("Made")


@dataclass(frozen=True, slots=True)
class Decoded:
    """A picture, or a region of it, as the model sees it, uint8[S, S, 3], and what it is: its format, width and
    height."""

    pixels: media.Pixels
    format: Format
    width: int
    height: int
    thumbnail: bytes | None
    timings: Mapping[str, float]
    """`decode` and `resize`, in seconds."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a picture is, without its vector: its width and height upright, and whether it is blank."""

    width: int
    height: int
    blank: bool
    otherwise: bool
    """Its pixels are not those that the version of the readers gave that is asked about."""


class Decoding:
    """Decodes pictures for many callers at once."""

    def __init__(
        self,
        spec: PreprocessingSpec,
        *,
        max_pixels: int,
        threads: int,
        read_jpeg: Callable[[bytes], Image.Image] | None = None,
    ) -> None:
        """`max_pixels`: of one picture; `threads`: that decode; `read_jpeg`: as `media.decode` has it."""
        self._spec = spec
        self._max_pixels = max_pixels
        self._read_jpeg = read_jpeg
        self._pools: Mapping[Lane, Pool] = {
            "interactive": Pool(threads, name="decode"),
            "bulk": Pool(threads, name="decode-bulk", gives_way=True),
        }
        self._large = Pool(1, name="decode-large")
        self.on_rejected: Callable[[str, MediaRejected], None] | None = None
        """Called with the format of each picture that could not be decoded, and why; the format is as `name_of`."""

    def queues(self) -> Mapping[str, Mapping[Lane, Waiting]]:
        """What waits before each stage."""
        return {
            "decode": {lane: pool.waits()[lane] for lane, pool in self._pools.items()},
            # Behind each other, of pictures that wait for nothing else.
            "decode-large": self._large.waits(),
        }

    def close(self) -> None:
        for pool in self._pools.values():
            pool.close()
        self._large.close()

    async def decode(
        self, data: bytes, caller: Caller, *, thumbnail: bool = False, region: Region | None = None
    ) -> Decoded:
        """The pixels of a picture, or of a region of it, and its thumbnail where that is wanted.

        Raises MediaRejected's kinds.
        """
        return await self._in_turn(lambda: self._decode(data, thumbnail, region), data, caller, region)

    async def look(self, data: bytes, since: int, caller: Caller) -> Seen:
        """What a picture is, and whether the version `since` of the readers read it otherwise; makes no vector.

        Raises MediaRejected's kinds.
        """
        return await self._in_turn(lambda: self._see(data, since), data, caller)

    async def propose(self, data: bytes, caller: Caller) -> list[Proposal]:
        """Which parts of a picture show something. Raises MediaRejected's kinds."""
        return await self._in_turn(lambda: self._propose(data), data, caller)

    async def thumbnail(self, data: bytes, caller: Caller) -> bytes:
        """The WebP thumbnail of a picture. Raises MediaRejected's kinds."""
        return await self._in_turn(lambda: self._shrink(data), data, caller)

    async def _in_turn(
        self, work: Callable[[], Made], data: bytes, caller: Caller, region: Region | None = None
    ) -> Made:
        """Run what decodes a picture: large pictures one at a time, on a thread beside the others."""

        def if_small() -> tuple[Made] | None:
            width, height = media.measure(
                data, max_pixels=self._max_pixels, jpeg_at_least=self._spec.jpeg_at_least, region=region
            )
            return (work(),) if width * height <= _LARGE_PIXELS else None

        try:
            if (made := await self._pools[caller.lane].run(if_small, caller)) is not None:
                return made[0]
            return await self._large.run(work, caller)
        except MediaRejected as exc:
            if self.on_rejected is not None:
                self.on_rejected(name_of(data), exc)
            raise

    def _decode(self, data: bytes, thumbnail: bool, region: Region | None) -> Decoded:
        started = perf_counter()
        with span("decode") as decoding:
            picture = media.decode(
                data,
                max_pixels=self._max_pixels,
                jpeg_at_least=self._spec.jpeg_at_least,
                read_jpeg=self._read_jpeg,
                alpha=self._spec.alpha,
                region=region,
            )
            decoding.set("twinlens.format", picture.format.extension)
            decoding.set("twinlens.pixels", picture.width * picture.height)
        decoded = perf_counter()
        with span("resize"):
            pixels = media.to_pixels(picture, self._spec)
        timings = {"decode": decoded - started, "resize": perf_counter() - decoded}
        small = None
        if thumbnail:
            with span("thumbnail"):
                small = self._shrink(data, picture if region is None else None)
        return Decoded(pixels, picture.format, picture.width, picture.height, small, timings)

    def _see(self, data: bytes, since: int) -> Seen:
        # Without another decoder of JPEG: it may differ from Pillow by 2 of 255, and that is no other reading.
        picture = media.decode(
            data, max_pixels=self._max_pixels, jpeg_at_least=self._spec.jpeg_at_least, alpha=self._spec.alpha
        )
        pixels = media.to_pixels(picture, self._spec)
        otherwise = read_otherwise(data, pixels, self._spec, since=since, max_pixels=self._max_pixels)
        return Seen(picture.width, picture.height, is_blank(pixels), otherwise)

    def _propose(self, data: bytes) -> list[Proposal]:
        with span("propose"):
            return proposed(media.shrunk(self._decode_small(data), edge=EDGE))

    def _shrink(self, data: bytes, picture: media.Picture | None = None) -> bytes:
        """The thumbnail, from the decoded picture where that is large enough."""
        if picture is None or not media.fills_thumbnail(picture):
            picture = self._decode_small(data, picture)
        return media.thumbnail(picture)

    def _decode_small(self, data: bytes, picture: media.Picture | None = None) -> media.Picture:
        """A picture at a scale that is enough for its thumbnail; `picture`: as it was decoded for the model."""
        try:
            return media.decode(
                data, max_pixels=self._max_pixels, jpeg_at_least=media.THUMBNAIL, alpha=self._spec.alpha
            )
        except PictureTooLarge:
            # It is within the bound at the scale for the model only, so that the thumbnail is less sharp.
            return picture or media.decode(
                data,
                max_pixels=self._max_pixels,
                jpeg_at_least=self._spec.jpeg_at_least,
                alpha=self._spec.alpha,
            )
