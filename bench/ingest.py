"""python -m bench ingest: how quickly a catalogue gets in, beside the bare model and beside a loop over the API.

Four things, each in one run, whose sides take turns:

- `rate`: pictures a second of the encoder alone, on ready pixels in the batches that an ingest makes, and of `python -m
  server ingest` on a folder of pictures, which also reads, decodes, makes thumbnails, stores and writes;
- `loop`: a loop over POST /v1/products/{id}/media, one picture after the other, and an ingest beside the same server,
  with new pictures and with those that are there already;
- `memory`: the peak of an ingest's memory, for feeds of different sizes;
- `live`: how long searches take at a steady pace, alone and beside an ingest.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from statistics import median
from time import perf_counter, sleep
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench import machine, pictures
from bench.serving import Serving, serving
from server.artifact.artifact import Artifact
from server.errors import TwinlensError
from server.inference.cores import plain
from server.inference.encoder import Encoder
from server.inference.runner import Runner
from server.postgres.server import EmbeddedPostgres
from server.preprocessing import media

PARTS = ("rate", "loop", "memory", "live")

_DISTINCT = 64
_TIMEOUT = 120.0
_WARM_SEARCHES = 10


class Ingested(NamedTuple):
    """An ingest that has ended: its report, and the peak of its memory in bytes."""

    report: dict[str, Any]
    peak: int

    @property
    def rate(self) -> float:
        """Rows a second, without what the model took to open."""
        return float(self.report["rows"] / self.report["bringingSeconds"])


class Bench:
    """What all parts measure with."""

    def __init__(self, asked: argparse.Namespace, home: Path) -> None:
        self.asked = asked
        self.home = home
        self._pictures = iter(_endless())
        self.flags = ["--model", str(asked.model.resolve()), "--precision", asked.precision, "--device", asked.device]
        self.flags += ["--threads", str(asked.threads), "--batch", str(asked.batch)]

    def folder(self, name: str, count: int) -> Path:
        """A folder of so many pictures that no other folder has."""
        folder = self.home / name
        folder.mkdir()
        for number in range(count):
            (folder / f"{name}-{number:07}.jpg").write_bytes(next(self._pictures))
        return folder

    def ingest(self, source: Path, *flags: str) -> Ingested:
        """Bring it in. Raises RuntimeError where rows fail."""
        command = [sys.executable, "-m", "server", "ingest", str(source), "--json", *self.flags, *flags]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("TWINLENS_")}
        with (self.home / "ingest.log").open("w+") as log:
            with subprocess.Popen(  # noqa: S603 - our own command
                command, cwd=pictures.ROOT, env=environment, stdout=subprocess.PIPE, stderr=log, text=True
            ) as process:
                assert process.stdout is not None  # noqa: S101 - for the type checker
                said = process.stdout.read()
                _, status, used = os.wait4(process.pid, 0)
                process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                log.seek(0)
                raise RuntimeError(f"the ingest ended with {process.returncode}:\n{log.read()[-3000:]}")
        return Ingested(json.loads(said.splitlines()[-1]), used.ru_maxrss * 1024)


def _endless() -> Iterator[bytes]:
    """JPEGs of 640 x 480, no two of the same bytes: photographs with a number behind their end."""
    found = [one.data for one in pictures.photographs(_DISTINCT)]
    number = 0
    while True:
        yield found[number % len(found)] + number.to_bytes(6)
        number += 1


# --- beside the bare encoder -----------------------------------------------------------------------------------------


def run_bare(runners: Sequence[Runner], pixels: NDArray[np.uint8], batch: int, seconds: float) -> float:
    """Pictures a second of runners that encode batches of uint8[N, S, S, 3] side by side for so long."""
    batches = [list(pixels[start : start + batch]) for start in range(0, len(pixels) - batch + 1, batch)]
    started = perf_counter()

    def run(runner: Runner) -> int:
        done = 0
        while perf_counter() - started < seconds:
            runner(batches[(done // batch) % len(batches)])
            done += batch
        return done

    with ThreadPoolExecutor(len(runners)) as threads:
        done = sum(threads.map(run, runners))
    return done / (perf_counter() - started)


def measure_rate(bench: Bench) -> dict[str, Any]:
    """The encoder alone and an ingest in turn, each into a database of its own. Raises as ingests do."""
    asked = bench.asked
    artifact = Artifact.read(asked.model)
    sent = pictures.photographs(max(_DISTINCT, asked.batch))
    pixels = np.stack([media.read_pixels(one.data, artifact.spec, max_pixels=10**7) for one in sent])
    rounds = []
    with Encoder(artifact, asked.precision, asked.device, threads=asked.threads) as encoder:
        if encoder.device == "cpu":
            encoder.lay_out(plain(asked.threads, asked.batch))
        run_bare(encoder.runners, pixels, asked.batch, min(1.0, asked.seconds))  # warm
        for number in range(asked.rounds):
            folder = bench.folder(f"rate-{number}", asked.pictures // asked.rounds)
            with _database(bench.home / f"data-{number}") as url:
                flags = ("--data", str(bench.home / f"store-{number}"), "--database-url", url)
                # In alternating order, so that a machine that grows warm or busy slows both alike.
                if number % 2:
                    done = bench.ingest(folder, *flags)
                    bare = run_bare(encoder.runners, pixels, asked.batch, asked.seconds)
                else:
                    bare = run_bare(encoder.runners, pixels, asked.batch, asked.seconds)
                    done = bench.ingest(folder, *flags)
            ratio = done.rate / bare
            rounds.append({"bare": bare, "ingest": done.rate, "ratio": ratio})
            print(
                f"round {number + 1}: bare {bare:.1f}, ingest {done.rate:.1f} pictures/s: ratio {ratio:.3f}", flush=True
            )
    ratio = median(one["ratio"] for one in rounds)
    print(f"rate: an ingest of {asked.pictures:,} pictures has {ratio:.3f} of the bare encoder's pictures/s")
    return {"rounds": rounds, "ratio": ratio}


@contextmanager
def _database(folder: Path) -> Iterator[str]:
    """The URL of a PostgreSQL of its own."""
    postgres = EmbeddedPostgres(folder)
    with postgres:
        yield postgres.start()


# --- beside a loop over the API --------------------------------------------------------------------------------------


def loop(port: int, folder: Path) -> float:
    """Pictures a second of a plain loop: a product and its picture, one after the other. Raises RuntimeError."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT)
    files = sorted(folder.iterdir())
    started = perf_counter()
    for path in files:
        product, named = f"/v1/products/{path.stem}", json.dumps({"name": path.stem}).encode()
        _ask(connection, "PUT", product, named, "application/json")
        _ask(connection, "POST", f"{product}/media", pictures.form(path.read_bytes()), pictures.FORM_TYPE)
    seconds = perf_counter() - started
    connection.close()
    return len(files) / seconds


