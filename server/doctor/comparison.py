"""Pictures embedded anew, to judge vectors that are there: the same bytes must give the same direction.

Everything goes the way that the server goes (`media` reads the pixels as the artifact's spec says, `encoder` runs its
graph), after the artifact's goldens have proven that it does here what it did where it was exported.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from statistics import median

import numpy as np
from numpy.typing import NDArray

from server.artifact.artifact import MIN_COSINE_IN_SPACE, Artifact, Vectors
from server.errors import MediaNotFound, MediaRejected, StorageFailed
from server.inference.encoder import Encoder
from server.ingest.storage import MediaStore
from server.preprocessing import media
from server.settings import Settings

AGREES = MIN_COSINE_IN_SPACE
"""The least cosine at which a vector counts as that of the picture."""


class Pictures:
    """The bytes of media by their `s3Key`, wherever they are at hand."""

    def __init__(self, settings: Settings, folder: Path | None = None) -> None:
        """`folder` is looked at before the media store of the settings."""
        self._folder = folder
        local = settings.data / "media"
        # A store in a folder would make it.
        self._store = MediaStore.at(settings.media_url, local) if settings.media_url or local.is_dir() else None

    def read(self, key: str) -> bytes | None:
        """In the folder under the key, or under its last parts down to the base name alone; or in the store."""
        if self._folder is not None:
            parts = [part for part in PurePosixPath(key).parts if part not in ("/", "..")]
            for at in range(len(parts)):
                path = self._folder.joinpath(*parts[at:])
                if path.is_file():
                    return path.read_bytes()
        if self._store is not None:
            try:
                return asyncio.run(self._store.get(key))
            except (MediaNotFound, StorageFailed):  # a key of the older system's may be none that a store takes
                return None
        return None


@dataclass(frozen=True)
class Kept:
    """A vector that is there: float32[D] of any length but 0, and the picture that it is said to be of."""

    media_id: str
    s3_key: str
    vector: Vectors


@dataclass(frozen=True)
class Comparison:
    """What came of embedding a sample anew: cosines by media, and the media whose pictures could not be had."""

    cosines: dict[str, float]
    absent: list[str]
    unreadable: list[str]

    @property
    def disagreeing(self) -> list[str]:
        """Those below AGREES, the worst first."""
        return sorted(
            (one for one, cosine in self.cosines.items() if not cosine >= AGREES), key=self.cosines.__getitem__
        )

    @property
    def lowest(self) -> float:
        return min(self.cosines.values())

    @property
    def told(self) -> str:
        """How they agree, in words."""
        return f"lowest cosine {self.lowest:.4f}, median {median(self.cosines.values()):.4f}"


def compare(
    settings: Settings, artifact: Artifact, pictures: Pictures, sample: Iterable[Kept], most: int
) -> Comparison:
    """Embed the pictures of the sample anew, until `most` are compared, and tell how the vectors there agree.

    Vectors of another number of dimensions than the artifact's have cosine -1. Nothing is loaded when no picture is at
    hand. Raises ArtifactInvalid, EncoderFailed.
    """
    cosines: dict[str, float] = {}
    absent: list[str] = []
    unreadable: list[str] = []
    with _encoder(settings, artifact) as encoder:
        for kept in sample:
            if len(cosines) >= most:
                break
            if (data := pictures.read(kept.s3_key)) is None:
                absent.append(kept.media_id)
                continue
            try:
                pixels = media.read_pixels(data, artifact.spec, max_pixels=settings.max_pixels)
            except MediaRejected:
                unreadable.append(kept.media_id)
                continue
            (made,) = encoder().encode(pixels[None])
            cosines[kept.media_id] = _cosine(made, kept.vector) if made.shape == kept.vector.shape else -1.0
    return Comparison(cosines, absent, unreadable)


class _Lazily:
    """An encoder that is opened, and proven, when it is first asked for."""

    def __init__(self, settings: Settings, artifact: Artifact) -> None:
        self._settings, self._artifact = settings, artifact
        self._encoder: Encoder | None = None

    def __call__(self) -> Encoder:
        if self._encoder is None:
            settings, artifact = self._settings, self._artifact
            artifact.check_files(artifact.files_to_run(settings.precision))
            encoder = Encoder(artifact, settings.precision, settings.device, threads=settings.threads or 0)
            encoder.open()
            self._encoder = encoder
            artifact.without_words().self_test(settings.precision, self._to_pixels, encoder.encode)
        return self._encoder

    def _to_pixels(self, data: bytes) -> NDArray[np.uint8]:
        return media.read_pixels(data, self._artifact.spec, max_pixels=sys.maxsize)

    def close(self) -> None:
        if self._encoder is not None:
            self._encoder.close()


@contextmanager
def _encoder(settings: Settings, artifact: Artifact) -> Iterator[_Lazily]:
    encoder = _Lazily(settings, artifact)
    try:
        yield encoder
    finally:
        encoder.close()


def _cosine(one: Vectors, other: Vectors) -> float:
    left, right = one.astype(np.float64), other.astype(np.float64)
    return float(left @ right / (np.linalg.norm(left) * np.linalg.norm(right)))
