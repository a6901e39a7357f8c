"""python -m bench dependencies: what can be known of the pinned versions from the package index alone.

Each pin of `constraints.txt` is still offered, and was not withdrawn (yanked) by those who released it. Whether one has
a known vulnerability only a service on the internet can say: `make audit-dependencies` asks it after this.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench.pictures import ROOT

PINS = ROOT / "constraints.txt"

_PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==(\S+)")


def pins(text: str) -> list[tuple[str, str]]:
    """Names and versions, in the order of the file. Raises ValueError for a line that pins nothing."""
    found = []
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        pin = _PIN.fullmatch(line)
        if pin is None:
            raise ValueError(f"no pin: {line!r}")
        found.append((pin[1], pin[2]))
    return found


def look(name: str, version: str) -> str | None:
    """What is wrong with a pin; None where nothing is."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps", "--ignore-installed", "--quiet"]
    command += ["--disable-pip-version-check", "--report", "-", f"{name}=={version}"]
    done = subprocess.run(command, capture_output=True, text=True)  # noqa: S603 - pip, and a pin of our own
    if done.returncode:
        return f"is not offered: {(done.stderr.strip().splitlines() or ['pip says nothing'])[-1]}"
    return judge(json.loads(done.stdout))


def judge(report: Mapping[str, Any]) -> str | None:
    """What is wrong with the one package of a report of pip's."""
    (package,) = report["install"]
    if not package.get("is_yanked"):
        return None
    return f"was withdrawn: {package.get('metadata', {}).get('yanked_reason') or 'no reason is given'}"


def faults(chosen: Sequence[tuple[str, str]], jobs: int) -> Iterator[str]:
    """A line for each pin with which something is wrong."""
    with ThreadPoolExecutor(jobs) as pool:
        for (name, version), wrong in zip(chosen, pool.map(lambda pin: look(*pin), chosen), strict=True):
            if wrong is not None:
                yield f"{name}=={version} {wrong}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 every pin is sound, 1 one is not, 2 refused."""
    parser = argparse.ArgumentParser("python -m bench dependencies", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--pins", type=Path, default=PINS, metavar="FILE", help="the file of pins (constraints.txt)")
    parser.add_argument("--only", default="", help="only these names, with commas between")
    parser.add_argument("--jobs", type=int, default=4, help="pips at a time (4)")
    asked = parser.parse_args(arguments)
    names = {name.lower() for name in asked.only.split(",") if name}
    try:
        chosen = [pin for pin in pins(asked.pins.read_text()) if not names or pin[0].lower() in names]
    except (OSError, ValueError) as exc:
        print(f"bench: {exc}", file=sys.stderr)
        return 2
    found = list(faults(chosen, asked.jobs))
    print("\n".join([*found, f"{len(chosen)} pins: {len(found)} not offered any more, or withdrawn"]))
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
