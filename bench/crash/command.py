"""python -m bench crash: random operations of three clients while parts die at random; nothing acknowledged is lost.

A server of its own is written to and searched by three clients with the same ids and the same pictures, beside a model
of what it must hold. Meanwhile workers, the parent, PostgreSQL's processes die, PostgreSQL pauses, the disk fills, the
pool is exhausted, and the catalogue is embedded with another model. Each answer must be one that the model allows, and
in the end all that was acknowledged must be there, and nothing else. The same seed gives the same operations and the
same faults at the same times; how they meet depends on the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import psycopg

from bench import machine
from bench.crash import disk, document
from bench.crash.disk import Disk
from bench.crash.faults import KINDS
from bench.crash.report import Report
from bench.crash.run import Plan, run
from server.errors import TwinlensError

_SET_DEATH_SIGNAL = 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print and write down. The exit code: 0 every promise was kept, 1 one was not, 2 it could not be tried."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = _parser()
    asked = parser.parse_args(given)
    if asked.read is not None:
        document.write("crash", document.record(json.loads(asked.read.read_text())))
        return 0
    kinds = asked.only.split(",")
    if unknown := set(kinds) - set(KINDS):
        parser.error(f"there is no fault {', '.join(sorted(unknown))}; there are {', '.join(KINDS)}")
    if not asked.mounted and "disk" in kinds and (before := disk.namespace()) is not None:
        return disk.within(before, given)
    if asked.mounted:
        ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, int(signal.SIGINT), 0, 0, 0)  # end with the one that waits
    if not asked.mounted and "disk" in kinds:
        kinds.remove("disk")
        asked.left_out = "the disk full, since this user may not mount a disk of its own"
    plan = Plan(asked.seed, asked.minutes, tuple(kinds), asked.workers, asked.lanes, asked.deadline, asked.spaces)
    print(machine.sentence())
    print(f"{asked.minutes:g} minutes, seed {asked.seed}, {asked.workers} workers", flush=True)
    try:
        report = _run(plan, asked)
    except (TwinlensError, RuntimeError, psycopg.Error) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    for fault in report.tally.faults[: asked.show]:
        print(f"  {fault.at:8.1f} s  {fault.kind}: {fault.text}")
    print(report.text)
    if asked.json is not None:
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        asked.json.write_text(json.dumps(report.json, indent=1) + "\n")
    return 0 if report.kept else 1


def _run(plan: Plan, asked: argparse.Namespace) -> Report:
    # Readable by all: under root, PostgreSQL runs as another user, which must reach its data in here.
    with tempfile.TemporaryDirectory(prefix="twinlens-crash-", ignore_cleanup_errors=True) as name:
        home = Path(name)
        home.chmod(0o755)
        small = Disk(home / "disk") if asked.mounted else None
        try:
            report = asyncio.run(run(plan, home, small, asked.model.resolve(), asked.journal))
        finally:
            if asked.log is not None:
                with contextlib.suppress(OSError):
                    shutil.copyfile(home / "server.log", asked.log)
            if small is not None:
                small.close()
        report.left_out = asked.left_out
        return report


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m bench crash", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="how long parts are broken (10)")
    parser.add_argument("--seed", type=int, default=1, help="the same seed draws the same operations and faults (1)")
    parser.add_argument("--model", type=Path, default=Path("models/starter"), help="artifact folder (models/starter)")
    parser.add_argument("--workers", type=int, default=2, help="of the server (2)")
    parser.add_argument("--lanes", type=int, default=2, help="callers of each of the three clients (2)")
    parser.add_argument("--deadline", type=float, default=5.0, help="of the server, in seconds (5)")
    parser.add_argument("--only", default=",".join(KINDS), help=f"kinds of fault ({','.join(KINDS)})")
    parser.add_argument("--no-spaces", dest="spaces", action="store_false", help="embed with no other model")
    parser.add_argument("--show", type=int, default=40, help="faults that are printed (40)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write counts, faults and times here")
    parser.add_argument(
        "--read", type=Path, metavar="FILE", help="run nothing: write such a file to docs/reliability.md"
    )
    parser.add_argument("--journal", type=Path, metavar="FILE", help="write each operation and fault here, as JSON")
    parser.add_argument("--log", type=Path, metavar="FILE", help="keep the server's log here")
    parser.add_argument("--mounted", action="store_true", help=argparse.SUPPRESS)  # inside its own namespace
    parser.set_defaults(left_out=None)
    return parser


if __name__ == "__main__":
    sys.exit(main())