def _ask(connection: http.client.HTTPConnection, method: str, path: str, body: bytes, kind: str) -> None:
    connection.request(method, path, body, {"Content-Type": kind})
    answer = connection.getresponse()
    said = answer.read()
    if answer.status not in (200, 201):
        raise RuntimeError(f"{method} {path} was answered {answer.status}: {said[:300].decode()}")


def measure_loop(bench: Bench) -> dict[str, Any]:
    """New pictures and known ones, by a loop and by an ingest beside the same server. Raises as they do."""
    count = bench.asked.loop
    by_loop, by_ingest = bench.folder("by-loop", count), bench.folder("by-ingest", count)
    with _serving(bench) as server:
        data = ("--data", str(server.data))
        rates = {
            "loop, new": loop(server.port, by_loop),
            "ingest, new": bench.ingest(by_ingest, *data).rate,
            "loop, known": loop(server.port, by_loop),
            # Pictures that came by the API must be read; those that an ingest brought need not even that.
            "ingest, known to the API": bench.ingest(by_loop, *data).rate,
            "ingest, known": bench.ingest(by_ingest, *data).rate,
        }
    for name, rate in rates.items():
        print(f"loop: {name}: {rate:,.1f} pictures/s")
    ratios = {
        "new": rates["ingest, new"] / rates["loop, new"],
        "known to the API": rates["ingest, known to the API"] / rates["loop, known"],
        "known": rates["ingest, known"] / rates["loop, known"],
    }
    said = ", ".join(f"{name} {ratio:.1f}" for name, ratio in ratios.items())
    print(f"loop: times as many pictures/s as the loop: {said}", flush=True)
    return {"pictures": count, "rates": rates, "ratios": ratios}


@contextmanager
def _serving(bench: Bench) -> Iterator[Serving]:
    asked = bench.asked
    arguments = ("--threads", str(asked.threads), "--batch", str(asked.batch))
    with serving(asked.model, asked.precision, asked.device, arguments=arguments, demo=True) as server:
        yield server


# --- memory ----------------------------------------------------------------------------------------------------------


def measure_memory(bench: Bench) -> dict[str, Any]:
    """The peak of an ingest's memory for each number of rows; each row has a product and a picture of its own."""
    peaks: dict[str, int] = {}
    for rows in bench.asked.rows:
        with _database(bench.home / f"data-of-{rows}") as url:
            store = str(bench.home / f"store-of-{rows}")
            done = bench.ingest(bench.folder(f"rows-{rows}", rows), "--data", store, "--database-url", url)
        peaks[str(rows)] = done.peak
        print(f"memory: {rows:,} rows: at most {done.peak / 1e6:,.0f} MB, {done.rate:.1f} rows/s", flush=True)
    for (_, one), (name, other) in pairwise(peaks.items()):
        print(f"memory: {name} rows take {other / one:.2f} times what those before take")
    return {"peaks": peaks}


# --- live searches ---------------------------------------------------------------------------------------------------


