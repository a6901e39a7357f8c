"""The command: make the workload, fill the databases, measure, and write down what came of it."""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from bench import machine
from bench.pictures import ROOT
from bench.search import costs, crossover, document, features, fill, row_security
from bench.search.libraries import LIBRARIES, Peer, start_library
from bench.search.measure import Record, measure
from bench.search.systems import System, database_systems
from bench.search.workload import Workload
from server.errors import TwinlensError
from server.postgres.server import LOCKS, EmbeddedPostgres

SYSTEMS = ("older", "older-hnsw", "hnsw-filtered", "twinlens", "faiss", "milvus-lite")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; the exit code is 0, or 2 with a sentence on standard error."""
    parser = _parser()
    given = list(sys.argv[1:] if arguments is None else arguments)
    asked = parser.parse_args(given)
    # SIGTERM unwinds as an exception does: whatever was started is stopped on the way.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        command = f"python -m bench search {shlex.join(given)}".strip()
        if asked.crossover or asked.costs:
            with _server(asked) as (url, folder):
                print((crossover if asked.crossover else costs).run(url, folder, asked.rows, asked.seed, asked.seconds))
            return 0
        if asked.row_security:
            with _server(asked) as (url, folder):
                workload = Workload(asked.rows, asked.dimensions, asked.seed, folder)
                workload.make()
                print(row_security.run(url, workload, asked.queries, asked.connections, asked.seconds))
            return 0
        if asked.features:
            with _server(asked) as (url, folder):
                workload = Workload(asked.rows, asked.dimensions, asked.seed, folder)
                workload.make()
                print(features.run(url, workload, asked.queries, asked.connections, asked.seconds, asked.classes))
            return 0
        records, run = _read(asked.read) if asked.read else _measured(asked, command)
        if asked.json is not None:
            asked.json.parent.mkdir(parents=True, exist_ok=True)
            asked.json.write_text("[\n" + ",\n".join(json.dumps(record) for record in records) + "\n]\n")
            _beside(asked.json).write_text(json.dumps(run, indent=1) + "\n")
        print(document.text(records, run))
        if asked.write_docs:
            (ROOT / "docs" / "search-benchmarks.md").write_text(document.page(records, run, asked.read or asked.json))
    except (TwinlensError, RuntimeError, OSError, ValueError, psycopg.Error) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m bench search",
        description="Recall, short answers, latency and throughput of searching, for clients of every size, beside "
        "the older system and others.",
    )
    parser.add_argument("--rows", type=_count, default=100_000, help="vectors of all clients together (100000)")
    parser.add_argument("--dimensions", type=_count, default=512, help="of a vector (512)")
    parser.add_argument("--seed", type=int, default=5, help="of everything that is drawn (5)")
    parser.add_argument("--connections", type=_numbers, default=[1, 8, 32], metavar="N,N", help="(1,8,32)")
    parser.add_argument("--seconds", type=_seconds, default=3.0, help="of each cell: a system in a class (3)")
    parser.add_argument("--rounds", type=_count, default=3, help="into which these seconds are divided (3)")
    parser.add_argument("--queries", type=_count, default=64, help="distinct ones for each class (64)")
    parser.add_argument("--only", type=_names, default=list(SYSTEMS), metavar="NAMES", help=f"of {', '.join(SYSTEMS)}")
    parser.add_argument("--classes", type=_numbers, metavar="N,N", help="only clients of these sizes")
    parser.add_argument(
        "--data", type=Path, help="folder of the database and the vectors, kept for the next run (a temporary one)"
    )
    parser.add_argument(
        "--database-url",
        help="a PostgreSQL with pgvector, in place of an embedded one; databases named twinlens_bench_... in it are "
        "made and replaced",
    )
    parser.add_argument("--cache", type=Path, default=ROOT / ".bench", help="environments of the libraries (.bench)")
    parser.add_argument("--install-peers", action="store_true", help="install the libraries that are not there")
    parser.add_argument("--crossover", action="store_true", help="measure instead where an index begins to be quicker")
    parser.add_argument(
        "--row-security", action="store_true", help="measure instead what row-level security costs: with and without"
    )
    parser.add_argument(
        "--features",
        action="store_true",
        help="measure instead what grouping, pages, filters and the like cost, beside the plain search",
    )
    parser.add_argument("--costs", action="store_true", help="measure instead what an index costs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the records here, and the run beside them")
    parser.add_argument("--read", type=Path, metavar="FILE", help="measure nothing: take what --json wrote")
    parser.add_argument("--write-docs", action="store_true", help="write docs/search-benchmarks.md")
    return parser


def _count(given: str) -> int:
    number = int(given)
    if number < 1:
        raise argparse.ArgumentTypeError("it must be 1 or more")
    return number


def _seconds(given: str) -> float:
    seconds = float(given)
    if not 0 < seconds < 3600:
        raise argparse.ArgumentTypeError("it must be above 0")
    return seconds


def _numbers(given: str) -> list[int]:
    return [_count(one) for one in given.split(",")]


def _names(given: str) -> list[str]:
    names = [one.strip() for one in given.split(",") if one.strip()]
    for name in names:
        if name not in SYSTEMS:
            raise argparse.ArgumentTypeError(f"there is no {name}; there are {', '.join(SYSTEMS)}")
    return names


def _beside(path: Path) -> Path:
    """Where the machine, the command and the databases' sizes are kept."""
    return path.with_name(f"{path.stem}.run.json")


