"""python -m bench fuzz: whatever a caller sends is read or refused; nothing crashes, hangs or answers with 5xx.

Sound files of every format are damaged at random, the same way for a seed, and put through the server's own decoder in
processes of their own; some of them through a server as well. So are files that are built to cost too much. Then come
requests: bodies, JSON, filters, paths, keys and headers at random, to a server with keys.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from threading import Lock
from time import perf_counter

from bench import machine
from bench.decoders.corpus import FORMATS, corpus
from bench.decoders.worker import Answer, Worker
from bench.fuzz import http, requests
from bench.fuzz.hostile import hostile
from bench.fuzz.mutate import mutants

TARGET = "bench.fuzz.target:look"
LONGEST = 2.0
"""Core-seconds that a file may take."""
LONGEST_IN_FULL = 4.0
"""Core-seconds that a picture may take that was built with as many pixels as a server accepts, and is read: a sound PNG
of 64 megapixels with alpha takes 2 to 2.5 until it has a thumbnail."""
MEMORY = 1000
"""Megabytes that a file may take, beyond what the process held before. A sound picture of 64 megapixels with alpha, as
many as a server accepts that is given no other bound, takes 800."""
HTTP_SEED = 1_000_003
"""Added to the seed for the files that are sent to a server: they are others."""


@dataclass
class Tally:
    """What came of many files."""

    read: int = 0
    refused: int = 0
    faults: list[str] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    largest: int = 0

    def add(self, title: str, answer: Answer, memory: int, *, built: bool = False) -> None:
        """Count a file, and write down what is wrong with its answer. `built`: to cost too much, not damaged."""
        self.read += answer.status == "read"
        self.refused += answer.status == "refused"
        self.slowest, self.largest = max(self.slowest, answer.seconds), max(self.largest, answer.growth)
        longest = LONGEST_IN_FULL if built and answer.status == "read" else LONGEST
        for kind, what in faults_of(answer, memory, longest):
            self.kinds[kind] += 1
            self.faults.append(f"{title}: {what}")


def faults_of(answer: Answer, memory: int, longest: float) -> Iterator[tuple[str, str]]:
    """Kind and sentence of each; none for a file that is read or refused as it should be."""
    if answer.status == "died":
        yield "crashes", f"the process ended {answer.text}"
    if answer.status == "hung" or answer.seconds > longest:
        yield "hangs", f"took {answer.seconds:.1f} s"
    if answer.status == "raised":
        yield "errors", answer.text
    if answer.wrote:
        yield "bare lines", f"wrote to standard error: {answer.wrote.splitlines()[0]}"
    if answer.growth > memory << 20:
        yield "memory", f"held {answer.growth >> 20:,} MB"


def run(
    files: Iterable[tuple[str, str, bytes]], jobs: int, memory: int, target: str = TARGET, *, built: bool = False
) -> dict[str, Tally]:
    """Format, title and bytes of each file, by several processes; a tally for each format."""
    tallies: dict[str, Tally] = {}
    lock, source = Lock(), iter(files)

    def work() -> None:
        with Worker(target) as worker:
            while True:
                with lock:
                    some = list(islice(source, 20))
                if not some:
                    return
                for form, title, data in some:
                    answer = worker.ask(data)
                    with lock:
                        tallies.setdefault(form, Tally()).add(title, answer, memory, built=built)

    with ThreadPoolExecutor(jobs) as pool:
        for done in [pool.submit(work) for _ in range(jobs)]:
            done.result()
    return tallies


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 everything was read or refused, 1 it was not, 2 refused (standard error has a sentence)."""
    asked = _parser().parse_args(list(sys.argv[1:] if arguments is None else arguments))
    formats = asked.formats.split(",")
    if unknown := set(formats) - set(FORMATS):
        print(f"bench: there is no format {', '.join(sorted(unknown))}, but {', '.join(FORMATS)}", file=sys.stderr)
        return 2
    began = perf_counter()
    cases = corpus(formats)
    there = {case.format for case in cases}
    print(machine.sentence())
    if absent := [form for form in formats if form not in there]:
        print(f"no file to damage of {', '.join(absent)}")
    damaged = ((one.format, one.title, one.data) for one in mutants(cases, asked.count, asked.seed))
    tallies = run(damaged, asked.jobs, asked.memory, asked.target)
    print(_table(tallies))
    built: dict[str, Tally] = {}
    if asked.hostile:
        costly = ((one.format, one.title, one.make()) for one in hostile() if one.format in formats)
        built = run(costly, 1, asked.memory, asked.target, built=True)
        print("\nbuilt to cost too much:\n" + _table(built))
    sent: http.Answers | None = None
    if asked.http:
        bodies = [(one.title, one.data) for one in mutants(cases, asked.http, asked.seed + HTTP_SEED)]
        if asked.hostile:
            bodies += [(one.title, one.make()) for one in hostile() if one.format in formats]
        try:
            sent = http.send(bodies, asked.model)
        except RuntimeError as error:
            print(f"bench: {error}", file=sys.stderr)
            return 2
        print(f"\nover HTTP, {sum(sent.statuses.values()):,} files: {sent.sentence}")
    asking: requests.Tally | None = None
    if asked.requests:
        try:
            asking = requests.run(asked.model, asked.requests, asked.seconds, asked.seed)
        except RuntimeError as error:
            print(f"bench: {error}", file=sys.stderr)
            return 2
        print(f"\nrequests to a server with keys:\n{asking.table}")
    both = [*tallies.values(), *built.values()]
    faults = [fault for tally in both for fault in tally.faults] + (sent.faults if sent else [])
    faults += asking.faults if asking else []
    for fault in faults[: asked.show]:
        print(f"  {fault}")
    kinds: Counter[str] = sum((tally.kinds for tally in both), Counter())
    total = sum(tally.read + tally.refused for tally in both) + kinds["crashes"] + kinds["errors"]
    summary = f"{total:,} files: {kinds['crashes']} crashes, {kinds['hangs']} hangs over {LONGEST:g} s, "
    summary += f"{kinds['errors']} other errors, {kinds['bare lines']} bare lines, {kinds['memory']} over "
    summary += f"{asked.memory} MB" + (f", {sent.failed} answers of 5xx" if sent else "")
    if asking is not None:
        summary += f"; {asking.total:,} requests: {len(asking.faults)} faults"
    print(f"\n{summary} ({perf_counter() - began:.0f} s, seed {asked.seed})")
    if asked.json is not None:
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        report = {"machine": machine.describe(), "seed": asked.seed, "count": asked.count, "summary": summary}
        report |= {"faults": faults, "http": dict(sent.statuses) if sent else None}
        report |= {"requests": {kind: dict(counts) for kind, counts in asking.statuses.items()} if asking else None}
        asked.json.write_text(json.dumps(report, indent=1) + "\n")
    return int(bool(faults))


