"""The record of a run in docs/reliability.md: what stands between two marks is written from the run's JSON."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from bench import machine, pictures
from bench.crash.faults import KINDS

PAGE = pictures.ROOT / "docs" / "reliability.md"

_BEGIN, _END = "<!-- {name}: written by the command -->", "<!-- end of {name} -->"


def write(name: str, text: str, page: Path = PAGE) -> None:
    """Put a text between the marks of this name. Raises ValueError where the page has no such marks."""
    begin, end = _BEGIN.format(name=name), _END.format(name=name)
    before, found, rest = page.read_text().partition(begin)
    _, ended, after = rest.partition(end)
    if not found or not ended:
        raise ValueError(f"{page} has no place for {name}")
    page.write_text(f"{before}{begin}\n\n{text.strip()}\n\n{end}{after}")


def record(report: Mapping[str, Any]) -> str:
    """What a run of the crasher found, as Markdown."""
    found, changes = report["machine"], report["space_changes"]
    operations = sum(report["operations"].values())
    promises = "\n".join(f"| {kind} | {count} |" for kind, count in report["promises"].items())
    broken = "\n".join(
        f"| {words} | {one['times']} | {one['median']:.2f} s | {one['longest']:.2f} s |"
        for kind, (words, _, _) in KINDS.items()
        if (one := report["broken"][kind])["times"]
    )
    struck = [one for one in report["struck"] if one["failed"] is None]
    both = [one["again"] for one in struck if one["beside"] is not None and one["again"] is not None]
    if both:
        broken += f"\n| two at once | {len(both)} | {median(both):.2f} s | {max(both):.2f} s |"
    left_out = f" Left out: {report['left_out']}." if report["left_out"] else ""
    return f"""\
`python -m bench crash --minutes {report["minutes"]:g} --seed {report["seed"]}`, on {found["cores"]} cores of an
{found["processor"]} ({machine.versions(found)}), {report["workers"]} workers:

| kind of fault | found |
|---|---|
{promises}

It carried out {operations:,} operations. {report["acknowledged"]:,} writes were acknowledged; of
{report["unknown"]:,} the callers could not know the outcome, and a later read settled it. {report["looked_up"]:,}
things were looked up at the end. {len(struck)} faults were inflicted, {len(both)} of them with a second one beside; the
server was started {report["starts"]} times, {len(report["refused_starts"])} of them in vain. The space was changed
{changes["done"]} times, in {changes["tries"]} runs of `reembed`, of which {changes["killed"]} were killed on
purpose.{left_out}

| what broke | times | answers again after, median | longest |
|---|---|---|---|
{broken}

The time counts from the end of the fault (the kill, or the moment when PostgreSQL goes on, the disk has room, the lock
is released) to the first search and the first write that are answered."""
