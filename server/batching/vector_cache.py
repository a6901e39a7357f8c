"""A cache of recent vectors, by client and picture or text; equal requests of one client at one time are computed once.

A shop's visitors send the same pictures and type the same words again and again. Nothing is shared between clients: a
vector that is there at once would tell one client what another has sent. One process has one model, and so the vectors
of one space.

The bound in bytes is one for all clients. When it is reached, the client that holds the most gives up the vector that
it has asked for longest ago. So a client that sends new pictures all day drops its own vectors once it has its share,
and never those of clients that hold less; one client alone has all of it. A client that has asked for nothing for ten
minutes has no share to defend.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Generic, Protocol, TypeVar

from server.tracing import Span, current

# Beside the vector itself: the array's header, the object around it, the key and the cache's own bookkeeping; 290 to
# 390 bytes by tracemalloc, over 10,000 entries of each kind; 470 where a client has no more than five.
_OVERHEAD_BYTES = 440

_IDLE_SECONDS = 600.0


class _HasVector(Protocol):
    @property
    def embedding(self) -> Any: ...


class Counted(Protocol):
    """What a cache counts."""

    hits: int
    joined: int
    made: int

    @property
    def bytes(self) -> int: ...


Key = TypeVar("Key", bound=Hashable)
Kept = TypeVar("Kept", bound=_HasVector)
Made = TypeVar("Made")


@dataclass(slots=True)
class _Flight(Generic[Made]):
    task: asyncio.Task[Made]
    span: Span
    """Of the request that asked first."""
    waiting: int = 0


@dataclass(slots=True)
class _Share(Generic[Key, Kept]):
    """What is kept for one client, what was asked for longest ago first."""

    kept: OrderedDict[Key, Kept] = field(default_factory=OrderedDict)
    asked_at: float = 0.0


class VectorCache(Generic[Key, Kept, Made]):
    """The latest values that fit into so many bytes; 0 keeps none. Only the event loop's thread may use it."""

    def __init__(self, most_bytes: int, clock: Callable[[], float] = monotonic) -> None:
        self._most_bytes = most_bytes
        self._clock = clock
        # By client, the one that has asked for nothing for longest first; clients of whom nothing is kept are left out.
        self._shares: OrderedDict[str, _Share[Key, Kept]] = OrderedDict()
        # Clients by how many values are kept for them, so that the largest share is found at once among any number of
        # them. All values of a cache are vectors of one length.
        self._by_count: dict[int, dict[str, None]] = {}
        self._largest = 0
        self._flights: dict[tuple[str, Hashable], _Flight[Made]] = {}
        self.bytes = 0
        """Of all that is kept."""
        self.hits = 0
        """Found in the cache."""
        self.joined = 0
        """Asked for while being made for another request of the client."""
        self.made = 0

    def get(self, client: str, key: Key) -> Kept | None:
        if (share := self._share(client)) is None or (found := share.kept.get(key)) is None:
            return None
        share.kept.move_to_end(key)
        self.hits += 1
        return found

    def put(self, client: str, key: Key, value: Kept) -> None:
        """Keep a value; one that does not fit at all is not kept."""
        if (size := _size(value)) > self._most_bytes:
            return
        if (share := self._share(client)) is not None and key in share.kept:
            self._remove(client, share, key)
        while self.bytes + size > self._most_bytes:
            self._drop(client)
        share = self._shares.setdefault(client, _Share(asked_at=self._clock()))
        share.kept[key] = value
        self.bytes += size
        self._recount(client, len(share.kept) - 1, len(share.kept))

    def _share(self, client: str) -> _Share[Key, Kept] | None:
        """What is kept for a client that asks now."""
        if (share := self._shares.get(client)) is not None:
            share.asked_at = self._clock()
            self._shares.move_to_end(client)
        return share

    def _drop(self, asking: str) -> None:
        """Drop one value: of a client that asks for nothing any more, or else of the one that holds the most."""
        client, share = next(iter(self._shares.items()))
        if self._clock() - share.asked_at < _IDLE_SECONDS:
            largest = self._by_count[self._largest]
            # Of equals the one that asks: with what it puts it would be the largest.
            client = asking if asking in largest else next(iter(largest))
            share = self._shares[client]
        self._remove(client, share, next(iter(share.kept)))

    def _remove(self, client: str, share: _Share[Key, Kept], key: Key) -> None:
        self.bytes -= _size(share.kept.pop(key))
        self._recount(client, len(share.kept) + 1, len(share.kept))
        if not share.kept:
            del self._shares[client]

    def _recount(self, client: str, before: int, now: int) -> None:
        """The client has one value more, or one less, than before."""
        if before:
            del self._by_count[before][client]
            if not self._by_count[before]:
                del self._by_count[before]
        if now:
            self._by_count.setdefault(now, {})[client] = None
        if now > self._largest or self._largest not in self._by_count:
            self._largest = now

    async def join(self, client: str, key: Hashable, make: Callable[[], Coroutine[Any, Any, Made]]) -> Made:
        """What `make` returns or raises, for all requests of the client that ask while it runs. It is cancelled when
        the last caller leaves."""
        whose = (client, key)
        flight = self._flights.get(whose)
        if flight is None:
            self.made += 1
            flight = self._flights[whose] = _Flight(asyncio.create_task(make()), current())
            flight.task.add_done_callback(lambda _: self._end(whose, flight))
        else:
            self.joined += 1
            current().link(flight.span)
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.task.done():
                self._forget(whose, flight)  # at once: a new caller must not join work that is being cancelled
                flight.task.cancel()

    def _end(self, whose: tuple[str, Hashable], flight: _Flight[Made]) -> None:
        if not flight.task.cancelled():
            flight.task.exception()  # looked at, also where all its callers have left: asyncio would log it otherwise
        self._forget(whose, flight)

    def _forget(self, whose: tuple[str, Hashable], flight: _Flight[Made]) -> None:
        if self._flights.get(whose) is flight:
            del self._flights[whose]


def _size(value: _HasVector) -> int:
    return int(value.embedding.nbytes) + _OVERHEAD_BYTES
