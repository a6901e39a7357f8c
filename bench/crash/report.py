"""What came of a run: as text, and as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from bench import machine
from bench.crash.change import Changes
from bench.crash.checks import PROMISES
from bench.crash.faults import KINDS
from bench.crash.world import Tally


@dataclass(frozen=True, slots=True)
class Struck:
    """A fault that was carried out, or not: then `failed` says why. `again`: seconds from its end to an answer."""

    at: float
    kind: str
    length: float
    beside: str | None
    again: float | None = None
    failed: str | None = None


@dataclass(slots=True)
class Report:
    """All of a run."""

    seed: int
    minutes: float
    workers: int
    tally: Tally
    struck: list[Struck] = field(default_factory=list)
    changes: Changes = field(default_factory=Changes)
    starts: int = 0
    refusals: list[str] = field(default_factory=list)
    looked_up: int = 0
    seconds: float = 0.0
    left_out: str | None = None
    """Why a kind of fault was not tried."""

    @property
    def kept(self) -> bool:
        """Whether every promise was."""
        return not self.tally.kinds.total()

    @property
    def json(self) -> dict[str, Any]:
        tally = self.tally
        return {
            "machine": machine.describe(),
            "seed": self.seed,
            "minutes": self.minutes,
            "workers": self.workers,
            "seconds": round(self.seconds, 1),
            "promises": {kind: tally.kinds[kind] for kind in PROMISES},
            "faults": [asdict(one) for one in tally.faults],
            "operations": dict(tally.operations),
            "answers": dict(sorted(tally.answers.items())),
            "acknowledged": tally.acknowledged,
            "unknown": tally.unknown,
            "repeated": tally.repeated,
            "skipped": tally.skipped,
            "settled": tally.settled,
            "ingests": dict(sorted(tally.ingests.items())),
            "looked_up": self.looked_up,
            "broken": {kind: self._summary(kind) for kind in KINDS},
            "struck": [_finite(asdict(one)) for one in self.struck],
            "space_changes": asdict(self.changes),
            "starts": self.starts,
            "refused_starts": self.refusals,
            "left_out": self.left_out,
        }

    def _summary(self, kind: str) -> dict[str, Any]:
        times = [one.again for one in self._of(kind) if one.again is not None]
        return {
            "times": len(times),
            "median": round(median(times), 2) if times else None,
            "longest": round(max(times), 2) if times else None,
        }

    def _of(self, kind: str) -> Sequence[Struck]:
        return [one for one in self.struck if one.kind == kind and one.beside is None]

    @property
    def text(self) -> str:
        """Promises first, then what was done and broken."""
        tally = self.tally
        reads = sum(tally.operations.values())
        lines = [f"{kind}: {tally.kinds[kind]}" for kind in PROMISES]
        lines += [
            "",
            f"{reads:,} operations, {tally.acknowledged:,} writes acknowledged, {tally.unknown:,} of unknown outcome; "
            f"{self.looked_up:,} things looked up at the end",
            f"runs of ingest: {', '.join(f'{count} {how}' for how, count in sorted(tally.ingests.items())) or 'none'}",
            f"{len(self.struck)} faults, {self.changes.done} changes of the space in {self.changes.tries} tries "
            f"({self.changes.killed} killed), {self.starts} starts of the server, {len(self.refusals)} of them refused",
            "",
            f"{'broken':58}{'times':>6}{'answers again after (median, longest)':>40}",
        ]
        for kind, (words, _, _) in KINDS.items():
            found = self._summary(kind)
            if found["times"]:
                lines.append(f"{words:58}{found['times']:6}{found['median']:30.2f} s{found['longest']:6.2f} s")
        both = [one.again for one in self.struck if one.beside is not None and one.again is not None]
        if both:
            lines.append(f"{'two of them together':58}{len(both):6}{median(both):30.2f} s{max(both):6.2f} s")
        if self.left_out:
            lines.append(f"left out: {self.left_out}")
        return "\n".join(lines)


def _finite(struck: dict[str, Any]) -> dict[str, Any]:
    again = struck["again"]
    return {**struck, "again": round(again, 3) if again is not None and math.isfinite(again) else None}