def _table(tallies: dict[str, Tally]) -> str:
    lines = [f"{'':8}{'read':>8}{'refused':>9}{'faults':>8}{'slowest':>10}{'memory':>9}"]
    for form, tally in tallies.items():
        lines.append(
            f"{form:8}{tally.read:8,}{tally.refused:9,}{len(tally.faults):8}{tally.slowest:8.2f} s"
            f"{tally.largest >> 20:6,} MB"
        )
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m bench fuzz", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--count", type=int, default=20_000, help="damaged files (20000)")
    parser.add_argument("--seed", type=int, default=17, help="the same seed damages the same way (17)")
    parser.add_argument("--formats", default=",".join(FORMATS), help=f"only these ({','.join(FORMATS)})")
    parser.add_argument("--http", type=int, default=1000, help="other damaged files sent to a server; 0: none (1000)")
    parser.add_argument(
        "--requests", type=int, default=2000, help="requests of each kind to a server with keys; 0: none (2000)"
    )
    parser.add_argument("--seconds", type=float, default=120.0, help="at most so long for those requests (120)")
    parser.add_argument("--model", type=Path, default=Path("models/starter"), help="of that server (models/starter)")
    parser.add_argument("--jobs", type=int, default=2, help="processes that decode (2)")
    parser.add_argument("--memory", type=int, default=MEMORY, help=f"megabytes that one file may take ({MEMORY})")
    parser.add_argument("--no-hostile", dest="hostile", action="store_false", help="only damaged files")
    parser.add_argument("--show", type=int, default=40, help="faults that are printed (40)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write counts and all faults here")
    parser.add_argument("--target", default=TARGET, help=argparse.SUPPRESS)  # for tests: another function
    return parser


if __name__ == "__main__":
    sys.exit(main())
