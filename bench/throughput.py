"""python -m bench.throughput: how much of the bare model's speed is left over HTTP.

Two ways of embedding the same 640 x 480 JPEGs are measured in turn, never at the same time: the encoder alone, in this
process, on ready pixels in batches of 16; and a server of its own, over HTTP, by callers that each wait for their
answer before they ask again. The ratio of the two is what decoding, HTTP, queueing and batching cost.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from time import perf_counter, process_time, sleep
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
from numpy.typing import NDArray

from bench import machine, pictures
from server import media
from server.artifact import Artifact, Vectors
from server.encoder import Encoder
from server.errors import TwinlensError

BATCH = 16
_START_LIMIT = 240.0
_STOP_LIMIT = 60.0
_SETTLE = 1.0
_LEAST_COSINE = 0.99999


@dataclass(frozen=True, slots=True)
class Bare:
    """One round of the encoder alone."""

    pictures_per_second: float


@dataclass(frozen=True, slots=True)
class Http:
    """One round over HTTP; latencies in milliseconds."""

    pictures_per_second: float
    p50: float
    p95: float
    p99: float
    generator_cpu: float
    """Share of all cores that this process, the load generator, used."""


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


async def run_http(port: int, bodies: Sequence[bytes], seconds: float, callers: int) -> tuple[Http, dict[int, bytes]]:
    """Closed loop on POST /embed-image: so many callers, each with a connection of its own.

    What happens in `seconds` is counted, after a second of settling. Also gives the first answer to each picture, for
    `check`.
    """
    requests = [_request(port, body) for body in bodies]
    answers: dict[int, bytes] = {}
    arrivals: list[tuple[float, float]] = []
    started = perf_counter()
    begin, end = started + _SETTLE, started + _SETTLE + seconds

    async def call(first: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        turn = first
        try:
            while (asked := perf_counter()) < end:
                number = turn % len(requests)
                writer.write(requests[number])
                body = await _answer(reader)
                arrivals.append((asked, perf_counter()))
                answers.setdefault(number, body)
                turn += callers
        finally:
            writer.close()

    try:
        async with asyncio.TaskGroup() as group:
            for first in range(callers):
                group.create_task(call(first))
            await asyncio.sleep(max(0.0, begin - perf_counter()))
            cpu = process_time()
            await asyncio.sleep(max(0.0, end - perf_counter()))
            cpu = process_time() - cpu
    except ExceptionGroup as exc:
        raise RuntimeError(f"a request failed: {exc.exceptions[0] or type(exc.exceptions[0]).__name__}") from exc
    waits = sorted((came - asked) * 1000 for asked, came in arrivals if begin <= came < end)
    if not waits:
        raise RuntimeError(f"no answer came within {seconds} s")
    p50, p95, p99 = (float(np.percentile(waits, share)) for share in (50, 95, 99))
    # Answers come in bursts, a batch at a time; counting those that happen to fall inside would be off by a batch. So
    # each request counts for as much of it as lay inside.
    inside = sum(max(0.0, min(came, end) - max(asked, begin)) / (came - asked) for asked, came in arrivals)
    return Http(inside / seconds, p50, p95, p99, cpu / seconds / len(os.sched_getaffinity(0))), answers


def _request(port: int, body: bytes) -> bytes:
    head = (
        f"POST /embed-image HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: {pictures.FORM_TYPE}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def _answer(reader: asyncio.StreamReader) -> bytes:
    """The body of one answer. Raises RuntimeError when it is not a 200."""
    status, *lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
    body = await reader.readexactly(int(headers[b"content-length"]))
    if status.split()[1] != b"200":
        raise RuntimeError(f"the server answered {status.decode()}: {body[:500].decode(errors='replace')}")
    return body


def check(answers: dict[int, bytes], expected: Vectors) -> int:
    """How many pictures' vectors are bit for bit the bare encoder's. Raises RuntimeError for one that is another's."""
    equal = 0
    for number, body in answers.items():
        vector = np.asarray(json.loads(body)["embedding"], dtype=np.float32)
        cosine = float(vector.astype(np.float64) @ expected[number].astype(np.float64))
        if cosine < _LEAST_COSINE:
            raise RuntimeError(f"picture {number} came back with cosine {cosine:.6f} to its own vector")
        equal += bool(np.array_equal(vector, expected[number]))
    return equal


# --- the server ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def serving(model: Path, precision: str, device: str) -> Iterator[int]:
    """A server with an empty catalogue on a free loopback port, as long as the block; gives the port."""
    # Readable by all: under root, PostgreSQL runs as another user, which must reach its data in here.
    with tempfile.TemporaryDirectory(prefix="twinlens-bench-", ignore_cleanup_errors=True) as name:
        home = Path(name)
        home.chmod(0o755)
        port = _free_port()
        arguments = ["--port", str(port), "--data", str(home / "data"), "--model", str(model.resolve())]
        arguments += ["--precision", precision, "--device", device]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("TWINLENS_")}
        with (home / "log").open("wb") as log:
            server = subprocess.Popen(  # noqa: S603 - our own server
                [sys.executable, "-m", "server", *arguments], cwd=pictures.ROOT, env=environment, stderr=log
            )
        try:
            _await_ready(server, port, home / "log")
            yield port
        finally:
            server.send_signal(signal.SIGTERM)
            try:
                server.wait(_STOP_LIMIT)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
            _forget_cluster(home / "data")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _await_ready(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = perf_counter() + _START_LIMIT
    while perf_counter() < deadline and server.poll() is None:
        with contextlib.suppress(URLError, OSError), urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=5):
            return
        sleep(0.1)
    raise RuntimeError(f"the server did not become ready:\n{log.read_text(errors='replace')[-3000:]}")


def _forget_cluster(data: Path) -> None:
    """Under root the database of a folder may lie outside it; the note inside says where."""
    with contextlib.suppress(FileNotFoundError, IndexError):
        cluster = Path((data / "postgres.location").read_text().splitlines()[0])
        shutil.rmtree(cluster, ignore_errors=True)
        cluster.with_name(cluster.name + ".running").unlink(missing_ok=True)


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
    bodies = [pictures.form(data) for data in sent]
    rounds: list[tuple[Bare, Http]] = []
    equal = 0
    with (
        Encoder(artifact, asked.precision, asked.device) as encoder,
        serving(asked.model, asked.precision, asked.device) as port,
    ):
        print(f"{machine.sentence()}")
        print(f"{encoder.model} ({asked.precision}) on {encoder.device}, {len(sent)} JPEGs of 640 x 480,", end=" ")
        print(f"batches of {BATCH} against {asked.concurrency} callers, {asked.seconds:g} s a round")
        expected = np.concatenate(
            [encoder.encode(pixels[start : start + BATCH]) for start in range(0, len(pixels), BATCH)]
        )
        asyncio.run(run_http(port, bodies, 1.0, asked.concurrency))  # both are warm when the first round begins
        for number in range(asked.rounds):
            # Turn and turn about, so that a machine that grows warm or busy wrongs both alike.
            if number % 2:
                http, answers = asyncio.run(run_http(port, bodies, asked.seconds, asked.concurrency))
                bare = run_bare(encoder, pixels, asked.seconds)
            else:
                bare = run_bare(encoder, pixels, asked.seconds)
                http, answers = asyncio.run(run_http(port, bodies, asked.seconds, asked.concurrency))
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
