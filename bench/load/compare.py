"""python -m bench compare A.json B.json: two load tests side by side, as ratios of B to A.

What differs in machine, versions and artifact is printed first: a ratio is no judgement of code that ran elsewhere.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

# What a run sends and how: two runs that differ in it answer different questions.
_SAME = {
    "mode": "one is a steady pace, the other a fixed crowd",
    "loads": "the loads are not the same",
    "mix": "the requests are mixed differently",
    "zipf": "pictures are repeated differently",
    "distinct": "the number of different pictures is not the same",
    "demoShare": "the share of demo pictures is not the same",
    "limit": "not the same number of matches is asked for",
    "pictures": "the pictures are not the same",
    "words": "the words are not the same",
}
_NEARLY_SAME = {"client": "searched as client", "seconds": "seconds of each load", "warmUp": "seconds of warm-up"}


class CannotCompare(Exception):
    """The two runs, or one of the files, are not to be compared; the reason is in the message."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the comparison; 1 when B is worse by more than --worse, 2 when the two cannot be compared."""
    parser = argparse.ArgumentParser("python -m bench compare", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("a", type=Path, metavar="A.json", help="what `python -m bench load --json` wrote")
    parser.add_argument("b", type=Path, metavar="B.json", help="the same of the other run")
    parser.add_argument("--worse", metavar="SHARE", help="exit with 1 when B is worse by more, such as 10%%")
    asked = parser.parse_args(arguments)
    try:
        allowed = _share(asked.worse) if asked.worse is not None else None
        one, other = _read(asked.a), _read(asked.b)
        check(one, other)
    except (CannotCompare, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    for line in table(one, other):
        print(line)
    if allowed is None:
        return 0
    found = list(worse(one, other, allowed))
    print()
    for line in found or [f"B is nowhere worse by more than {allowed:.0%} in throughput or p95."]:
        print(line)
    return 1 if found else 0


def _share(text: str) -> float:
    found = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,3})?)%", text.strip())
    if not found:
        raise CannotCompare(f"--worse takes a share such as 10%, not {text!r}")
    return float(found[1]) / 100


def _read(path: Path) -> dict[str, Any]:
    """A run as it was written. Raises CannotCompare for another file, OSError for none."""
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
        # Every member that is looked at below, so that what is missing is found here.
        _ = (run["machine"]["processor"], run["artifact"]["space"], run["started"], run["server"]["twinlens"])
        _ = [run["load"][name] for name in ("mode", "loads", "mix")]
        _ = [
            (step["load"], step["label"], step["throughput"], step["latency"]["p95"], step["rows"])
            for step in run["steps"]
        ]
    except (ValueError, KeyError, TypeError) as exc:
        raise CannotCompare(f"{path} is not what `python -m bench load --json` writes") from exc
    return dict(run)


def check(one: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    """Raises CannotCompare, with the first difference that makes a comparison meaningless."""
    for name, reason in _SAME.items():
        a, b = one["load"].get(name), other["load"].get(name)
        if a != b:
            raise CannotCompare(f"the two cannot be compared: {reason} (A: {_shown(a)}; B: {_shown(b)})")


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {one}" for name, one in value.items())
    if isinstance(value, list):
        return ", ".join(map(_shown, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else "unknown" if value is None else f"{value}"


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterable[str]:
    """What was not the same around the two runs, a line for each."""
    for title, name in (("machine", "machine"), ("artifact", "artifact"), ("server", "server")):
        for key in dict.fromkeys((*one[name], *other[name])):
            a, b = one[name].get(key), other[name].get(key)
            if a != b:
                yield f"{title}, {key}: {_shown(a)} | {_shown(b)}"
    for key, title in _NEARLY_SAME.items():
        if one["load"].get(key) != other["load"].get(key):
            yield f"{title}: {_shown(one['load'].get(key))} | {_shown(other['load'].get(key))}"


def table(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterable[str]:
    """The comparison, line by line."""
    yield f"A: {one['started']}, {one['artifact']['model']} ({one['artifact']['precision']})"
    yield f"B: {other['started']}, {other['artifact']['model']} ({other['artifact']['precision']})"
    found = list(differences(one, other))
    yield "What differs (A | B):" if found else "Machine, versions and artifact are the same."
    yield from (f"  {line}" for line in found)
    yield ""
    yield f"{'':34}{'A':>10}{'B':>10}{'B / A':>9}"
    for a, b in _pairs(one, other):
        yield f"{a['label']}"
        yield _row("answered a second", a["throughput"], b["throughput"], ".1f")
        for name in ("p50", "p95", "p99"):
            yield _row(f"{name}, ms", a["latency"][name], b["latency"][name], ".0f")
        for name in ("refused", "failed"):
            if a[name] or b[name]:
                yield _row(name, a[name], b[name], ".0f")
        for name in (name for name in a["rows"] if name in b["rows"]):
            yield _row(f"  {name}, p50", a["rows"][name]["latency"]["p50"], b["rows"][name]["latency"]["p50"], ".0f")
        if a["server"] and b["server"]:
            yield _row("core-ms an answer", _cost(a), _cost(b), ".1f")


def _row(name: str, a: float | None, b: float | None, form: str) -> str:
    shown = ["-" if value is None else format(value, form) for value in (a, b)]
    ratio = f"{b / a:.2f}" if a and b is not None else "-"
    return f"  {name:32}{shown[0]:>10}{shown[1]:>10}{ratio:>9}"


def _cost(step: Mapping[str, Any]) -> float | None:
    return 1000 * float(step["server"]["cores"]) / float(step["throughput"]) if step["throughput"] else None


def worse(one: Mapping[str, Any], other: Mapping[str, Any], allowed: float) -> Iterable[str]:
    """Where B's throughput is lower, or its p95 higher, than A's by more than that share."""
    for a, b in _pairs(one, other):
        at = f"at {a['label']}"
        if b["throughput"] < a["throughput"] * (1 - allowed):
            lost = 1 - b["throughput"] / a["throughput"]
            yield f"{at} B answers {b['throughput']:.1f}/s, {lost:.0%} less than A's {a['throughput']:.1f}/s"
        before, now = a["latency"]["p95"], b["latency"]["p95"]
        # Where nothing was answered there is no p95, and that is worse than any.
        if before is not None and (math.inf if now is None else now) > before * (1 + allowed):
            shown = "none" if now is None else f"{now:.0f} ms, {now / before - 1:.0%} more"
            yield f"{at} B's p95 is {shown}, where A's is {before:.0f} ms"


def _pairs(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    steps = {step["load"]: step for step in other["steps"]}
    return ((step, steps[step["load"]]) for step in one["steps"])


if __name__ == "__main__":
    sys.exit(main())
