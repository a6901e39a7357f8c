"""Who is next: interactive work before bulk work, no client before another, nobody for ever last.

A plain value: no threads, no locks, no time. What waits for a thread (`pool.py`) or for the model (`batcher.py`) waits
in one of these.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

Lane = Literal["interactive", "bulk"]
LANES: tuple[Lane, ...] = ("interactive", "bulk")

BULK_TURN = 8
"""While both lanes wait, every so many-th entry is bulk's: somebody who waits for an answer hardly notices, and a bulk
load that runs all day gets on all day."""

Entry = TypeVar("Entry")


@dataclass(frozen=True, slots=True)
class Caller:
    """For whom something is done: entries of one client wait in the order they came, clients take turns."""

    client: str = ""
    lane: Lane = "interactive"


class FairQueue(Generic[Entry]):
    """Waiting entries. Within a lane the clients take turns, so that a thousand entries of one delay nobody else's."""

    def __init__(self) -> None:
        # The client whose turn it is comes first; one without entries is not there.
        self._lanes: dict[Lane, dict[str, deque[Entry]]] = {lane: {} for lane in LANES}
        self._count = 0
        self._since_bulk = 0

    def __len__(self) -> int:
        return self._count

    def add(self, entry: Entry, caller: Caller) -> None:
        self._lanes[caller.lane].setdefault(caller.client, deque()).append(entry)
        self._count += 1

    def take(self, fits: Callable[[Entry], bool] | None = None) -> Entry | None:
        """The next entry, or the next one that fits; None when there is none."""
        bulk_first = self._since_bulk >= BULK_TURN - 1
        for lane in reversed(LANES) if bulk_first else LANES:
            entry = self._take_from(self._lanes[lane], fits)
            if entry is not None:
                self._count -= 1
                self._since_bulk = self._since_bulk + 1 if lane == "interactive" else 0
                return entry
        return None

    @staticmethod
    def _take_from(clients: dict[str, deque[Entry]], fits: Callable[[Entry], bool] | None) -> Entry | None:
        for client, waiting in clients.items():
            place = 0 if fits is None else next((at for at, entry in enumerate(waiting) if fits(entry)), None)
            if place is None:
                continue
            entry = waiting[place]
            del waiting[place]
            del clients[client]
            if waiting:
                clients[client] = waiting  # back to the end: the others have their turn first
            return entry
        return None
