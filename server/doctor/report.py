"""What the doctor found: findings and notes, as a record for programs and as text for a person."""

from __future__ import annotations

from collections.abc import Callable
from textwrap import wrap

import msgspec

from server.wording import counted


class Finding(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One thing that is wrong: how many of how many, up to three examples (ids), and what to do about it."""

    name: str
    sentence: str
    count: int
    of: int
    unit: str
    examples: list[str]
    effect: str
    remedy: str


class Report(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """All that the doctor found. `database`: `older` or `twinlens`; `notes`: worth knowing, and no reason to act."""

    database: str
    looked_at: str
    sample: int
    findings: list[Finding]
    notes: list[str]

    def told(self, printable: Callable[[str], str]) -> Report:
        """The same report, with each sentence in which a command may stand made `printable`."""
        return msgspec.structs.replace(
            self,
            findings=[msgspec.structs.replace(one, remedy=printable(one.remedy)) for one in self.findings],
            notes=[printable(one) for one in self.notes],
        )


def as_text(report: Report) -> str:
    """The report for a person, with a line at the end that sums it up."""
    lines = [report.looked_at, ""]
    for number, one in enumerate(report.findings, 1):
        lines += _wrapped(f"{number}. {one.sentence}", "   ")
        if one.examples:
            lines.append(f"   For example: {', '.join(one.examples)}")
        lines += _wrapped(f"   What it does: {one.effect}", "   ")
        # In one line, since there are commands in it.
        lines += [f"   What mends it: {one.remedy}", ""]
    if report.notes:
        lines.append("Worth knowing:")
        for note in report.notes:
            lines += _wrapped(f"- {note}", "  ")
        lines.append("")
    lines.append(f"{counted(len(report.findings), 'finding')}." if report.findings else "Nothing wrong was found.")
    return "\n".join(lines)


def _wrapped(text: str, indent: str) -> list[str]:
    return wrap(text, 100, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
