"""What a server has in hand at a moment, as plain figures for the metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from server.operations.disks import Room


@dataclass(frozen=True, slots=True)
class Vectors:
    """Vectors of one tower since the start, by how they were obtained; and the memory of the cache, in bytes.

    `kept`: found in the cache; `joined`: being made for another caller already; `made`: computed.
    """

    kept: int
    joined: int
    made: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Queue:
    """What waits before a stage, in one lane: how many, and for how many seconds the oldest has waited."""

    stage: str
    tower: str
    lane: str
    depth: int
    age: float


@dataclass(frozen=True, slots=True)
class Connections:
    """A pool of connections: how many are lent and how many rest, how many callers wait; and since the start, the
    seconds that callers have waited, and how many were refused."""

    lent: int
    resting: int
    waiting: int
    waited: float
    refused: int


@dataclass(frozen=True, slots=True)
class Load:
    """The load at this moment: pictures and texts that were admitted and are not answered yet; vectors by tower."""

    pictures: int
    texts: int
    vectors: Mapping[str, Vectors]
    tasks: int = 0
    """Of the event loop."""
    queues: tuple[Queue, ...] = ()
    runs: Mapping[str, float] = field(default_factory=dict)
    """By tower, seconds since the oldest run began that has not ended; 0 while none runs."""
    pools: Mapping[str, Connections] = field(default_factory=dict)
    disks: Mapping[str, Room] = field(default_factory=dict)
    checks: Mapping[str, bool] = field(default_factory=dict)
    """Whether each of the things that readiness asks for is as it should be."""
