"""The record of a soak in docs/reliability.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench import machine
from bench.soak.samples import QUANTITIES, judge


def record(report: Mapping[str, Any]) -> str:
    """What a soak found, as Markdown; its plot lies beside the page as soak.svg."""
    found = report["machine"]
    rows = "\n".join(
        f"| {quantity.title} | {_shown(one.early, quantity.unit)} | {_shown(one.late, quantity.unit)} | "
        f"{'flat' if one.flat else 'grows'} |"
        for name, quantity in QUANTITIES.items()
        for one in [judge(name, report["series"][name])]
    )
    return f"""\
`python -m bench soak --minutes {report["minutes"]:g} --seed {report["seed"]}`, on {found["cores"]} cores of an
{found["processor"]} ({machine.versions(found)}): {report["operations"]:,} operations, {report["rate"]:.0f} a second
of the {report["full_rate"]:.0f} that it answers at full load; {len(report["faults"])} answers were wrong.

| what is held | second quarter | last quarter | |
|---|---|---|---|
{rows}

![What the server held over the minutes](soak.svg)"""


def _shown(value: float, unit: str) -> str:
    return f"{value:,.0f} {unit}".strip()
