"""A cache of recent vectors, by the picture or text that they belong to; equal requests at one time are computed once.

A shop's visitors send the same pictures and type the same words again and again. The cache is bounded in bytes, and
drops the vector that was asked for longest ago. One process has one model, and so the vectors of one space.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from cachetools import LRUCache

# Beside the vector itself: the array's header, the object around it, the key and the cache's own bookkeeping; 370 to
# 440 bytes by tracemalloc, over 10,000 entries of each kind.
_OVERHEAD_BYTES = 440


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
    waiting: int = 0


class VectorCache(Generic[Key, Kept, Made]):
    """The latest values that fit into so many bytes; 0 keeps none. Only the event loop's thread may use it."""

    def __init__(self, most_bytes: int) -> None:
        self._kept: LRUCache[Key, Kept] = LRUCache(most_bytes, getsizeof=_size)
        self._flights: dict[Hashable, _Flight[Made]] = {}
        self.hits = 0
        """Found in the cache."""
        self.joined = 0
        """Asked for while being made for another caller."""
        self.made = 0

    @property
    def bytes(self) -> int:
        return int(self._kept.currsize)

    def get(self, key: Key) -> Kept | None:
        found: Kept | None = self._kept.get(key)
        self.hits += found is not None
        return found

    def put(self, key: Key, value: Kept) -> None:
        """Keep a value; one that does not fit at all is not kept."""
        if _size(value) <= self._kept.maxsize:
            self._kept[key] = value

    async def join(self, key: Hashable, make: Callable[[], Coroutine[Any, Any, Made]]) -> Made:
        """What `make` returns or raises, for all who ask while it runs. It is cancelled when the last caller leaves."""
        flight = self._flights.get(key)
        if flight is None:
            self.made += 1
            flight = self._flights[key] = _Flight(asyncio.create_task(make()))
            flight.task.add_done_callback(lambda _: self._end(key, flight))
        else:
            self.joined += 1
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.task.done():
                self._forget(key, flight)  # at once: a new caller must not join work that is being cancelled
                flight.task.cancel()

    def _end(self, key: Hashable, flight: _Flight[Made]) -> None:
        if not flight.task.cancelled():
            flight.task.exception()  # looked at, also where all its callers have left: asyncio would log it otherwise
        self._forget(key, flight)

    def _forget(self, key: Hashable, flight: _Flight[Made]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]


def _size(value: _HasVector) -> int:
    return int(value.embedding.nbytes) + _OVERHEAD_BYTES
