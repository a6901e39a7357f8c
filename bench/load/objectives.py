"""Objectives that a load test decides: `p95=200ms`, `errors=1%`, `throughput=20`, `search:p99=1s`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bench.load.figures import LEAST, PERCENTILES
from bench.load.traffic import KINDS

_TIMES = tuple(f"p{share}" for share in PERCENTILES)
_SHARES = {"errors": ("failed", "refused"), "failed": ("failed",), "refused": ("refused",)}
_EXAMPLE = "such as p95=200ms, errors=1%, throughput=20 or search:p99=1s"


class CannotJudge(Exception):
    """There is too little to judge an objective by."""


@dataclass(frozen=True, slots=True)
class Objective:
    """What must hold of a step's figures: a time or a share at most, a throughput at least."""

    text: str
    metric: str
    bound: float
    """Milliseconds, a share of the requests, or answers a second."""
    kind: str | None = None
    """Only requests of this kind, each of its rows; None: all together."""

    @property
    def bounds_failures(self) -> bool:
        return self.kind is None and "failed" in _SHARES.get(self.metric, ())


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an objective was met, in a sentence too."""

    objective: str
    met: bool
    found: float
    bound: float
    told: str  # of this name in JSON
    """What was found, with its unit."""
    gap: str
    """How far from the bound, with a word."""

    @property
    def sentence(self) -> str:
        return f"{self.objective}: {'met' if self.met else 'missed'}, {self.told}, {self.gap}"


def read(text: str) -> Objective:
    """An objective as it is written. Raises ValueError with a sentence."""
    found = re.fullmatch(r"(?:(\w+):)?(\w+)=([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|%|)", text.strip())
    if not found:
        raise ValueError(f"--slo takes an objective {_EXAMPLE}, not {text!r}")
    kind, metric, number, unit = found[1], found[2], float(found[3]), found[4]
    if kind is not None and kind not in KINDS:
        raise ValueError(f"--slo knows the kinds {', '.join(KINDS)}, not {kind!r}")
    if metric in _TIMES:
        if unit not in ("ms", "s"):
            raise ValueError(f"--slo {text}: a time has a unit, such as {metric}=200ms or {metric}=1s")
        number *= 1000 if unit == "s" else 1
    elif metric in _SHARES:
        if unit != "%" or number > 100:
            raise ValueError(f"--slo {text}: a share is in per cent, such as {metric}=1%")
        number /= 100
    elif metric == "throughput":
        if unit:
            raise ValueError(f"--slo {text}: a throughput is in answers a second, such as throughput=20")
    else:
        raise ValueError(f"--slo knows {', '.join((*_TIMES, *_SHARES, 'throughput'))}, not {metric!r}")
    return Objective(text.strip(), metric, number, kind)


def judge(objective: Objective, figures: Mapping[str, Any]) -> Verdict:
    """One objective against a step's figures. Raises CannotJudge when they hold too little for it."""
    groups = list(_groups(objective, figures))
    if not groups:
        raise CannotJudge(f"{objective.text}: nothing of the kind {objective.kind} was sent")
    # Of several rows the worst decides; throughputs of a kind add up.
    if objective.metric == "throughput":
        found = sum(one["throughput"] for one in groups)
        met = found >= objective.bound
    elif objective.metric in _SHARES:
        found = max(sum(one[outcome] for outcome in _SHARES[objective.metric]) / one["due"] for one in groups)
        met = found <= objective.bound
    else:
        found = max(_time(objective, one) for one in groups)
        met = found <= objective.bound
    return Verdict(objective.text, met, found, objective.bound, *_in_words(objective, found, met))


def _groups(objective: Objective, figures: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    if objective.kind is None:
        return (figures,) if figures["due"] else ()
    return (row for name, row in figures["rows"].items() if name.partition(",")[0] == objective.kind)


def _time(objective: Objective, group: Mapping[str, Any]) -> float:
    found = group["latency"][objective.metric]
    if found is None:
        least = LEAST[int(objective.metric[1:])]
        few = f"{group['answered']} right answers are too few, {least} are needed"
        raise CannotJudge(f"{objective.text}: {few}; --seconds makes it longer")
    return float(found)


def _in_words(objective: Objective, found: float, met: bool) -> tuple[str, str]:
    gap = abs(found - objective.bound)
    if objective.metric in _TIMES:
        shown, apart = f"{found:.0f} ms", f"{gap:.0f} ms"
    elif objective.metric in _SHARES:
        shown, apart = f"{found:.2%}", f"{gap * 100:.2f} points"
    else:
        shown, apart = f"{found:.1f}/s", f"{gap:.1f}/s"
    return shown, f"{apart} {'to spare' if met else 'off'}"
