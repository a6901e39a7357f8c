"""What a tower loses and gains in fp16 and int8, one way of quantising beside the other.

$ python -m bench.precisions models/starter/image.fp32.onnx --pictures ~/photographs
$ python -m bench.precisions text.fp32.onnx --texts sentences.txt --tokenizer tokenizer.json

Calibrates on the gate's pictures (or on every second text), compares on pictures that calibration has not seen, and
times every variant in turns with float32 in one process, so that what else the machine does is the same for all.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from tokenizers import Tokenizer

from bench import machine
from export.graphs.int8 import to_int8_image, to_int8_text
from export.graphs.precision import to_fp16
from export.graphs.scales import Recipe
from export.proof.drift import compare
from export.proof.parity import PICTURES
from server.artifact.artifact import PreprocessingSpec
from server.errors import TwinlensError
from server.preprocessing.media import decode, to_pixels

BATCH = 8
_MAX_PIXELS = 100_000_000

PLAIN = Recipe(rows=False, smoothing=(0.0,), bias_correction=False, weights="reduced", tables=False, target=0)
VARIANTS: dict[str, Recipe] = {
    "per channel, reduce_range, MinMax": PLAIN,
    "the same, percentile 99.99": Recipe(**{**asdict(PLAIN), "limits": "percentile"}),
    "the same, entropy": Recipe(**{**asdict(PLAIN), "limits": "entropy"}),
    "the same, 8-bit weights (VNNI only)": Recipe(**{**asdict(PLAIN), "weights": "full"}),
    "the same, weights by pairs": Recipe(**{**asdict(PLAIN), "weights": "pairs"}),
    "MinMax, pairs, smoothed": Recipe(**{**asdict(PLAIN), "weights": "pairs", "smoothing": Recipe().smoothing}),
    "MinMax, pairs, by row": Recipe(**{**asdict(PLAIN), "weights": "pairs", "rows": True}),
    "pairs, by row, smoothed": Recipe(tables=False, target=0),
    "the same, bias corrected": Recipe(bias_correction=True, tables=False, target=0),
    "pairs, by row, smoothed, tables in int8": Recipe(target=0),
    "the same, worst layers left (the default)": Recipe(),
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One variant's figures."""

    variant: str
    min_cosine: float
    mean_cosine: float
    min_centred_cosine: float
    mean_centred_cosine: float
    speed_alone: float
    """Times float32's, one at a time; `speed_together` in batches of 8."""
    speed_together: float
    megabytes: float
    seconds: float
    """To make it."""


Feeds = list[dict[str, NDArray[Any]]]


def measure(
    model: onnx.ModelProto,
    make: dict[str, Callable[[], onnx.ModelProto]],
    feeds: Feeds,
    alone: dict[str, NDArray[Any]],
    together: dict[str, NDArray[Any]],
    *,
    rounds: int = 10,
) -> list[Row]:
    """Make every variant and compare it with float32 on `feeds`; the times are of `alone` and `together`."""
    plain = _session(model)
    references = _vectors(plain, feeds)
    rows = []
    for variant, made in make.items():
        start = time.perf_counter()
        other = made()
        seconds = time.perf_counter() - start
        session = _session(other)
        compared = compare(references, _vectors(session, feeds))
        rows.append(
            Row(
                variant=variant,
                min_cosine=round(float(compared.cosine.min()), 5),
                mean_cosine=round(float(compared.cosine.mean()), 5),
                min_centred_cosine=round(float(compared.centred.min()), 5),
                mean_centred_cosine=round(float(compared.centred.mean()), 5),
                speed_alone=_ratio(plain, session, alone, rounds),
                speed_together=_ratio(plain, session, together, rounds),
                megabytes=round(other.ByteSize() / 1e6, 1),
                seconds=round(seconds, 1),
            )
        )
        print(_line(rows[-1]), flush=True)
    return rows


def _line(row: Row) -> str:
    return (
        f"{row.variant:<44} {row.min_cosine:.5f} {row.mean_cosine:.5f} | "
        f"{row.min_centred_cosine:.5f} {row.mean_centred_cosine:.5f} | "
        f"x{row.speed_alone:.2f} x{row.speed_together:.2f} | {row.megabytes:.1f} MB | {row.seconds:.0f} s"
    )


