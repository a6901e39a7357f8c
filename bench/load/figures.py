"""From single answers to figures: what was answered, refused and failed, how long it took, and where the time went."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from server.wording import counted

Outcome = Literal["answered", "refused", "failed"]

STAGES = ("read", "decode", "resize", "tokenize", "queue", "encode", "search", "total")
"""The server's, in the order that a request comes to them."""

PERCENTILES = (50, 95, 99)
# Of fewer answers a percentile is little more than the slowest of them, so it is left out.
LEAST = {50: 1, 95: 20, 99: 100}

# gevent runs on one core. Beyond this share of it, answers wait for the load generator and not for the server.
BUSY = 0.8
# Milliseconds at p99: a steady pace that is kept no better than this says so.
LATE = 10.0

KEEPS_UP = 0.95
"""An offered load is kept up with when at least this share of it is answered as fast as it comes,"""
SLOWER = 3.0
"""and the p95 is at most this many times the lowest of all loads."""
NEARLY_BEST = 0.9
"""Of a fixed crowd, the fewest callers with this share of the best throughput are where more of them only wait."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one request. Times are of one clock, in seconds; stages in milliseconds."""

    name: str
    due: float
    """When it should have been sent: at its turn of a steady rate, or when its caller was free."""
    sent: float
    came: float
    outcome: Outcome
    reason: str = ""
    """Why it was refused or failed, in a few words."""
    stages: dict[str, float] = field(default_factory=dict)
    cached: bool = False

    @property
    def milliseconds(self) -> float:
        """From when it should have been sent: a server that keeps callers waiting cannot hide it."""
        return (self.came - self.due) * 1000


@dataclass(frozen=True, slots=True)
class Window:
    """The time that counts, after the warm-up, and what it cost; seconds."""

    began: float
    ended: float
    generator: float
    """Core-seconds of the load generator."""
    server: float | None = None
    """Core-seconds of the server, when it runs on this machine and was started for this."""

    @property
    def seconds(self) -> float:
        return max(self.ended - self.began, 1e-9)


def read_stages(header: str) -> tuple[dict[str, float], bool]:
    """`decode;dur=4.1, cache;desc=hit`: a Server-Timing header's stages in milliseconds, and whether it was a hit."""
    stages, cached = {}, False
    for entry in header.split(","):
        name, _, rest = entry.strip().partition(";")
        if name == "cache":
            cached = "hit" in rest
        elif name in STAGES and rest.startswith("dur="):
            try:
                stages[name] = float(rest.removeprefix("dur="))
            except ValueError:
                continue
    return stages, cached


def figures(answers: Iterable[Answer], window: Window, *, shared: bool) -> dict[str, Any]:
    """Everything that is worth keeping of a run, as JSON has it; `shared`: whether the server is on this machine.

    A request counts when it was due inside the window, however late its answer came. Throughput counts the right
    answers that came inside it. Latencies are of right answers alone: a refusal is quick, and would flatter them.
    """
    everything = list(answers)
    due = [one for one in everything if window.began <= one.due < window.ended]
    came = [one for one in everything if one.outcome == "answered" and window.began <= one.came < window.ended]
    names = sorted({one.name for one in due})
    return {
        "seconds": round(window.seconds, 3),
        **_group(due, came, window),
        "rows": {
            name: _group([one for one in due if one.name == name], [one for one in came if one.name == name], window)
            for name in names
        },
        "reasons": dict(Counter(one.reason for one in due if one.reason).most_common()),
        "generator": _generator(due, window, shared=shared),
        "server": None if window.server is None else {"cores": round(window.server / window.seconds, 3)},
    }


def _group(due: Sequence[Answer], came: Sequence[Answer], window: Window) -> dict[str, Any]:
    right = [one for one in due if one.outcome == "answered"]
    counts = Counter(one.outcome for one in due)
    return {
        "due": len(due),
        "answered": counts["answered"],
        "refused": counts["refused"],
        "failed": counts["failed"],
        "throughput": round(len(came) / window.seconds, 3),
        "latency": spread([one.milliseconds for one in right]),
        "cached": round(sum(one.cached for one in right) / len(right), 4) if right else None,
        "stages": {
            stage: spread(times)
            for stage in STAGES
            if (times := [one.stages[stage] for one in right if stage in one.stages])
        },
        # Means add up where percentiles do not. A stage that an answer lacks took it no time: it came from the cache.
        "parts": _parts(right),
    }


def _parts(right: Sequence[Answer]) -> dict[str, float]:
    """Mean milliseconds of an answer by where they went: stages, the server beside them, and outside of it."""
    timed = [one for one in right if one.stages]
    if not timed:
        return {}
    inside = [stage for stage in STAGES if stage != "total"]
    parts = {stage: sum(one.stages.get(stage, 0.0) for one in timed) / len(timed) for stage in inside}
    wait = sum(one.milliseconds for one in timed) / len(timed)
    if all("total" in one.stages for one in timed):
        total = sum(one.stages["total"] for one in timed) / len(timed)
        parts["server"] = max(0.0, total - sum(parts.values()))
        parts["outside"] = max(0.0, wait - total)
    else:
        parts["other"] = max(0.0, wait - sum(parts.values()))
    return {name: round(value, 3) for name, value in parts.items() if value}


