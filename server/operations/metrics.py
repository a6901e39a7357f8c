"""What the server counts and times, in Prometheus' text format. One registry for each app, none global.

Several workers keep their figures in files of one folder, and whichever of them is asked adds them up.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

SHARED = "PROMETHEUS_MULTIPROC_DIR"
"""The variable that names that folder; prometheus_client reads it when it is imported."""

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_STAGE_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


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
class Load:
    """The load at this moment: pictures and texts that were admitted and are not answered yet; tasks of the event loop;
    vectors by tower."""

    pictures: int
    texts: int
    tasks: int
    vectors: Mapping[str, Vectors]


class Metrics:
    """Counters, gauges and histograms for the rest of the server; `render` gives them to a scraper."""

    def __init__(self, shared: Path | None = None) -> None:
        """`shared`: the folder in which several workers keep their figures."""
        self._shared = shared
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "twinlens_requests", "Requests answered.", ["method", "route", "status"], registry=self.registry
        )
        self.request_seconds = Histogram(
            "twinlens_request_seconds", "Time to answer.", ["route"], buckets=_STAGE_SECONDS, registry=self.registry
        )
        self.stage_seconds = Histogram(
            "twinlens_stage_seconds",
            "Time of one picture or text in each stage: decode or tokenize, queue, encode, search.",
            ["stage", "tower"],
            buckets=_STAGE_SECONDS,
            registry=self.registry,
        )
        self.batch_size = Histogram(
            "twinlens_batch_size",
            "Pictures or texts in a batch.",
            ["tower"],
            buckets=(1, 2, 4, 8, 16, 32),
            registry=self.registry,
        )
        self._pictures_inside = self._gauge("twinlens_pictures_inside", "Pictures admitted and not answered yet.")
        self._texts_inside = self._gauge("twinlens_texts_inside", "Texts admitted and not answered yet.")
        self._tasks = self._gauge("twinlens_tasks", "Tasks of the event loop, those of requests among them.")
        self._cache_bytes = self._gauge("twinlens_cache_bytes", "Bytes of the vectors that are kept.", "tower")
        self._cached = Counter(
            "twinlens_cache",
            "Pictures and texts by how they were obtained.",
            ["tower", "found"],
            registry=self.registry,
        )
        self._plans = Counter(
            "twinlens_searches", "Searches by how they were answered.", ["plan"], registry=self.registry
        )
        self._recall = Histogram(
            "twinlens_recall",
            "Share of an exact search's matches that an index found, for searches drawn at random.",
            buckets=(0.5, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99, 0.999, 1),
            registry=self.registry,
        )
        self._store_failures = Counter(
            "twinlens_store_failures",
            "What the store of pictures could not do; missing: an object that a row promises is not there.",
            ["kind"],
            registry=self.registry,
        )
        self._swept = Counter(
            "twinlens_swept_objects",
            "Objects removed from the store because no row promises them.",
            registry=self.registry,
        )
        self._reread = Counter(
            "twinlens_reread_media",
            "Media looked at again because an earlier version had read them, by what came of it.",
            ["result"],
            registry=self.registry,
        )
        self._search_reads = Counter(
            "twinlens_search_reads",
            "Reads of searches, where there is a read replica, by where and why they were answered there.",
            ["server", "why"],
            registry=self.registry,
        )
        self._replica_wait = Histogram(
            "twinlens_replica_wait_seconds",
            "Time before a read could begin on the read replica.",
            buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
            registry=self.registry,
        )
        self._replica_used = self._gauge("twinlens_replica_used", "Workers that send searches to the read replica.")
        self._observed: dict[tuple[str, str], int] = {}

    def embedded(self, tower: str, timings: Mapping[str, float]) -> None:
        for stage, seconds in timings.items():
            self.stage_seconds.labels(stage, tower).observe(seconds)

    def searched(self, seconds: float, plan: str) -> None:
        # A search belongs to no tower: it may come with a vector of its own.
        self.stage_seconds.labels("search", "").observe(seconds)
        self._plans.labels(plan).inc()

    def read_of_search(self, answered: str, waited: float) -> None:
        """A read of a search: `answered` is "replica", or why the primary did; `waited`, in seconds, until it began."""
        if answered == "replica":
            self._search_reads.labels("replica", "").inc()
            self._replica_wait.observe(waited)
        else:
            self._search_reads.labels("primary", answered).inc()

    def replica_used(self, used: bool) -> None:
        self._replica_used.set(used)

    def compared(self, recall: float) -> None:
        """A search was answered by an index and then exactly; `recall` is the share that the index found, 0 to 1."""
        self._recall.observe(recall)

    def store_failed(self, kind: str) -> None:
        self._store_failures.labels(kind).inc()

    def swept(self, objects: int) -> None:
        self._swept.inc(objects)

    def reread(self, same: int, corrected: int, failed: int) -> None:
        """Media were looked at again: so many were read right, were corrected, could not be read."""
        for result, media in (("same", same), ("corrected", corrected), ("failed", failed)):
            self._reread.labels(result).inc(media)

    def batched(self, tower: str, size: int) -> None:
        self.batch_size.labels(tower).observe(size)

    def observe(self, load: Load) -> None:
        """Bring gauges and counters up to date with what the embedder counts itself."""
        self._pictures_inside.set(load.pictures)
        self._texts_inside.set(load.texts)
        self._tasks.set(load.tasks)
        for tower, known in load.vectors.items():
            self._cache_bytes.labels(tower).set(known.bytes)
            for found, count in (("kept", known.kept), ("joined", known.joined), ("made", known.made)):
                self._cached.labels(tower, found).inc(count - self._observed.get((tower, found), 0))
                self._observed[tower, found] = count

    def render(self) -> bytes:
        """Everything, of all workers."""
        if self._shared is None:
            return generate_latest(self.registry)
        self._forget_dead_workers()
        registry = CollectorRegistry()
        MultiProcessCollector(registry, path=str(self._shared))  # type: ignore[no-untyped-call]
        return generate_latest(registry) + generate_latest(self._own())

    def _own(self) -> CollectorRegistry:
        """What is reported only of the worker that was asked: its process."""
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        return registry

    def _gauge(self, name: str, about: str, *labels: str) -> Gauge:
        return Gauge(name, about, labels, registry=self.registry, multiprocess_mode="livesum")

    def _forget_dead_workers(self) -> None:
        """Remove the gauges of workers that died: what they had admitted is gone."""
        for file in (self._shared or Path()).glob("gauge_live*_*.db"):
            found = re.search(r"_([0-9]+)\.db$", file.name)
            if found and not Path(f"/proc/{found[1]}").exists():
                mark_process_dead(int(found[1]), path=os.fspath(file.parent))  # type: ignore[no-untyped-call]