def _session(model: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _vectors(session: ort.InferenceSession, feeds: Feeds) -> NDArray[np.float32]:
    return np.concatenate([session.run(["embedding"], feed)[0] for feed in feeds])


def _ratio(one: ort.InferenceSession, other: ort.InferenceSession, feed: dict[str, NDArray[Any]], rounds: int) -> float:
    """How many times as fast `other` is: the median of the ratios of neighbouring runs."""
    ratios = []
    for at in range(rounds + 1):
        times = []
        for session in (one, other):
            start = time.perf_counter()
            session.run(["embedding"], feed)
            times.append(time.perf_counter() - start)
        if at:  # the first warms up
            ratios.append(times[0] / times[1])
    return round(float(np.median(ratios)), 2)


def read_pixels(folders: Sequence[Path], size: int) -> NDArray[np.uint8]:
    """Every picture below the folders, as CLIP's preprocessing makes pixels: uint8[N, S, S, 3]."""
    spec = PreprocessingSpec(
        size=size, resize="shortest-edge", edge=size, resample="bicubic", rescale=1.0, mean=(0.0,) * 3, std=(1.0,) * 3
    )
    paths = sorted(path for folder in folders for path in folder.rglob("*"))
    return np.stack(
        [
            to_pixels(decode(path.read_bytes(), max_pixels=_MAX_PIXELS), spec)
            for path in paths
            if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp")
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Compare precisions and ways of quantising.")
    parser.add_argument("graph", type=Path, help="an image or text tower, as the export writes it")
    parser.add_argument("--pictures", type=Path, nargs="+", help="folders to compare on")
    parser.add_argument("--calibration", type=Path, nargs="+", default=[PICTURES], help="folders to calibrate on")
    parser.add_argument("--texts", type=Path, help="a file with a text on each line")
    parser.add_argument("--tokenizer", type=Path, help="the text tower's tokenizer.json")
    parser.add_argument("--only", nargs="+", metavar="WORDS", help="variants whose names hold any of these")
    parser.add_argument("--write", type=Path, metavar="FILE", help="append the figures to a JSON file")
    options = parser.parse_args(arguments)
    model = onnx.load(options.graph)
    entry = model.graph.input[0]
    make: dict[str, Callable[[], onnx.ModelProto]]
    feeds: Feeds
    alone: dict[str, NDArray[Any]]
    together: dict[str, NDArray[Any]]
    if entry.name == "pixels":
        if options.pictures is None:
            parser.error("an image tower is compared on --pictures")
        size = entry.type.tensor_type.shape.dim[1].dim_value
        seen, unseen = read_pixels(options.calibration, size), read_pixels(options.pictures, size)
        feeds = [{"pixels": unseen[at : at + BATCH]} for at in range(0, len(unseen), BATCH)]
        alone, together = {"pixels": unseen[:1]}, {"pixels": unseen[:BATCH]}
        make = {name: partial(to_int8_image, model, seen, recipe=recipe) for name, recipe in VARIANTS.items()}
    else:
        if options.texts is None or options.tokenizer is None:
            parser.error("a text tower is compared on --texts with its --tokenizer")
        tokenizer = Tokenizer.from_file(str(options.tokenizer))
        lines = [line for line in options.texts.read_text("utf-8").splitlines() if line]
        tokens = [np.array(tokenizer.encode(line).ids, np.int64) for line in lines]
        feeds = [{"tokens": one[None]} for one in tokens[1::2]]
        middle = sorted(tokens, key=len)[len(tokens) // 2]
        alone, together = {"tokens": middle[None]}, {"tokens": np.repeat(middle[None], BATCH, axis=0)}
        make = {name: partial(to_int8_text, model, tokens[::2], recipe=recipe) for name, recipe in VARIANTS.items()}
    make = {"fp16 (on the CPU)": lambda: to_fp16(model), **make}
    if options.only:
        make = {name: one for name, one in make.items() if any(word in name for word in options.only)}
    print(f"{options.graph.name}; {machine.sentence()}")
    print(f"{'':<44} cosine min mean | centred min mean | speed alone, x{BATCH} | size | made in")
    try:
        rows = measure(model, make, feeds, alone, together)
    except TwinlensError as exc:
        print(exc, file=sys.stderr)
        return 1
    if options.write is not None:
        before = json.loads(options.write.read_text()) if options.write.exists() else []
        new = {"graph": options.graph.name, "machine": machine.describe(), "rows": [asdict(row) for row in rows]}
        options.write.write_text(json.dumps([*before, new], indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
