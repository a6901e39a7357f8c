"""The comparison as text, as records and as a table of docs/pictures.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from importlib import metadata
from itertools import groupby
from pathlib import Path
from typing import Any

from bench.decoders.case import Should
from bench.decoders.verdict import Row, Verdict

BEGIN, END = "<!-- decoders: begin -->", "<!-- decoders: end -->"
_PACKAGES = {"libvips": "pyvips-binary", "OpenCV": "opencv-python-headless", "Pillow": "pillow"}


def versions() -> dict[str, str]:
    """Of the readers that are Python packages."""
    found = {}
    for name, package in _PACKAGES.items():
        try:
            found[name] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def text(rows: Sequence[Row], about: dict[str, str], *, details: bool = False) -> str:
    """For a terminal."""
    names = _names(rows)
    lines = [", ".join(f"{name} {version}" for name, version in about.items()), ""]
    lines.append(f"{'':8}{'':36}{'files':>6}" + "".join(f"{name:>22}" for name in names))
    for (form, group), some in _groups(rows):
        cells = "".join(f"{_cell(some, name):>22}" for name in names)
        lines.append(f"{form:8}{group:36}{len(some):6}{cells}")
    if details:
        lines += ["", "not read alike by all:"]
        for row in rows:
            if len(set(row.verdicts.values())) > 1:
                lines.append(f"  {row.case.title}: {_summary(row)}")
    named = [row for row in rows if row.named]
    if named:
        lines += ["", "refused by name:", *(f"  {row.case.title}: {row.named}" for row in named)]
    faults = [row for row in rows if row.fault]
    if faults:
        lines += ["", "not as promised:", *(f"  {row.case.title}: {row.fault} ({_summary(row)})" for row in faults)]
    lines += ["", f"{len(rows)} files, {len(faults)} not as promised"]
    return "\n".join(lines)


def records(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Everything but the samples, for JSON."""
    return [
        {
            "format": row.case.format,
            "group": row.case.group,
            "name": row.case.name,
            "bytes": len(row.case.data),
            "should": row.case.should.value,
            "fault": row.fault,
            "readers": {
                name: {
                    "verdict": row.verdicts[name].value,
                    "distance": row.distances.get(name),
                    "text": answer.text,
                    "seconds": round(answer.seconds, 4),
                }
                for name, answer in row.answers.items()
            },
        }
        for row in rows
    ]


def table(rows: Sequence[Row]) -> str:
    """In Markdown: a line for each group."""
    names = _names(rows)
    lines = ["| | files | " + " | ".join(names) + " |", "|---|---:|" + "---:|" * len(names)]
    for (form, group), some in _groups(rows):
        cells = " | ".join(_cell(some, name) for name in names)
        lines.append(f"| {form} {group} | {len(some)} | {cells} |")
    return "\n".join(lines)


def write(path: Path, rows: Sequence[Row], about: dict[str, str]) -> None:
    """Put the table between its markers. Raises ValueError where a page has none."""
    page = path.read_text()
    begin, end = page.index(BEGIN) + len(BEGIN), page.index(END)
    readers = ", ".join(f"{name} {version}" for name, version in about.items())
    path.write_text(f"{page[:begin]}\n{len(rows)} files; {readers}.\n\n{table(rows)}\n{page[end:]}")


def _groups(rows: Sequence[Row]) -> Iterator[tuple[tuple[str, str], list[Row]]]:
    order: dict[tuple[str, str], int] = {}
    for row in rows:
        order.setdefault((row.case.format, row.case.group), len(order))

    def place(row: Row) -> int:
        return order[row.case.format, row.case.group]

    for _, some in groupby(sorted(rows, key=place), key=place):
        kept = list(some)
        yield (kept[0].case.format, kept[0].case.group), kept


def _names(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row.answers))


def _cell(rows: Sequence[Row], name: str) -> str:
    """How many of a group are as they should be, and what the others are."""
    rows = [row for row in rows if name in row.verdicts]
    if not rows:
        return "-"
    counts = Counter(_word(row, name) for row in rows)
    good = counts.pop("right", 0)
    rest = ", ".join(f"{count} {word}" for word, count in sorted(counts.items()))
    return ", ".join(part for part in (str(good) if good or not rest else "", rest) if part)


def _word(row: Row, name: str) -> str:
    verdict = row.verdicts[name]
    if row.case.should is Should.BE_REFUSED:
        return "in part" if verdict in (Verdict.READ, Verdict.RIGHT, Verdict.DIFFERS) else "refused"
    return {
        Verdict.RIGHT: "right",
        Verdict.READ: "read",
        Verdict.DIFFERS: "other",
        Verdict.REFUSED: "refused",
        Verdict.FAILED: "failed",
    }[verdict]


def _summary(row: Row) -> str:
    parts = []
    for name, verdict in row.verdicts.items():
        apart = row.distances.get(name)
        far = f" by {apart}" if verdict is Verdict.DIFFERS and apart is not None else ""
        parts.append(f"{name} {verdict.value}{far}")
    return ", ".join(parts)
