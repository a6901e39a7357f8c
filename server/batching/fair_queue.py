"""Which entry is next: interactive work goes before bulk work, clients take turns, and nobody waits for ever.

A plain value: no threads, no locks, no clock. Work that waits for a thread (`threads.py`) or for the model
(`batcher.py`) waits in one of these.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

Lane = Literal["interactive", "bulk"]
LANES: tuple[Lane, ...] = ("interactive", "bulk")

BULK_TURN = 8
"""While entries wait in both lanes, one in so many comes from the bulk lane: interactive callers hardly notice, and a
bulk load makes progress all day."""

Entry = TypeVar("Entry")


@dataclass(frozen=True, slots=True)
class Caller:
    """For whom work is done. Entries of one client wait in the order in which they came; clients take turns."""

    client: str = ""
    lane: Lane = "interactive"


class FairQueue(Generic[Entry]):
    """Waiting entries. Within a lane clients take turns, so that one's thousand entries delay no other client."""

    def __init__(self) -> None:
        # The client whose turn it is comes first; a client without entries is left out.
        self._lanes: dict[Lane, dict[str, deque[Entry]]] = {lane: {} for lane in LANES}
        self._count = 0
        self._since_bulk = 0

    def __len__(self) -> int:
        return self._count

    def add(self, entry: Entry, caller: Caller) -> None:
        self._lanes[caller.lane].setdefault(caller.client, deque()).append(entry)
        self._count += 1

    def waiting(self, lane: Lane) -> Iterator[Entry]:
        """Those that wait in a lane, client by client."""
        for entries in self._lanes[lane].values():
            yield from entries

    def take(self) -> Entry | None:
        """The next entry; None when there is none."""
        return next(iter(self.fill(1, lambda _: True)), None)

    def fill(self, most: int, fits: Callable[[Entry], bool], *, most_bulk: int | None = None) -> list[Entry]:
        """The next entries that fit, at most so many. Among them, too, clients take turns.

        `most_bulk`: so many bulk entries at most, beside those whose turn it is.
        """
        taken: list[Entry] = []
        served: Counter[tuple[Lane, str]] = Counter()
        spare = most if most_bulk is None else most_bulk
        while len(taken) < most and (found := self._next(fits, served, spare=spare > 0)) is not None:
            lane, client, place = found
            if lane == "bulk" and not self._bulk_is_due:
                spare -= 1
            taken.append(self._remove(lane, client, place))
            served[lane, client] += 1
        return taken

    @property
    def _bulk_is_due(self) -> bool:
        return self._since_bulk >= BULK_TURN - 1

    def _next(
        self, fits: Callable[[Entry], bool], served: Counter[tuple[Lane, str]], *, spare: bool = True
    ) -> tuple[Lane, str, int] | None:
        """Lane, client and place of the next entry that fits, of the client that was served least.

        `spare`: whether bulk entries may have what interactive entries leave over, and not only their turn.
        """
        lanes: tuple[Lane, ...] = LANES if spare else ("interactive",)
        for lane in ("bulk", "interactive") if self._bulk_is_due else lanes:
            least: tuple[int, str, int] | None = None
            for client, waiting in self._lanes[lane].items():
                had = served[lane, client]
                if least is not None and had >= least[0]:
                    continue
                place = next((at for at, entry in enumerate(waiting) if fits(entry)), None)
                if place is not None:
                    least = had, client, place
                    if not had:
                        break
            if least is not None:
                return lane, least[1], least[2]
        return None

    def _remove(self, lane: Lane, client: str, place: int) -> Entry:
        clients = self._lanes[lane]
        waiting = clients[client]
        entry = waiting[place]
        del waiting[place]
        # The client goes to the end, unless an older entry of its own was passed over: that one is still next.
        if place == 0:
            del clients[client]
            if waiting:
                clients[client] = waiting
        self._count -= 1
        self._since_bulk = self._since_bulk + 1 if lane == "interactive" else 0
        return entry
