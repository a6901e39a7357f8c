"""What an ICC profile in a picture costs: bytes to vector and thumbnail, with a profile against the same file without.

$ python -m bench.colours
$ python -m bench.colours --model models/starter --json colours.json

The largest photograph of a folder is written in several sizes as a JPEG, and once as a PNG with alpha: without a
profile, with one that is sRGB in all but name, with Display P3 and with Adobe RGB. Each is decoded, brought to pixels,
shrunk to a thumbnail and embedded alone, as one upload to a catalogue is. The time is that of the processor, over all
threads; the kinds take turns, so that other work on the machine slows them all. Trust the ratios.
"""

from __future__ import annotations

import argparse
import io
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench import machine
from bench.decoding import PICTURES
from bench.near_duplicates import MAX_PIXELS, read_pictures
from export.proof.profiles import SPACES, rgb_profile
from server.artifact.artifact import Artifact, PreprocessingSpec
from server.errors import TwinlensError
from server.inference.encoder import Encoder
from server.preprocessing.media import decode, thumbnail, to_pixels

MEGAPIXELS = (0.1, 0.3, 1, 4, 12)
PROFILES = ("sRGB", "Display P3", "Adobe RGB (1998)")
_ROUNDS = 15

Encode = Callable[[NDArray[np.uint8]], NDArray[Any]]


def upload(data: bytes, spec: PreprocessingSpec, encode: Encode) -> None:
    """All that an upload to a catalogue asks of the processor, but for the database and the network."""
    picture = decode(data, max_pixels=MAX_PIXELS, jpeg_at_least=spec.jpeg_at_least, alpha=spec.alpha)
    encode(to_pixels(picture, spec)[None])
    thumbnail(picture)


def costs(image: Image.Image, spec: PreprocessingSpec, encode: Encode, rounds: int) -> list[dict[str, Any]]:
    """For each file: milliseconds of the processor without a profile, and how many times that with each."""
    found = []
    for megapixels in MEGAPIXELS:
        scale = (megapixels * 1e6 / (image.width * image.height)) ** 0.5
        sized = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
        clear = sized.copy()
        clear.putalpha(Image.linear_gradient("L").resize(sized.size))
        for form, one, options in (("JPEG", sized, {"quality": 85}), ("PNG, alpha", clear, {"compress_level": 6})):
            if form == "PNG, alpha" and megapixels > 1:
                continue  # seconds to write
            files = {"none": _written(one, form, options, None)}
            files |= {name: _written(one, form, options, rgb_profile(name, SPACES[name])) for name in PROFILES}
            measured: dict[str, list[float]] = {name: [] for name in files}
            for _ in range(rounds):
                for name, data in files.items():
                    started = process_time()
                    upload(data, spec, encode)
                    measured[name].append(process_time() - started)
            bare = median(measured["none"])
            found.append(
                {
                    "megapixels": megapixels,
                    "format": form,
                    "without_ms": round(bare * 1e3, 2),
                    "times": {name: round(median(measured[name]) / bare, 3) for name in PROFILES},
                }
            )
    return found


def _written(image: Image.Image, form: str, options: dict[str, Any], profile: bytes | None) -> bytes:
    out = io.BytesIO()
    image.save(out, form.partition(",")[0], icc_profile=profile, **options)
    return out.getvalue()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; the exit code: 0 done, 2 refused (standard error has a sentence)."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.colours", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=Path("models/starter"), help="an artifact's folder")
    parser.add_argument("--pictures", type=Path, default=PICTURES, help="a folder of photographs (the gate's)")
    parser.add_argument("--rounds", type=int, default=_ROUNDS, help=f"of the times ({_ROUNDS})")
    parser.add_argument("--json", type=Path, help="where to write the figures, with the machine")
    options = parser.parse_args(arguments)
    try:
        artifact = Artifact.read(options.model)
        spec = msgspec.structs.replace(artifact.spec, icc="srgb")
        pictures = read_pictures(options.pictures).values()
        if not pictures:
            print(f"bench: {options.pictures} holds no picture.", file=sys.stderr)
            return 2
        largest = max(pictures, key=lambda image: image.width * image.height)
        with Encoder(artifact, "fp32", "cpu") as encoder:
            rows = costs(largest, spec, encoder.encode, options.rounds)
    except TwinlensError as exc:
        print(f"bench: {exc.sentence}", file=sys.stderr)
        return 2
    print(machine.sentence())
    print(f"{'file':<22}{'without':>12}" + "".join(f"{name:>20}" for name in PROFILES))
    for row in rows:
        cells = "".join(f"{row['times'][name]:>18.2f} x" for name in PROFILES)
        print(f"{row['megapixels']:>5} MP, {row['format']:<12}{row['without_ms']:>10.1f} ms{cells}")
    if options.json is not None:
        given = sys.argv[1:] if arguments is None else arguments
        about = {"machine": machine.describe(), "command": shlex.join(["python", "-m", "bench.colours", *given])}
        options.json.write_text(json.dumps(about | {"rows": rows}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
