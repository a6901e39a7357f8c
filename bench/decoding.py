"""What decoding a JPEG at a scale saves in time, and costs in likeness.

$ python -m bench.decoding
$ python -m bench.decoding --model models/starter --pictures ~/photographs --json decoding.json

Every photograph of a folder is written as a JPEG in several ways (baseline and progressive, of several qualities, with
and without chroma subsampling, in its own size and in half of it). Each is decoded in full, and at the scale that
leaves both sides at least 1, 2, 3 and 4 times the model's edge. The vectors of both are compared. So are those of
near-duplicates: a large JPEG against a copy of half its size, both decoded in full, and both at their own scales.

The times are of bytes to pixels: decoded, resized and cropped, on one thread. The ways of decoding take turns, so that
other work on the machine slows them all; trust the ratios more than the milliseconds.
"""

from __future__ import annotations

import argparse
import io
import json
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench import machine
from bench.near_duplicates import MAX_PIXELS, read_pictures
from export.proof.decoding import compare_vectors, decode_twice
from server.artifact.artifact import Artifact, PreprocessingSpec
from server.errors import TwinlensError
from server.inference.encoder import Encoder
from server.preprocessing.media import decode, read_pixels

PICTURES = Path(__file__).parent.parent / "export" / "pictures"
EDGES = (1, 2, 3, 4)
MEGAPIXELS = (0.3, 1, 2, 6, 12, 24)
CODINGS: dict[str, dict[str, Any]] = {
    "quality 75, 4:2:0": {"quality": 75, "subsampling": "4:2:0"},
    "quality 85, 4:2:0, progressive": {"quality": 85, "subsampling": "4:2:0", "progressive": True},
    "quality 95, 4:4:4": {"quality": 95, "subsampling": "4:4:4"},
}

_ROUNDS = 7