def search(port: int, forms: Sequence[bytes], rate: float, until: threading.Event) -> list[float]:
    """Milliseconds of searches that leave evenly spaced, counted from when each should have left.

    Raises RuntimeError.
    """
    times: list[float] = []
    free: list[http.client.HTTPConnection] = []

    def one(form: bytes, due: float) -> None:
        try:
            connection = free.pop()
        except IndexError:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT)
        _ask(connection, "POST", "/v1/search?clientId=demo", form, pictures.FORM_TYPE)
        times.append((perf_counter() - due) * 1000)
        free.append(connection)

    with ThreadPoolExecutor(64) as threads:
        begun = perf_counter()
        asked: list[Future[None]] = []
        while not until.is_set():
            due = begun + len(asked) / rate
            sleep(max(0.0, due - perf_counter()))
            asked.append(threads.submit(one, forms[len(asked) % len(forms)], due))
        for future in asked:
            future.result()
    for connection in free:
        connection.close()
    return times


def measure_live(bench: Bench) -> dict[str, Any]:
    """The p95 of searches alone and beside an ingest, in turn. Raises as they do."""
    asked = bench.asked
    forms = [pictures.form(one) for one in pictures.distinct(256)]
    alone: list[float] = []
    beside: list[float] = []
    with _serving(bench) as server:
        for number in range(asked.rounds):
            folder = bench.folder(f"live-{number}", asked.live)
            for times, source in ((alone, None), (beside, folder))[:: -1 if number % 2 else 1]:
                with _until_done(bench, server, source) as done:
                    times += search(server.port, forms, asked.rate, done)[_WARM_SEARCHES:]
    p95 = {name: float(np.percentile(times, 95)) for name, times in (("alone", alone), ("beside", beside))}
    ratio = p95["beside"] / p95["alone"]
    print(
        f"live: {asked.rate:g} searches/s: p95 {p95['alone']:.0f} ms alone, {p95['beside']:.0f} ms beside an ingest: "
        f"ratio {ratio:.2f}",
        flush=True,
    )
    return {"p95": p95, "ratio": ratio, "searches": {"alone": len(alone), "beside": len(beside)}}


@contextmanager
def _until_done(bench: Bench, server: Serving, source: Path | None) -> Iterator[threading.Event]:
    """Set when the ingest has ended, or the seconds of a round, where there is no source. Raises what it raised."""
    done = threading.Event()

    def work() -> None:
        try:
            if source is None:
                sleep(bench.asked.seconds)
            else:
                # As an operator runs it: with the threads that it chooses beside a server.
                bench.ingest(source, "--data", str(server.data), "--threads", "auto")
        finally:
            done.set()

    with ThreadPoolExecutor(1) as thread:
        future = thread.submit(work)
        yield done
        future.result()


# --- the command -----------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write down; 2 where it could not be measured."""
    parser = argparse.ArgumentParser("python -m bench ingest", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--model", type=Path, default=Path("models/starter"), help="artifact folder (models/starter)")
    parser.add_argument("--precision", default="fp32", help="variant to run (fp32)")
    parser.add_argument("--device", default="cpu", choices=["auto", "cpu", "cuda"], help="for all (cpu)")
    few = max(1, len(os.sched_getaffinity(0)) // 2)
    parser.add_argument(
        "--threads", type=int, default=few, help=f"threads of the model, for all (half of the cores, as usual: {few})"
    )
    parser.add_argument("--batch", type=int, default=8, help="most pictures in a run of the model, for all (8)")
    parser.add_argument("--only", default=",".join(PARTS), metavar="PARTS", help=f"some of {', '.join(PARTS)}")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of rate and live (3)")
    parser.add_argument("--seconds", type=float, default=20.0, help="of the bare encoder, and of searches alone (20)")
    parser.add_argument("--pictures", type=int, default=20_000, help="for the rate, all rounds together (20000)")
    parser.add_argument("--loop", type=int, default=500, help="pictures for the loop, new ones and known ones (500)")
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 50_000], help="for the memory (1000 50000)")
    parser.add_argument("--live", type=int, default=1_000, help="pictures beside live searches, in each round (1000)")
    parser.add_argument("--rate", type=float, default=10.0, help="live searches a second (10)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything here as well")
    asked = parser.parse_args(arguments)
    parts = {"rate": measure_rate, "loop": measure_loop, "memory": measure_memory, "live": measure_live}
    wanted = asked.only.split(",")
    if unknown := set(wanted) - parts.keys():
        parser.error(f"there is no part {', '.join(sorted(unknown))}")
    print(machine.sentence())
    report: dict[str, Any] = {"machine": machine.describe(), "model": asked.model.name, "precision": asked.precision}
    # Readable by all: under root, PostgreSQL runs as another user, which must reach its data in here.
    with tempfile.TemporaryDirectory(prefix="twinlens-bench-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        bench = Bench(asked, Path(name))
        try:
            for part in wanted:
                report[part] = parts[part](bench)
        except (TwinlensError, RuntimeError) as error:
            print(f"bench: {error}", file=sys.stderr)
            return 2
    if asked.json is not None:
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        asked.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
