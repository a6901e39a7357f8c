"""What a key or a client may ask for: limits as an operator writes them, and the arithmetic of an allowance.

A plain value: no clock, no state. An allowance is a bucket that holds `burst` and fills at `rate` a second. All that is
kept of one in use is the time at which it is full again (the generic cell rate algorithm, GCRA), a single number.

Whoever has one left may go on, and pays for all that the request turns out to be: a form of 50 pictures is let in
whole, and the next one waits until its pictures are paid for. So the time after which a request is let in is known
before its body is read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

Kind = Literal["requests", "pictures", "bytes"]
KINDS: tuple[Kind, ...] = get_args(Kind)

REQUESTS, REQUESTS_BURST = "requestsPerSecond", "requestsBurst"
PICTURES, PICTURES_BURST = "picturesPerSecond", "picturesBurst"
CONCURRENT = "concurrent"
BYTES = "bytesPerDay"
NAMES = (REQUESTS, REQUESTS_BURST, PICTURES, PICTURES_BURST, CONCURRENT, BYTES)
"""Of limits, as the database has them."""

FORM = "requests=50/100,pictures=20/40,concurrent=32,bytes=10GB"
"""An example of how limits are written: so many a second / so many at once."""

DAY = 86_400

_ENOUGH = 1 - 1e-6  # of one: sums of times are rounded

_SIZES = {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_NUMBER = r"([0-9]{1,12}(?:\.[0-9]{1,6})?)"
_RATE = re.compile(rf"{_NUMBER}(?:/{_NUMBER})?")
_SIZE = re.compile(rf"{_NUMBER}\s*([a-z]*)")


@dataclass(frozen=True, slots=True)
class Allowance:
    """So much a second, and so much at once; both above 0. `full_at` and `now` are times of one clock, in seconds."""

    rate: float
    burst: float

    def left(self, full_at: float, now: float) -> float:
        """How much may be asked for at once; below 0 while more was asked for than there was."""
        return self.burst - max(0.0, full_at - now) * self.rate

    def wait(self, full_at: float, now: float) -> float:
        """Seconds until one is left; 0 where one is."""
        left = self.left(full_at, now)
        return 0.0 if left >= _ENOUGH else (1.0 - left) / self.rate

    def after(self, count: float, full_at: float, now: float) -> float:
        """When it is full again, once so much was taken."""
        return max(full_at, now) + count / self.rate

    @property
    def window(self) -> float:
        """Seconds in which an empty one becomes full."""
        return self.burst / self.rate

    def share(self, of: int) -> Allowance:
        """An even part of it; at once there is at least one."""
        return self if of == 1 else Allowance(self.rate / of, max(1.0, self.burst / of))


@dataclass(frozen=True, slots=True)
class Limits:
    """Of a key or a client. What is None is not limited; where nothing is, they are false."""

    requests: Allowance | None = None
    pictures: Allowance | None = None
    bytes: Allowance | None = None
    concurrent: int | None = None

    @classmethod
    def of(cls, given: Mapping[str, float]) -> Limits:
        """From what the database has."""
        day = given.get(BYTES)
        inside = given.get(CONCURRENT)
        return cls(
            _allowance(given.get(REQUESTS), given.get(REQUESTS_BURST)),
            _allowance(given.get(PICTURES), given.get(PICTURES_BURST)),
            None if day is None else Allowance(day / DAY, day),
            None if inside is None else max(1, int(inside)),
        )

    @classmethod
    def of_rate(cls, rate: float) -> Limits:
        """So many requests a second, and as many at once."""
        return cls(_allowance(rate, None))

    def beside(self, others: Limits) -> Limits:
        """These, and of the others what is not limited here."""
        return Limits(
            self.requests or others.requests,
            self.pictures or others.pictures,
            self.bytes or others.bytes,
            self.concurrent or others.concurrent,
        )

    def share(self, of: int, *, all_of_it: bool = True) -> Limits:
        """An even part of each, or of `concurrent` alone."""
        if of == 1:
            return self
        concurrent = None if self.concurrent is None else max(1, self.concurrent // of)
        if not all_of_it:
            return replace(self, concurrent=concurrent)
        one, two, three = (None if one is None else one.share(of) for one in (self.requests, self.pictures, self.bytes))
        return Limits(one, two, three, concurrent)

    def __bool__(self) -> bool:
        return any(one is not None for one in (self.requests, self.pictures, self.bytes, self.concurrent))


UNLIMITED = Limits()


def limits_in(text: str) -> dict[str, float]:
    """Limits as a person writes them, such as `FORM`, by their names in the database. Raises ValueError."""
    found: dict[str, float] = {}
    for one in filter(None, re.split(r"[,\s]+", text.strip())):
        name, _, value = one.partition("=")
        read = _READ.get(name)
        if read is None or (made := read(value.lower())) is None:
            raise ValueError(f"limits such as {FORM}")
        if made.keys() & found.keys():
            raise ValueError(f"limits that name {name} once")
        found |= made
    if not found:
        raise ValueError(f"limits such as {FORM}")
    return found


def as_written(limits: Mapping[str, Any]) -> str:
    """Limits in the form that `limits_in` reads."""
    return ",".join(
        [
            *(_rate_as_written("requests", limits, REQUESTS, REQUESTS_BURST)),
            *(_rate_as_written("pictures", limits, PICTURES, PICTURES_BURST)),
            *([f"concurrent={limits[CONCURRENT]:g}"] if CONCURRENT in limits else []),
            *([f"bytes={_size_as_written(limits[BYTES])}"] if BYTES in limits else []),
        ]
    )


def _allowance(rate: float | None, burst: float | None) -> Allowance | None:
    if rate is None:
        return None
    return Allowance(rate, max(1.0, rate if burst is None else burst))


def _rate(name: str, burst_name: str, text: str) -> dict[str, float] | None:
    found = _RATE.fullmatch(text)
    if not found or not float(found[1]) or (found[2] is not None and float(found[2]) < 1):
        return None
    return {name: float(found[1])} | ({} if found[2] is None else {burst_name: float(found[2])})


def _concurrent(text: str) -> dict[str, float] | None:
    return {CONCURRENT: int(text)} if re.fullmatch(r"[0-9]{1,6}", text) and int(text) else None


def _bytes(text: str) -> dict[str, float] | None:
    found = _SIZE.fullmatch(text)
    if not found or found[2] not in _SIZES:
        return None
    size = int(float(found[1]) * _SIZES[found[2]])
    return {BYTES: size} if size else None


_READ = {
    "requests": lambda text: _rate(REQUESTS, REQUESTS_BURST, text),
    "pictures": lambda text: _rate(PICTURES, PICTURES_BURST, text),
    "concurrent": _concurrent,
    "bytes": _bytes,
}


def _rate_as_written(word: str, limits: Mapping[str, Any], name: str, burst_name: str) -> list[str]:
    if name not in limits:
        return []
    burst = f"/{limits[burst_name]:g}" if burst_name in limits else ""
    return [f"{word}={limits[name]:g}{burst}"]


def _size_as_written(size: float) -> str:
    for unit in ("tb", "gb", "mb", "kb"):
        if size >= _SIZES[unit] and size % _SIZES[unit] == 0:
            return f"{size / _SIZES[unit]:.0f}{unit.upper()}"
    return f"{size:.0f}"
