"""Metrics of what a server has in hand: brought up to date when they are asked for, and each second among workers."""

from __future__ import annotations

import math
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge

from server.operations.load import Connections, Load, Queue, Vectors

Merged = Literal["livesum", "livemax", "livemin", "livemostrecent"]
"""How the figures of several workers become one. Those of dead workers are left out."""


class Gauges:
    """The figures of a `Load` as metrics."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, about: str, *labels: str, merged: Merged = "livesum") -> Gauge:
            return Gauge(name, about, labels, registry=registry, multiprocess_mode=merged)

        def counter(name: str, about: str, *labels: str) -> _Counted:
            return _Counted(Counter(name, about, labels, registry=registry))

        self._pictures = gauge("twinlens_pictures_inside", "Pictures admitted and not answered yet.")
        self._texts = gauge("twinlens_texts_inside", "Texts admitted and not answered yet.")
        self._tasks = gauge("twinlens_tasks", "Tasks of the event loop, those of requests among them.")
        self._cache_bytes = gauge("twinlens_cache_bytes", "Bytes of the vectors that are kept.", "tower")
        self._cached = counter("twinlens_cache", "Pictures and texts by how they were obtained.", "tower", "found")
        queue = ("stage", "tower", "lane")
        self._depth = gauge("twinlens_queue_depth", "Pictures or texts that wait before a stage.", *queue)
        self._age = gauge(
            "twinlens_queue_age_seconds", "How long the oldest of them has waited.", *queue, merged="livemax"
        )
        self._run = gauge(
            "twinlens_run_age_seconds", "How long the model's oldest run has lasted; 0 while it rests.", "tower",
            merged="livemax",
        )  # fmt: skip
        self._connections = gauge("twinlens_pool_connections", "Connections to the database.", "pool", "state")
        self._waiting = gauge("twinlens_pool_waiting", "Callers that wait for a connection.", "pool")
        self._waited = counter("twinlens_pool_wait_seconds", "Time that callers have waited for connections.", "pool")
        self._refused = counter(
            "twinlens_pool_refused", "Callers that got no connection in time, or were too many.", "pool"
        )
        self._free = gauge(
            "twinlens_disk_free_bytes", "Room that is left on the disk of a folder.", "folder", merged="livemin"
        )
        self._size = gauge("twinlens_disk_size_bytes", "All room on that disk.", "folder", merged="livemax")
        self._folders: set[str] = set()
        self._failed = gauge(
            "twinlens_check_failed", "1 where readiness finds something wrong, else 0.", "check", merged="livemax"
        )

    def observe(self, load: Load) -> None:
        """Bring all of them up to date."""
        self._pictures.set(load.pictures)
        self._texts.set(load.texts)
        self._tasks.set(load.tasks)
        for tower, known in load.vectors.items():
            self._observe_cache(tower, known)
        for queue in load.queues:
            self._observe_queue(queue)
        for tower, seconds in load.runs.items():
            self._run.labels(tower).set(seconds)
        for pool, connections in load.pools.items():
            self._observe_pool(pool, connections)
        for check, good in load.checks.items():
            self._failed.labels(check).set(not good)
        self._folders |= load.disks.keys()
        for folder in self._folders:
            room = load.disks.get(folder)
            # What is not there now has no size; among workers a figure cannot be taken back.
            self._free.labels(folder).set(math.nan if room is None else room.free)
            self._size.labels(folder).set(math.nan if room is None else room.size)

    def _observe_cache(self, tower: str, known: Vectors) -> None:
        self._cache_bytes.labels(tower).set(known.bytes)
        for found, count in (("kept", known.kept), ("joined", known.joined), ("made", known.made)):
            self._cached.now(count, tower, found)

    def _observe_queue(self, queue: Queue) -> None:
        labels = (queue.stage, queue.tower, queue.lane)
        self._depth.labels(*labels).set(queue.depth)
        self._age.labels(*labels).set(queue.age)

    def _observe_pool(self, pool: str, connections: Connections) -> None:
        self._connections.labels(pool, "lent").set(connections.lent)
        self._connections.labels(pool, "resting").set(connections.resting)
        self._waiting.labels(pool).set(connections.waiting)
        self._waited.now(connections.waited, pool)
        self._refused.now(connections.refused, pool)


class _Counted:
    """A counter of what somebody else counts."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._seen: dict[tuple[str, ...], float] = {}

    def now(self, count: float, *labels: str) -> None:
        """It has been counted so far since the start."""
        self._counter.labels(*labels).inc(max(0.0, count - self._seen.get(labels, 0.0)))
        self._seen[labels] = count