def spread(milliseconds: Sequence[float]) -> dict[str, float | None]:
    """Percentiles, mean and highest of some times; a percentile is null where there are too few times for it."""
    if not milliseconds:
        return {**{f"p{share}": None for share in PERCENTILES}, "mean": None, "max": None}
    at = np.percentile(milliseconds, PERCENTILES)
    percentiles = {
        f"p{share}": round(float(value), 3) if len(milliseconds) >= LEAST[share] else None
        for share, value in zip(PERCENTILES, at, strict=True)
    }
    return {**percentiles, "mean": round(float(np.mean(milliseconds)), 3), "max": round(float(max(milliseconds)), 3)}


def _generator(due: Sequence[Answer], window: Window, *, shared: bool) -> dict[str, Any]:
    cores = len(os.sched_getaffinity(0))
    busy = window.generator / window.seconds
    late = spread([(one.sent - one.due) * 1000 for one in due])
    slow = next((late[one] for one in ("p99", "p95", "max") if late[one] is not None), None)
    warnings = []
    if busy > BUSY:
        warnings.append(
            f"The load generator is the bottleneck: it was busy for {busy:.0%} of the one core that it can use."
        )
    if slow is not None and slow > LATE:
        warnings.append(
            f"Requests left {slow:.0f} ms late at the tail, for want of a free core: that time is in the latencies."
        )
    return {
        "ofOneCore": round(busy, 4),
        "ofAllCores": round(busy / cores, 4),
        "sharesCoresWithServer": shared,
        "late": slow,
        "warnings": warnings,
    }


def label(load: float, mode: str) -> str:
    """`20/s`, `1 caller`, `8 callers`."""
    return f"{load:g}/s" if mode == "open" else counted(round(load), "caller")


# --- where it bends ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bend:
    """Between which two loads a server stops keeping up; None where that lies outside of what was tried."""

    below: float | None
    above: float | None
    sentence: str


def bend(steps: Sequence[Mapping[str, Any]], mode: str) -> Bend | None:
    """Where more load stops bringing more answers, by the definitions above. None where there are too few loads."""
    ordered = sorted(steps, key=lambda step: float(step["load"]))
    if len(ordered) < 2:
        return None
    return _bend_of_pace(ordered) if mode == "open" else _bend_of_crowd(ordered)


def _bend_of_pace(ordered: Sequence[Mapping[str, Any]]) -> Bend:
    quickest = min((step["latency"]["p95"] for step in ordered if step["latency"]["p95"] is not None), default=None)
    fell = {step["load"]: why for step in ordered if (why := _fell_behind(step, quickest))}
    kept = [step["load"] for step in ordered if step["load"] not in fell]
    if not kept:
        lightest = ordered[0]["load"]
        return Bend(None, lightest, f"Even {lightest:g}/s, the lightest load, is beyond it: {fell[lightest]}.")
    below = kept[-1]
    above = next((step["load"] for step in ordered if step["load"] > below), None)
    if above is None:
        sentence = f"It does not bend up to {below:g}/s: all of that is answered as fast as it comes."
    else:
        sentence = f"It bends between {below:g}/s and {above:g}/s: at {above:g}/s {fell[above]}."
    disturbed = [f"{load:g}/s" for load in fell if load < below]
    # A load below one that was kept up with cannot be too much: the machine had something else to do.
    sentence += f" Something disturbed it at {', '.join(disturbed)}: measure that again." if disturbed else ""
    return Bend(below, above, sentence)


def _fell_behind(step: Mapping[str, Any], quickest: float | None) -> str:
    """Why this load was not kept up with, in a few words; nothing when it was."""
    p95 = step["latency"]["p95"]
    kept = step["throughput"] / (step["due"] / step["seconds"]) if step["due"] else 0.0
    if kept < KEEPS_UP:
        return f"{step['throughput']:.1f}/s were answered, {kept:.0%} of what was asked"
    if p95 is not None and quickest is not None and p95 > SLOWER * quickest:
        return f"the p95 was {p95:.0f} ms, {p95 / quickest:.1f} times the lowest"
    return ""


def _bend_of_crowd(ordered: Sequence[Mapping[str, Any]]) -> Bend:
    best = max(step["throughput"] for step in ordered)
    at = next(place for place, step in enumerate(ordered) if step["throughput"] >= NEARLY_BEST * best)
    load, pace = ordered[at]["load"], ordered[at]["throughput"]
    if at == len(ordered) - 1:
        return Bend(load, None, f"It does not bend up to {load:g} callers: more of them still bring more answers.")
    found = f"{pace:.1f}/s of at most {best:.1f}/s; more callers mostly wait."
    return Bend(load, ordered[at + 1]["load"], f"It bends at {label(load, 'closed')}: {found}")
