"""How decoding a JPEG at a scale moves pixels and vectors: each of the gate's JPEGs against itself decoded in full.

A spec whose `jpeg_at_least` is not 0 lets the server decode a large JPEG at 1/2, 1/4 or 1/8 of its size. The pixels are
then no longer those of the checkpoint's own processor to the last bit; how far the vectors move is measured here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from export.errors import ExportRefused
from export.proof.drift import Compared, compare
from server.artifact.artifact import PreprocessingSpec
from server.preprocessing.formats import JPEG, sniff
from server.preprocessing.media import Pixels, decode, to_pixels
from server.settings import MAX_PIXELS

EDGES = 2
"""A spec's `jpeg_at_least` is by default so many times its edge. See docs/decisions/0014."""

MIN_COSINE = 0.99
"""The least cosine of each JPEG to itself decoded in full. It need not be near 1, since query and catalogue decode at
the same scale; it finds a tower that depends on what the scale leaves out."""


@dataclass(frozen=True, slots=True)
class DecodedTwice:
    """A JPEG's pixels, uint8[S, S, 3], decoded in full and at the scale that a spec allows."""

    name: str
    scale: int
    """1, 2, 4 or 8: the picture is decoded at 1/scale of its size; 1 where it is too small for another."""
    full: Pixels
    scaled: Pixels

    @property
    def apart(self) -> NDArray[np.int16]:
        """How far each sample moved, of 255."""
        moved: NDArray[np.int16] = np.abs(self.full.astype(np.int16) - self.scaled)
        return moved


def scaled_by_default(spec: PreprocessingSpec) -> PreprocessingSpec:
    """The spec with its JPEGs decoded at a scale, as an export writes it by default."""
    return msgspec.structs.replace(spec, jpeg_at_least=EDGES * spec.edge)


def decode_twice(pictures: Iterable[tuple[str, bytes]], spec: PreprocessingSpec) -> list[DecodedTwice]:
    """Each JPEG among the pictures, given as name and bytes, in full and as the spec says; other formats are left out.

    Raises MediaRejected or one of its subclasses.
    """
    twice = []
    for name, data in pictures:
        if sniff(data) is JPEG:
            full = decode(data, max_pixels=MAX_PIXELS)  # a JPEG has no alpha
            scaled = decode(data, max_pixels=MAX_PIXELS, jpeg_at_least=spec.jpeg_at_least)
            twice.append(DecodedTwice(name, scaled.scale, to_pixels(full, spec), to_pixels(scaled, spec)))
    return twice


def compare_vectors(twice: Sequence[DecodedTwice], encode: Callable[[Pixels], NDArray[Any]]) -> Compared:
    """The vectors of the scaled against those of the full; `encode` takes uint8[N, S, S, 3] to float[N, D].

    Each picture is encoded alone, so that nothing but its pixels can move its vector.
    """
    full = np.concatenate([encode(one.full[None]) for one in twice])
    # At scale 1 the pixels are the same: large towers would spend seconds on the same vector.
    scaled = [encode(one.scaled[None]) if one.scale > 1 else full[at : at + 1] for at, one in enumerate(twice)]
    return compare(full, np.concatenate(scaled))


def prove_decoding(twice: Sequence[DecodedTwice], compared: Compared, least: float = MIN_COSINE) -> None:
    """Refuse a spec whose scaled decoding moves vectors too far.

    Whether a picture still finds itself first is not judged: two of a user's files may hold one photograph.
    Raises ExportRefused with a table of those pictures.
    """
    # Written so that a cosine that is not a number counts as drift.
    drifted = [(one, at) for one, at in zip(twice, compared.cosine, strict=True) if not at >= least]
    if drifted:
        width = max(len(one.name) for one, _ in drifted)
        table = "\n".join(
            f"  {one.name:<{width}}  at 1/{one.scale}: cosine {cosine:.6f}; pixels differ by {one.apart.mean():.2f} of "
            f"255 on average, {one.apart.max()} at most"
            for one, cosine in drifted
        )
        raise ExportRefused(
            f"Decoding JPEGs at a scale moves the vectors of {len(drifted)} of {len(twice)} pictures too far from "
            f"those of decoding in full (at least {least} is needed).\n{table}\n"
            "Export it with --jpeg full."
        )
