"""The command: get the weights, start everybody, measure, and write down what came of it."""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import machine
from bench.peers import document, loads, measure, reference, weights
from bench.peers.loads import Size
from bench.peers.systems import SYSTEMS, Bare, Server, Setting, tried
from bench.pictures import ROOT, Picture
from server.artifact.artifact import Artifact
from server.errors import TwinlensError

_DOCS = ROOT / "docs"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; the exit code is 0, or 2 with a sentence on standard error."""
    parser = argparse.ArgumentParser(
        "python -m bench peers", description="Twinlens and others on identical weights and pictures, in one run."
    )
    parser.add_argument("--checkpoint", type=Path, help="CLIP in Hugging Face format (a ViT-B/32 of random weights)")
    parser.add_argument("--artifact", type=Path, help="what was exported of it, fp32 and int8 (exported to the cache)")
    parser.add_argument("--cache", type=Path, default=ROOT / ".bench", help="environments, weights, pictures (.bench)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each (3)")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a measurement (10)")
    parser.add_argument("--small", type=int, default=64, help="distinct pictures of 640 x 480 (64)")
    parser.add_argument("--large", type=int, default=16, help="distinct pictures of 12 megapixels (16)")
    parser.add_argument(
        "--only", type=_names, default=SYSTEMS, metavar="NAMES", help=f"of {', '.join(one.name for one in SYSTEMS)}"
    )
    parser.add_argument(
        "--try-litserve", action="store_true", help="measure LitServe alone, in each setting that it might be best in"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything here")
    parser.add_argument("--read", type=Path, metavar="FILE", help="measure nothing: take what --json wrote")
    parser.add_argument("--write-docs", action="store_true", help="write docs/benchmarks.md and its plot")
    given = list(sys.argv[1:] if arguments is None else arguments)
    asked = parser.parse_args(given)
    if asked.write_docs and asked.try_litserve:
        parser.error("--write-docs is for a run of all: not for --try-litserve")
    # SIGTERM unwinds as an exception does: whatever was started is stopped on the way.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        if asked.read is not None:
            report = json.loads(asked.read.read_bytes())
        else:
            report = _run(asked, f"python -m bench peers {shlex.join(given)}".strip())
            if asked.json is not None:
                asked.json.parent.mkdir(parents=True, exist_ok=True)
                asked.json.write_text(json.dumps(report, indent=1) + "\n")
            print(f"\nmedians, lowest and highest, in pictures/s\n{document.paces(report)}")
        if asked.write_docs:
            document.write(report, _DOCS, asked.read or asked.json)
    except (TwinlensError, RuntimeError, OSError, ValueError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0


def _names(given: str) -> list[Server | Bare]:
    """`older,twinlens`: names, or how they begin. A complete name is that one alone."""
    wanted = [one.strip() for one in given.split(",") if one.strip()]
    for one in wanted:
        if not any(system.name.startswith(one) for system in SYSTEMS):
            raise argparse.ArgumentTypeError(f"there is no {one}; there are {', '.join(s.name for s in SYSTEMS)}")
    complete = {system.name for system in SYSTEMS}
    return [
        s for s in SYSTEMS if any(s.name == one or (one not in complete and s.name.startswith(one)) for one in wanted)
    ]


def _run(asked: argparse.Namespace, command: str) -> dict[str, Any]:
    started = datetime.now(UTC).isoformat(timespec="seconds")
    print(machine.sentence(), flush=True)
    least = max(load.callers for load in loads.LOADS)
    if asked.small < least or asked.large < 1 or asked.rounds < 1 or asked.seconds <= 0:
        raise ValueError(f"too little to measure with: --small is {least} or more, the others are above 0")
    cache = asked.cache.resolve()
    checkpoint = asked.checkpoint or weights.checkpoint(cache)
    folder = asked.artifact or weights.artifact(cache, checkpoint)
    setting = Setting(cache, checkpoint, Artifact.read(folder))
    setting.artifact.check_files(setting.artifact.files_to_run("int8"))  # refuses in a sentence where there is no int8
    chosen = tried() if asked.try_litserve else asked.only
    sizes = {load.size for system in chosen for load in system.loads}
    sent: dict[Size, list[Picture]] = {
        "small": loads.small(asked.small),
        "large": loads.large(asked.large, cache) if "large" in sizes else [],
    }
    references = {size: reference.vectors(checkpoint, sent[size]) for size in sizes}
    systems = measure.measure(chosen, setting, sent, references, asked.rounds, asked.seconds)
    return {
        "machine": machine.describe() | {"instructions": _instructions()},
        "command": command,
        "artifact": weights.describe(setting.artifact),
        "random": asked.checkpoint is None,
        "started": started,
        "rounds": asked.rounds,
        "seconds": asked.seconds,
        "pictures": loads.describe(sent),
        "loads": [
            {"name": load.name, "title": load.title, "callers": load.callers, "size": load.size}
            for load in (*loads.LOADS, loads.REPEATED)
        ],
        "systems": systems,
    }


def _instructions() -> str:
    """Those of the processor that int8 and fp32 are quick with; empty where the kernel does not list them."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return ""
    names = {"avx2": "AVX2", "avx512f": "AVX-512", "avx_vnni": "VNNI", "avx512_vnni": "AVX-512 VNNI", "amx_int8": "AMX"}
    return ", ".join(name for flag, name in names.items() if flag in flags) or "none of AVX2, AVX-512, VNNI"
