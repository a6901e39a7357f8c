"""python -m bench.throughput: how much of the bare model's speed is left over HTTP.

Two ways of embedding the same 640 x 480 JPEGs are measured in turn, never at the same time: the encoder alone, in this
process, on ready pixels in batches of 16; and a server of its own, over HTTP, by callers that each wait for their
answer before they ask again. The ratio of the two is what decoding, HTTP, queueing and batching cost.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from bench import machine, pictures
from bench.closed_loop import Http, request, run_http
from bench.serving import UNCACHED, serving
from server.artifact.artifact import Artifact, Vectors
from server.errors import TwinlensError
from server.inference.encoder import Encoder
from server.preprocessing import media

BATCH = 16
_LEAST_COSINE = 0.99999


@dataclass(frozen=True, slots=True)
class Bare:
    """One round of the encoder alone."""

    pictures_per_second: float


# --- the encoder alone -----------------------------------------------------------------------------------------------


def run_bare(encoder: Encoder, pixels: NDArray[np.uint8], seconds: float) -> Bare:
    """Encode batches of 16 of uint8[N, S, S, 3] for that long."""
    batches = [pixels[start : start + BATCH] for start in range(0, len(pixels), BATCH)]
    done, turn = 0, 0
    started = perf_counter()
    while (elapsed := perf_counter() - started) < seconds:
        batch = batches[turn % len(batches)]
        encoder.encode(batch)
        done, turn = done + len(batch), turn + 1
    return Bare(done / elapsed)


# --- over HTTP -------------------------------------------------------------------------------------------------------


def check(answers: dict[int, bytes], expected: Vectors) -> int:
    """How many vectors are bit for bit the bare encoder's. Raises RuntimeError for one of another picture."""
    equal = 0
    for number, body in answers.items():
        vector = np.asarray(json.loads(body)["embedding"], dtype=np.float32)
        cosine = float(vector.astype(np.float64) @ expected[number].astype(np.float64))
        if cosine < _LEAST_COSINE:
            raise RuntimeError(f"picture {number} came back with cosine {cosine:.6f} to its own vector")
        equal += bool(np.array_equal(vector, expected[number]))
    return equal


# --- the command -----------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write down; the exit code is 1 when the ratio is below `--least`."""
    parser = argparse.ArgumentParser("python -m bench.throughput", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--model", type=Path, default=Path("models/starter"), help="artifact folder (models/starter)")
    parser.add_argument("--precision", default="fp32", help="variant to run (fp32)")
    parser.add_argument("--device", default="cpu", choices=["auto", "cpu", "cuda"], help="for both (cpu)")
    parser.add_argument("--concurrency", type=int, default=16, help="callers at once (16)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each way (5)")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a round (10)")
    parser.add_argument("--pictures", type=int, default=64, help="distinct pictures (64)")
    parser.add_argument("--least", type=float, help="fail when the ratio is below this")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything here as well")
    asked = parser.parse_args(arguments)
    try:
        report, ratio = measure(asked)
    except (TwinlensError, RuntimeError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    if asked.json is not None:
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        asked.json.write_text(json.dumps(report, indent=2) + "\n")
    return 1 if asked.least is not None and ratio < asked.least else 0


def measure(asked: argparse.Namespace) -> tuple[dict[str, object], float]:
    """The report, and the ratio in it. Raises TwinlensError's kinds, RuntimeError."""
    sent = [one.data for one in pictures.photographs(asked.pictures)]
    artifact = Artifact.read(asked.model)
    pixels = np.stack([media.read_pixels(data, artifact.spec, max_pixels=10**7) for data in sent])
    rounds: list[tuple[Bare, Http]] = []
    equal = 0
    with (
        Encoder(artifact, asked.precision, asked.device) as encoder,
        serving(asked.model, asked.precision, asked.device, arguments=UNCACHED) as server,
    ):
        requests = [
            request(server.port, "/embed-image", pictures.form(data), headers={"Content-Type": pictures.FORM_TYPE})
            for data in sent
        ]
        print(f"{machine.sentence()}")
        print(f"{encoder.model} ({asked.precision}) on {encoder.device}, {len(sent)} JPEGs of 640 x 480,", end=" ")
        print(f"batches of {BATCH} against {asked.concurrency} callers, {asked.seconds:g} s a round")
        expected = np.concatenate(
            [encoder.encode(pixels[start : start + BATCH]) for start in range(0, len(pixels), BATCH)]
        )
        asyncio.run(
            run_http(server.port, requests, 1.0, asked.concurrency)
        )  # both are warm when the first round begins
        for number in range(asked.rounds):
            # In alternating order, so that a machine that grows warm or busy slows both alike.
            if number % 2:
                http, answers = asyncio.run(run_http(server.port, requests, asked.seconds, asked.concurrency))
                bare = run_bare(encoder, pixels, asked.seconds)
            else:
                bare = run_bare(encoder, pixels, asked.seconds)
                http, answers = asyncio.run(run_http(server.port, requests, asked.seconds, asked.concurrency))
            equal = check(answers, expected)
            rounds.append((bare, http))
            print(_line(number + 1, bare, http), flush=True)
    bare_pace = median(bare.pictures_per_second for bare, _ in rounds)
    http_pace = median(http.pictures_per_second for _, http in rounds)
    ratio = http_pace / bare_pace
    bare_best = max(bare.pictures_per_second for bare, _ in rounds)
    http_best = max(http.pictures_per_second for _, http in rounds)
    print(f"median: bare {bare_pace:.1f}, HTTP {http_pace:.1f} pictures/s: ratio {ratio:.3f}")
    # Whatever else runs on the machine only slows a round down: where the two differ much, it was not quiet.
    print(f"best:   bare {bare_best:.1f}, HTTP {http_best:.1f} pictures/s: ratio {http_best / bare_best:.3f}")
    print(f"vectors over HTTP equal the bare encoder's bit for bit: {equal} of {len(answers)} pictures asked")
    report = {
        "machine": machine.describe(),
        "model": artifact.manifest.model,
        "precision": asked.precision,
        "device": encoder.device,
        "concurrency": asked.concurrency,
        "batch": BATCH,
        "seconds": asked.seconds,
        "pictures": len(sent),
        "rounds": [{"bare": asdict(bare), "http": asdict(http)} for bare, http in rounds],
        "bare_pictures_per_second": bare_pace,
        "http_pictures_per_second": http_pace,
        "ratio": ratio,
        "ratio_of_best": http_best / bare_best,
        "vectors_bit_identical": f"{equal} of {len(answers)}",
    }
    return report, ratio


def _line(number: int, bare: Bare, http: Http) -> str:
    ratio = http.pictures_per_second / bare.pictures_per_second
    return (
        f"round {number}: bare {bare.pictures_per_second:.1f}, HTTP {http.pictures_per_second:.1f} pictures/s "
        f"(p50 {http.p50:.0f}, p95 {http.p95:.0f}, p99 {http.p99:.0f} ms; "
        f"load generator {http.generator_cpu:.0%} of the cores); ratio {ratio:.3f}"
    )


if __name__ == "__main__":
    sys.exit(main())
