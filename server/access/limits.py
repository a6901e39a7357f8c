"""Limits in use: what each key and each client has left, kept in this process.

A flood of refusals must cost next to nothing: to look costs the same however much was refused before, and what is
refused takes nothing from the allowance.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from server.errors import BadParameter
from server.limits import Allowance, Kind, limits_in

MOST_KEPT = 100_000
"""Allowances in use that are kept. Who may make up names, as clients may where no key is needed, fills no memory."""

_FEWEST = 1024


def limits_of(text: str) -> dict[str, float]:
    """Limits as a person writes them, `requests=5/10,concurrent=3`, as the database has them. Raises BadParameter."""
    try:
        return limits_in(text)
    except ValueError as exc:
        raise BadParameter(f"There must be {exc}, not {text[:80]!r}.") from None


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a request takes of one allowance. `count` 0: it only must have one left."""

    subject: str
    """Whose allowance it is: a word and an id, such as `client acme`."""
    kind: Kind
    allowance: Allowance
    count: float


@dataclass(frozen=True, slots=True)
class Left:
    """What there is of an allowance once it was asked for."""

    wanted: Wanted
    left: float
    wait: float
    """Seconds until one is left; 0 where one was."""


class Bucket:
    """One allowance that is nobody's in particular, such as that of lines of a log."""

    def __init__(self, allowance: Allowance, clock: Callable[[], float] = time.monotonic) -> None:
        self._allowance = allowance
        self._clock = clock
        self._full_at = clock()

    def take(self) -> bool:
        """Take one, if there is one left; whether there was."""
        now = self._clock()
        if self._allowance.wait(self._full_at, now):
            return False
        self._full_at = self._allowance.after(1, self._full_at, now)
        return True


class Limiter(Protocol):
    """Keeps account of allowances."""

    inside: Inside

    async def take(self, wanted: Sequence[Wanted]) -> list[Left]:
        """Take all, if each has one left, else nothing: then one or more of the answers has a `wait`."""

    def take_now(self, wanted: Sequence[Wanted]) -> list[Left]:
        """As `take`, counted in this process alone."""

    def owe(self, wanted: Iterable[Wanted]) -> None:
        """Take what has come already, whether there is anything left or not."""


class Inside:
    """How many requests of each subject are being answered."""

    def __init__(self) -> None:
        self._count: Counter[str] = Counter()

    def __getitem__(self, subject: str) -> int:
        return self._count[subject]

    def __len__(self) -> int:
        return len(self._count)

    def enter(self, subjects: Iterable[str]) -> None:
        self._count.update(subjects)

    def leave(self, subjects: Iterable[str]) -> None:
        for subject in subjects:
            self._count[subject] -= 1
            if not self._count[subject]:
                del self._count[subject]


class LocalLimiter:
    """The allowances of this process. What is full again is forgotten."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, most: int = MOST_KEPT) -> None:
        self.inside = Inside()
        self._clock = clock
        self._most = most
        self._full_at: dict[tuple[str, Kind], float] = {}
        self._look_at = _FEWEST

    def __len__(self) -> int:
        return len(self._full_at)

    async def take(self, wanted: Sequence[Wanted]) -> list[Left]:
        """As `Limiter` has it."""
        return self.take_now(wanted)

    def take_now(self, wanted: Sequence[Wanted]) -> list[Left]:
        """As `Limiter` has it."""
        now = self._clock()
        known = [(one, self._full_at.get((one.subject, one.kind), now)) for one in wanted]
        waits = [one.allowance.wait(full_at, now) for one, full_at in known]
        admitted = not any(waits)
        answers = []
        for (one, full_at), wait in zip(known, waits, strict=True):
            after = full_at
            if admitted and one.count:
                after = self._full_at[one.subject, one.kind] = one.allowance.after(one.count, full_at, now)
            answers.append(Left(one, one.allowance.left(after, now), wait))
        self._forget(now)
        return answers

    def owe(self, wanted: Iterable[Wanted]) -> None:
        """As `Limiter` has it."""
        now = self._clock()
        for one in wanted:
            place = one.subject, one.kind
            self._full_at[place] = one.allowance.after(one.count, self._full_at.get(place, now), now)
        self._forget(now)

    def _forget(self, now: float) -> None:
        """Once there are twice as many as after the last look, drop what is full; it is as if it had never been."""
        if len(self._full_at) < self._look_at:
            return
        self._full_at = {place: full_at for place, full_at in self._full_at.items() if full_at > now}
        if len(self._full_at) > self._most:  # then the older half
            self._full_at = dict(list(self._full_at.items())[self._most // 2 :])
        self._look_at = min(max(_FEWEST, 2 * len(self._full_at)), self._most + _FEWEST)