def _read(path: Path) -> tuple[list[Record], dict[str, Any]]:
    return json.loads(path.read_bytes()), json.loads(_beside(path).read_bytes())


@contextlib.contextmanager
def _server(asked: argparse.Namespace) -> Iterator[tuple[str, Path]]:
    """The URL of a PostgreSQL server, and a folder for vectors. What is temporary is gone afterwards."""
    with contextlib.ExitStack() as stack:
        folder = asked.data
        if folder is None:
            folder = Path(tempfile.mkdtemp(prefix="twinlens-bench-"))
            folder.chmod(0o755)  # under root, PostgreSQL's own user must reach it
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        if asked.database_url:
            fill.check(asked.database_url)
            yield asked.database_url, folder
            return
        postgres = EmbeddedPostgres(folder)
        if asked.data is None:
            for lock in LOCKS:
                stack.callback(postgres.cluster.with_name(postgres.cluster.name + lock).unlink, missing_ok=True)
            stack.callback(lambda: shutil.rmtree(postgres.cluster, ignore_errors=True))
        stack.enter_context(postgres)
        yield postgres.url, folder


def _measured(asked: argparse.Namespace, command: str) -> tuple[list[Record], dict[str, Any]]:
    started = datetime.now(UTC).isoformat(timespec="seconds")
    print(machine.sentence(), file=sys.stderr, flush=True)
    with _server(asked) as (url, folder), contextlib.ExitStack() as stack:
        workload = Workload(asked.rows, asked.dimensions, asked.seed, folder)
        workload.make()
        wanted = {
            "older": fill.LEGACY,
            "older-hnsw": fill.FILTERED,
            "hnsw-filtered": fill.FILTERED,
            "twinlens": fill.OURS,
        }
        names = dict.fromkeys(wanted[name] for name in asked.only if name in wanted)
        filled = [fill.fill(url, workload, name) for name in names]
        sizes = [size for size in workload.classes if asked.classes is None or size in asked.classes]
        queries = {size: workload.queries(size, asked.queries) for size in sizes}
        urls = {one.name: one.url for one in filled}
        systems: list[System] = [s for s in database_systems(urls, asked.dimensions) if s.name in asked.only]
        left_out = {}
        for library in LIBRARIES:
            if library.name in asked.only:
                peer = start_library(stack, library, workload, queries, asked.cache, install=asked.install_peers)
                if isinstance(peer, Peer):
                    systems.append(peer)
                else:
                    left_out[library.name] = peer
                    print(f"{library.title}: {peer}", file=sys.stderr, flush=True)
        records = measure(systems, workload, queries, asked.connections, seconds=asked.seconds, rounds=asked.rounds)
        with psycopg.connect(url) as connection:
            settings = connection.execute(fill.QUERIES["settings"]).fetchall()
        run = {
            "machine": machine.describe(),
            "command": command,
            "started": started,
            "rows": asked.rows,
            "dimensions": asked.dimensions,
            "seed": asked.seed,
            "seconds": asked.seconds,
            "rounds": asked.rounds,
            "clients": {str(size): workload.sizes.count(size) for size in sorted(set(workload.sizes))},
            "postgres": dict(settings),
            "databases": [one.as_json() for one in filled],
            "systems": [{"name": s.name, "title": s.title, "about": s.about} for s in systems],
            "leftOut": left_out,
        }
    return records, run
