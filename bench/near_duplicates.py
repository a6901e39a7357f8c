"""How often a picture that was altered finds its original first.

$ python -m bench.near_duplicates
$ python -m bench.near_duplicates --model models/clip-vit-b32 --pictures ~/photographs

Every picture of a folder is altered in each of the ways below and searched for among all of them, through the server's
own decoder and encoder. A near-duplicate that is more similar to another picture than to its original is a miss.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench import machine
from export.proof.alterations import ALTERATIONS as ALTERATIONS
from server.artifact.artifact import Artifact, PreprocessingSpec, Vectors
from server.errors import TwinlensError
from server.inference.encoder import Encoder
from server.preprocessing.media import decode, to_pixels
from server.settings import Settings

PICTURES = Path(__file__).parent.parent / "server" / "ingest" / "demo_catalogue" / "pictures"

MAX_PIXELS = Settings().max_pixels
"""As a server has it that is given no other."""

_BATCH = 16


@dataclass(frozen=True, slots=True)
class Found:
    """What came of one alteration."""

    alteration: str
    first: float
    """The share of pictures, 0 to 1, whose altered form has its original as its first match."""
    cosine: float
    """The mean cosine of the altered picture with its original."""
    missed: list[str]
    near: float | None = None
    """The share whose altered form is graded at least as a near-duplicate of its original; None without grades."""


def read_pictures(folder: Path) -> dict[str, Image.Image]:
    """Every picture below a folder, upright RGB, by its file name; what is not a picture is skipped."""
    pictures = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            pictures[path.relative_to(folder).as_posix()] = decode(path.read_bytes(), max_pixels=MAX_PIXELS).in_srgb()
        except TwinlensError:
            continue
    return pictures


def embed(encoder: Encoder, spec: PreprocessingSpec, images: Sequence[Image.Image]) -> Vectors:
    """float32[N, D], each of unit length, in batches."""
    batches = [images[start : start + _BATCH] for start in range(0, len(images), _BATCH)]
    return np.concatenate([encoder.encode(np.stack([to_pixels(image, spec) for image in batch])) for batch in batches])


def search(
    encoder: Encoder,
    spec: PreprocessingSpec,
    pictures: dict[str, Image.Image],
    alterations: Iterable[str] = ALTERATIONS,
) -> list[Found]:
    """Alter every picture in every way, or those of ALTERATIONS that are named, and look for its original."""
    names = list(pictures)
    originals = embed(encoder, spec, list(pictures.values())).astype(np.float64)
    grades = encoder.artifact.variant(encoder.precision).grades
    results = []
    for alteration in alterations:
        alter = ALTERATIONS[alteration]
        altered = embed(encoder, spec, [alter(image) for image in pictures.values()]).astype(np.float64)
        cosines = altered @ originals.T
        own = np.diagonal(cosines)
        missed = [names[at] for at in np.flatnonzero(_best_other(cosines) >= own)]
        near = float((own >= grades.near_duplicate).mean()) if grades is not None else None
        results.append(Found(alteration, 1 - len(missed) / len(names), float(own.mean()), missed, near))
    return results


def _best_other(cosines: NDArray[np.float64]) -> NDArray[np.float64]:
    """For each row, the highest cosine beside the diagonal."""
    others = cosines.copy()
    np.fill_diagonal(others, -np.inf)
    best: NDArray[np.float64] = others.max(axis=1)
    return best


def nearest_others(encoder: Encoder, spec: PreprocessingSpec, pictures: dict[str, Image.Image]) -> NDArray[np.float64]:
    """For each picture as it is, its cosine with the nearest other one: float64[N]."""
    originals = embed(encoder, spec, list(pictures.values())).astype(np.float64)
    return _best_other(originals @ originals.T)


def _refuse(sentence: str) -> int:
    print(f"bench: {sentence}", file=sys.stderr)
    return 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; the exit code: 0 done, 2 refused (standard error has a sentence)."""
    parser = argparse.ArgumentParser(prog="python -m bench.near_duplicates", description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("models/starter"), help="the artifact's folder")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="cpu")
    parser.add_argument("--pictures", type=Path, default=PICTURES, help="a folder of pictures (the demo catalogue's)")
    options = parser.parse_args(arguments)
    try:
        artifact = Artifact.read(options.model)
        pictures = read_pictures(options.pictures)
        if len(pictures) < 2:
            return _refuse(f"{options.pictures} holds {len(pictures)} pictures; at least two are needed.")
        with Encoder(artifact, options.precision, options.device) as encoder:
            others = nearest_others(encoder, artifact.spec, pictures)
            results = search(encoder, artifact.spec, pictures)
    except TwinlensError as exc:
        return _refuse(exc.sentence)
    except OSError as exc:
        return _refuse(f"{exc.filename} cannot be read: {exc.strerror}.")
    print(machine.sentence())
    print(f"{artifact.manifest.model}, {options.precision}, {len(pictures)} pictures\n")
    print(f"{'alteration':<34}{'found first':>12}{'mean cosine':>13}{'near-duplicates':>17}  missed")
    for found in results:
        missed = ", ".join(found.missed[:3]) + (", ..." if len(found.missed) > 3 else "")
        near = "-" if found.near is None else f"{found.near:.1%}"
        print(f"{found.alteration:<34}{found.first:>11.1%} {found.cosine:>13.4f}{near:>17}  {missed}".rstrip())
    print(f"\nall: {np.mean([found.first for found in results]):.2%} found first")
    print(f"unaltered: the nearest other picture has a cosine of {others.max():.6f} at most")
    return 0


if __name__ == "__main__":
    sys.exit(main())
