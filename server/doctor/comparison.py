"""Stored vectors compared with what an artifact makes of their pictures: the same bytes must give the same direction.

A picture is embedded as the server embeds it: `media` reads the pixels as the artifact's spec says, `encoder` runs its
graph. Before that, the artifact's goldens prove that it gives the same results here as where it was exported.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from statistics import median

import numpy as np
from numpy.typing import NDArray

from server.artifact.artifact import MIN_COSINE_IN_SPACE, Artifact, Vectors
from server.errors import MediaRejected, StorageFailed
from server.inference.encoder import Encoder
from server.ingest.storage import MediaStore
from server.preprocessing import media
from server.settings import Settings

AGREES = MIN_COSINE_IN_SPACE
"""The least cosine at which a vector counts as that of the picture."""


class Pictures:
    """The bytes of pictures by their `s3Key`, from a folder or the media store."""

    def __init__(self, settings: Settings, folder: Path | None = None) -> None:
        """`folder` is tried before the media store of the settings."""
        self._folder = folder
        self._store = MediaStore.at(settings.media_url, settings.data / "media")

    def read(self, key: str) -> bytes | None:
        """The bytes of a picture, or None where it cannot be found.

        The folder is searched for the complete key, then for its last parts, down to the base name alone.
        """
        if self._folder is not None:
            parts = [part for part in PurePosixPath(key).parts if part not in ("/", "..")]
            for at in range(len(parts)):
                path = self._folder.joinpath(*parts[at:])
                if path.is_file():
                    return path.read_bytes()
        try:
            return asyncio.run(self._store.get(key))
        except StorageFailed:  # a store may refuse a legacy key
            return None


@dataclass(frozen=True)
class StoredVector:
    """A vector of the database, float32[D] of any length, and the key of the picture that it belongs to, or ""."""

    media_id: str
    s3_key: str
    vector: Vectors

    @classmethod
    def of_row(cls, media_id: str, s3_key: str, vector: Sequence[float]) -> StoredVector:
        """The record of a row with columns of these names."""
        return cls(media_id, s3_key, np.array(vector, np.float32))


@dataclass(frozen=True)
class Comparison:
    """How a sample agrees with its pictures: cosines by media, and the media whose pictures could not be embedded.

    `absent`: the picture was not found; `unreadable`: its bytes are no picture that the server reads.
    """

    cosines: dict[str, float]
    absent: list[str]
    unreadable: list[str]

    @property
    def disagreeing(self) -> list[str]:
        """The media whose cosine is below AGREES, the worst first."""
        return sorted(
            (one for one, cosine in self.cosines.items() if not cosine >= AGREES), key=self.cosines.__getitem__
        )

    @property
    def lowest(self) -> float:
        """The lowest cosine. Raises ValueError where there is none."""
        return min(self.cosines.values())

    @property
    def agreement(self) -> str:
        """The lowest cosine and the median, in words. Raises ValueError where there is none."""
        return f"lowest cosine {self.lowest:.4f}, median {median(self.cosines.values()):.4f}"


def compare(
    settings: Settings, artifact: Artifact, pictures: Pictures, sample: Iterable[StoredVector], most: int
) -> Comparison:
    """Embed the pictures of the sample again, until `most` are compared, each with its stored vector.

    The stored vectors must not be zero. Those of another number of dimensions than the artifact's have cosine -1.
    Without a picture the artifact is not loaded. Raises ArtifactInvalid, EncoderFailed.
    """
    cosines: dict[str, float] = {}
    absent: list[str] = []
    unreadable: list[str] = []
    with _encoder(settings, artifact) as encoder:
        for stored in sample:
            if len(cosines) >= most:
                break
            if (data := pictures.read(stored.s3_key)) is None:
                absent.append(stored.media_id)
                continue
            try:
                pixels = media.read_pixels(data, artifact.spec, max_pixels=settings.max_pixels)
            except MediaRejected:
                unreadable.append(stored.media_id)
                continue
            (made,) = encoder().encode(pixels[None])
            cosines[stored.media_id] = _cosine(made, stored.vector) if made.shape == stored.vector.shape else -1.0
    return Comparison(cosines, absent, unreadable)


class _LazyEncoder:
    """An encoder that is opened, and tested with the artifact's goldens, when it is first asked for."""

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
def _encoder(settings: Settings, artifact: Artifact) -> Iterator[_LazyEncoder]:
    encoder = _LazyEncoder(settings, artifact)
    try:
        yield encoder
    finally:
        encoder.close()


def _cosine(one: Vectors, other: Vectors) -> float:
    left, right = one.astype(np.float64), other.astype(np.float64)
    return float(left @ right / (np.linalg.norm(left) * np.linalg.norm(right)))
