"""How much waits in a queue, and for how long: what an operator watches, and how many servers are needed goes by."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from server.batching.fair_queue import LANES, FairQueue, Lane


@dataclass(frozen=True, slots=True)
class Waiting:
    """Entries that wait in one lane of a queue."""

    count: int = 0
    age: float = 0.0
    """Seconds since the oldest of them came; 0 where there is none."""


class Queued(Protocol):
    """An entry of a queue."""

    @property
    def queued_at(self) -> float: ...

    @property
    def answer(self) -> asyncio.Future[Any]: ...


Entry = TypeVar("Entry", bound=Queued)


def waits(queue: FairQueue[Entry], now: float) -> Mapping[Lane, Waiting]:
    """What waits in each lane; those whose callers have left do not count. `now`: on the clock of `queued_at`.

    Whoever calls it holds the queue's lock.
    """
    return {lane: _in_lane(queue, lane, now) for lane in LANES}


def _in_lane(queue: FairQueue[Entry], lane: Lane, now: float) -> Waiting:
    since = [entry.queued_at for entry in queue.waiting(lane) if not entry.answer.done()]
    return Waiting(len(since), max(0.0, now - min(since))) if since else Waiting()