def jpeg(image: Image.Image, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", **options)
    return out.getvalue()


def _half(image: Image.Image) -> Image.Image:
    return image.resize((max(1, image.width // 2), max(1, image.height // 2)), Image.Resampling.LANCZOS)


def at_least(spec: PreprocessingSpec, edges: int) -> PreprocessingSpec:
    """The spec with its JPEGs decoded at no less than so many edges; 0: in full."""
    return msgspec.structs.replace(spec, jpeg_at_least=edges * spec.edge)


def likeness(
    pictures: Sequence[tuple[str, Image.Image]], spec: PreprocessingSpec, encode: Callable[[Any], NDArray[Any]]
) -> dict[str, Any]:
    """The vectors of scaled decoding against those of full decoding, and near-duplicates under both."""
    files = [
        (f"{name}, {size}, {coding}", jpeg(image, **options))
        for name, whole in pictures
        for size, image in (("whole", whole), ("half", _half(whole)))
        for coding, options in CODINGS.items()
    ]
    found: dict[str, Any] = {"jpegs": len(files), "photographs": len(pictures), "edges": {}}
    for edges in EDGES:
        twice = decode_twice(files, at_least(spec, edges))
        compared = compare_vectors(twice, encode)
        # What is too small to be decoded at a scale is exactly what it was, and flatters the means.
        at = np.flatnonzero([one.scale > 1 for one in twice])
        if not len(at):
            continue
        apart = [twice[one].apart for one in at]
        found["edges"][str(edges)] = {
            "decoded_at_a_scale": len(at),
            "by_scale": {str(scale): sum(one.scale == scale for one in twice) for scale in (2, 4, 8)},
            "pixels_mean": round(float(np.mean([one.mean() for one in apart])), 3),
            "pixels_mean_of_the_worst": round(float(max(one.mean() for one in apart)), 3),
            "pixels_max": int(max(one.max() for one in apart)),
            "cosine_min": round(float(compared.cosine[at].min()), 6),
            "cosine_mean": round(float(compared.cosine[at].mean()), 6),
            "centred_cosine_min": round(float(compared.centred[at].min()), 6),
            "centred_cosine_mean": round(float(compared.centred[at].mean()), 6),
            "worst": twice[int(at[compared.cosine[at].argmin()])].name,
        }
    found["near_duplicates"] = {
        str(edges): near_duplicates(pictures, at_least(spec, edges), encode) for edges in (0, *EDGES)
    }
    return found


def near_duplicates(
    pictures: Sequence[tuple[str, Image.Image]], spec: PreprocessingSpec, encode: Callable[[Any], NDArray[Any]]
) -> dict[str, Any]:
    """Each photograph as a large JPEG in a catalogue, searched for by a JPEG of half its size."""

    def vectors(files: Iterator[bytes]) -> NDArray[np.float64]:
        pixels = (read_pixels(data, spec, max_pixels=MAX_PIXELS) for data in files)
        return np.concatenate([encode(one[None]) for one in pixels]).astype(np.float64)

    large = vectors(jpeg(image, quality=90) for _, image in pictures)
    small = vectors(jpeg(_half(image), quality=80) for _, image in pictures)
    cosines = small @ large.T
    own = np.diagonal(cosines).copy()
    np.fill_diagonal(cosines, -np.inf)
    return {
        "found_first": int((own > cosines.max(axis=1)).sum()),
        "cosine_min": round(float(own.min()), 6),
        "cosine_mean": round(float(own.mean()), 6),
        "ahead_of_the_next_min": round(float((own - cosines.max(axis=1)).min()), 6),
    }


def times(image: Image.Image, spec: PreprocessingSpec, rounds: int = _ROUNDS) -> list[dict[str, Any]]:
    """Bytes to pixels of one photograph in several sizes, in full and scaled; medians, in milliseconds."""
    found = []
    for megapixels in MEGAPIXELS:
        scale = (megapixels * 1e6 / (image.width * image.height)) ** 0.5
        sized = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
        for kind, options in (("baseline", {}), ("progressive", {"progressive": True})):
            data = jpeg(sized, quality=90, **options)
            measured: dict[int, list[float]] = {edges: [] for edges in (0, *EDGES)}
            for _ in range(rounds):
                for edges, seconds in measured.items():
                    started = perf_counter()
                    read_pixels(data, at_least(spec, edges), max_pixels=MAX_PIXELS)
                    seconds.append(perf_counter() - started)
            full = median(measured[0])
            found.append(
                {
                    "megapixels": megapixels,
                    "kind": kind,
                    "full_ms": round(full * 1e3, 1),
                    "scaled_ms": {str(edges): round(median(measured[edges]) * 1e3, 1) for edges in EDGES},
                    # Of the same round each: what else runs comes and goes.
                    "times_quicker": {
                        str(edges): round(median(a / b for a, b in zip(measured[0], measured[edges], strict=True)), 2)
                        for edges in EDGES
                    },
                    "scale": {
                        str(edges): decode(data, max_pixels=MAX_PIXELS, jpeg_at_least=edges * spec.edge).scale
                        for edges in EDGES
                    },
                }
            )
    return found


def _print(found: dict[str, Any]) -> None:
    print(f"{'JPEG':<22}{'full':>9}  " + "".join(f"{f'>= {edges} edges':>22}" for edges in EDGES))
    for row in found["times"]:
        cells = "".join(
            f"{row['scaled_ms'][str(edges)]:>9.1f} ms ({row['times_quicker'][str(edges)]:.1f} x)".rjust(22)
            for edges in EDGES
        )
        print(f"{row['megapixels']:>5} MP, {row['kind']:<12} {row['full_ms']:>7.1f} ms{cells}")
    for model in found["models"]:
        print(f"\n{model['model']}: {model['photographs']} photographs as {model['jpegs']} JPEGs")
        for edges, row in model["edges"].items():
            print(
                f"  >= {edges} edges: {row['decoded_at_a_scale']} decoded at a scale; pixels "
                f"{row['pixels_mean']:.2f} of 255 apart (worst {row['pixels_mean_of_the_worst']:.2f}); cosine to full "
                f"decoding: lowest {row['cosine_min']:.6f}, mean {row['cosine_mean']:.6f}; centred: lowest "
                f"{row['centred_cosine_min']:.6f}, mean {row['centred_cosine_mean']:.6f}"
            )
        for edges, row in model["near_duplicates"].items():
            print(
                f"  near-duplicates, {'in full' if edges == '0' else f'>= {edges} edges'}: {row['found_first']} found "
                f"first; cosine lowest {row['cosine_min']:.6f}, mean {row['cosine_mean']:.6f}; ahead of the next by "
                f"{row['ahead_of_the_next_min']:.4f} at least"
            )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; the exit code: 0 done, 2 refused (standard error has a sentence)."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.decoding", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, action="append", help="an artifact's folder (models/starter); repeatable")
    parser.add_argument("--pictures", type=Path, default=PICTURES, help="a folder of photographs (the gate's)")
    parser.add_argument("--rounds", type=int, default=_ROUNDS, help=f"of the times ({_ROUNDS})")
    parser.add_argument("--json", type=Path, help="where to write the figures, with the machine")
    options = parser.parse_args(arguments)
    try:
        artifacts = [Artifact.read(folder) for folder in options.model or [Path("models/starter")]]
        pictures = list(read_pictures(options.pictures).items())
        if len(pictures) < 2:
            print(f"bench: {options.pictures} holds {len(pictures)} pictures; two are needed.", file=sys.stderr)
            return 2
        timed = max((image for _, image in pictures), key=lambda image: image.width * image.height)
        given = sys.argv[1:] if arguments is None else arguments
        found: dict[str, Any] = {
            "machine": machine.describe(),
            "command": shlex.join(["python", "-m", "bench.decoding", *given]),
            "edge": artifacts[0].spec.edge,
            "times": times(timed, artifacts[0].spec, options.rounds),
            "models": [],
        }
        for artifact in artifacts:
            with Encoder(artifact, "fp32", "cpu") as encoder:
                found["models"].append(
                    {"model": artifact.manifest.name} | likeness(pictures, artifact.spec, encoder.encode)
                )
    except TwinlensError as exc:
        print(f"bench: {exc.sentence}", file=sys.stderr)
        return 2
    except OSError as exc:
        print(f"bench: {exc.filename} cannot be read: {exc.strerror}.", file=sys.stderr)
        return 2
    print(machine.sentence())
    _print(found)
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
