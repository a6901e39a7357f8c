"""What each file is put through, in a process of its own: what a server does with a picture for its starter model."""

from __future__ import annotations

import zlib
from functools import cache
from pathlib import Path

import numpy as np

from bench.decoders.case import Samples
from bench.decoders.worker import Refused
from bench.pictures import ROOT
from server.artifact.artifact import Artifact, PreprocessingSpec
from server.errors import MediaRejected
from server.preprocessing import media
from server.preprocessing.formats import TIFF
from server.preprocessing.readings import read_otherwise
from server.settings import Settings

MAX_PIXELS = Settings().max_pixels
"""As a server has it that is given no other."""
MODEL: Path = ROOT / "models" / "starter"
"""Its spec converts colours, lays transparency on a ground by contrast, and decodes large JPEGs at a scale."""
ONE_IN = 8
"""Of so many files one is also compared with what the readers made of it before."""

_SMALL = 4_000_000
_SHORT = 1_000_000
"""Pixels and bytes: a larger one is not compared, because its time is counted and the comparison is no request's."""
_NOTHING = np.empty(0, np.uint8)


@cache
def spec() -> PreprocessingSpec:
    return Artifact.read(MODEL).manifest.preprocessing


def look(data: bytes) -> Samples:
    """Measure, decode, make pixels and a thumbnail, as the server does. Gives nothing; raises Refused, or a fault."""
    asked = spec()
    size = None
    refusal = None
    try:
        size = media.measure(data, max_pixels=MAX_PIXELS, jpeg_at_least=asked.jpeg_at_least)
    except MediaRejected as exc:
        refusal = exc
    try:
        picture = media.decode(data, max_pixels=MAX_PIXELS, jpeg_at_least=asked.jpeg_at_least, alpha=asked.alpha)
        pixels = media.to_pixels(picture, asked)
        media.thumbnail(picture)
        if picture.scale > 1 and picture.width * picture.height <= MAX_PIXELS:
            # As for a model whose spec leaves no pixel out.
            media.decode(data, max_pixels=MAX_PIXELS, alpha=asked.alpha)
    except MediaRejected as exc:
        raise Refused(f"{exc.code}: {exc.sentence}") from (refusal or exc)
    if size is not None and sorted(size) != sorted((picture.width, picture.height)):
        raise ValueError(f"measured as {size}, decoded as {picture.width} x {picture.height}")
    # libtiff, as it was used, writes on the standard error: the servers do not ask it either.
    small = picture.width * picture.height <= _SMALL and len(data) <= _SHORT
    if picture.format is not TIFF and small and zlib.crc32(data) % ONE_IN == 0:
        read_otherwise(data, pixels, asked, since=0, max_pixels=MAX_PIXELS)
    return _NOTHING
