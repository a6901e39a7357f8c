"""What breaks, and when: drawn from the seed before the run begins."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

KINDS: dict[str, tuple[str, float, float]] = {
    "worker": ("a worker killed (-9)", 0, 0),
    "parent": ("the parent killed (-9)", 0, 0),
    "stop": ("the server stopped (SIGTERM) and started again", 0, 0),
    "backend": ("a process of PostgreSQL killed (-9)", 0, 0),
    "postmaster": ("PostgreSQL's first process killed (-9)", 0, 0),
    "pause": ("PostgreSQL paused (SIGSTOP)", 1, 8),
    "disk": ("the disk full", 2, 6),
    "pool": ("the pool exhausted: a table locked, 80 requests at once", 1, 4),
    "connections": ("all connections of PostgreSQL taken", 1, 4),
    "store": ("the store of pictures away", 1, 5),
}
"""What is broken, in words, and for how many seconds, at least and at most."""

_BESIDE = ("worker", "parent", "backend", "postmaster")
_BESIDE_SHARE = 0.25
_FIRST, _GAP = (4.0, 7.0), (5.0, 13.0)


@dataclass(frozen=True, slots=True)
class Blow:
    """One fault. `at`: seconds after the beginning; `pick`: 0 to 1, which of several is hit."""

    at: float
    kind: str
    length: float
    pick: float
    beside: Blow | None = None
    """Another one that hits while this one still hurts; its `at` counts from this one's."""


def schedule(seed: int, kinds: Sequence[str], seconds: float) -> list[Blow]:
    """The faults of a run, each kind about as often."""
    chance = random.Random(f"{seed} faults")  # noqa: S311 - a draw, no secret
    endless = _in_turn(chance, kinds)
    blows: list[Blow] = []
    at = chance.uniform(*_FIRST)
    while at < seconds:
        first = _blow(chance, at, next(endless))
        hits = chance.random() < _BESIDE_SHARE
        other = _blow(chance, chance.uniform(0, 2.5), chance.choice([one for one in _BESIDE if one in kinds] or kinds))
        blows.append(Blow(first.at, first.kind, first.length, first.pick, other if hits else None))
        at += first.length + chance.uniform(*_GAP)
    return blows


def space_changes(seed: int, seconds: float) -> list[tuple[float, float | None]]:
    """When the catalogue is embedded with the other model; and after how many seconds the first try is killed, if it
    is."""
    chance = random.Random(f"{seed} spaces")  # noqa: S311 - a draw, no secret
    changes: list[tuple[float, float | None]] = []
    at = chance.uniform(15, 30)
    while at < seconds - 20:
        changes.append((at, chance.uniform(2, 10) if chance.random() < 0.5 else None))
        at += chance.uniform(150, 300)
    return changes


def _in_turn(chance: random.Random, kinds: Sequence[str]) -> Iterator[str]:
    while True:
        yield from chance.sample(list(kinds), len(kinds))


def _blow(chance: random.Random, at: float, kind: str) -> Blow:
    _, least, most = KINDS[kind]
    return Blow(at, kind, chance.uniform(least, most), chance.random())
