"""What the server counts and times, in Prometheus' text format. One registry for each app, none global.

Several workers keep their figures in files of one folder, and whichever of them is asked adds them up.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from server.operations.gauges import Gauges, Merged
from server.operations.load import Load
from server.operations.restarts import RestartsCollector

SHARED = "PROMETHEUS_MULTIPROC_DIR"
"""The variable that names that folder; prometheus_client reads it when it is imported."""

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_STAGE_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """Counters, gauges and histograms for the rest of the server; `render` gives them to a scraper."""

    def __init__(self, shared: Path | None = None, places: Path | None = None) -> None:
        """`shared`: the folder in which several workers keep their figures; `places`: that in which their parent
        counts what it starts again."""
        self._shared = shared
        self._places = places
        self.registry = CollectorRegistry()
        if shared is None:
            self._of_this_process(self.registry)
        self._requests = Counter(
            "twinlens_requests",
            "Requests answered; code: why one was refused.",
            ["method", "route", "status", "code"],
            registry=self.registry,
        )
        self._request_seconds = Histogram(
            "twinlens_request_seconds",
            "Time to answer.",
            ["route", "status_class"],
            buckets=_STAGE_SECONDS,
            registry=self.registry,
        )
        self.stage_seconds = Histogram(
            "twinlens_stage_seconds",
            "Time of one picture or text in each stage: fetch, decode or tokenize, queue, encode, search.",
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
        self._rejected = Counter(
            "twinlens_decode_failures",
            "Pictures that could not be decoded, by format and why.",
            ["format", "code"],
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
        for kind in ("read", "write", "delete", "missing"):
            self._store_failures.labels(kind)  # at 0, so that the first failure is seen as a rise
        self._fetches = Counter(
            "twinlens_fetches",
            "Pictures that were to be fetched by URL: fetched, not_modified, left, or why not.",
            ["result"],
            registry=self.registry,
        )
        for result in ("fetched", "url_refused", "fetch_failed"):
            self._fetches.labels(result)
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
        self._build = self._gauge(
            "twinlens_build_info",
            "Always 1; its labels say what runs.",
            *("version", "model", "space", "precision", "device"),
            merged="livemax",
        )
        # Of the whole database, from the one worker that counts.
        self._catalogue = self._gauge(
            "twinlens_catalogue_size", "What the database holds, of all clients.", "what", merged="livemostrecent"
        )
        self._without_vector = self._gauge(
            "twinlens_media_without_vector",
            "Pictures of the catalogue that searches cannot find, since they have no vector in this server's space.",
            *("space", "why"),
            merged="livemostrecent",
        )
        self._overdue = self._gauge(
            "twinlens_pending_overdue_seconds",
            "How long the picture has been due that has waited for a worker longest; 0 while none waits.",
            merged="livemostrecent",
        )
        self._counted_at = self._gauge(
            "twinlens_catalogue_counted_timestamp_seconds",
            "When that was last counted.",
            "space",
            merged="livemostrecent",
        )
        self._indexes = self._gauge(
            "twinlens_indexes", "Large clients' indexes in this server's space.", "state", merged="livemostrecent"
        )
        self._gauges = Gauges(self.registry)

    def answered(self, method: str, route: str, status: int, code: str, seconds: float) -> None:
        """A request was answered; `code`: of its error, empty where it has none. `seconds`: until its first bytes."""
        self._requests.labels(method, route, status, code).inc()
        self._request_seconds.labels(route, f"{status // 100}xx").observe(seconds)

    def serves(self, *, version: str, model: str, space: str, precision: str, device: str) -> None:
        """What this process runs."""
        self._build.labels(version, model, space, precision, device).set(1)

    def rejected(self, form: str, code: str) -> None:
        """A picture of this format could not be decoded."""
        self._rejected.labels(form, code).inc()

    def counted(self, space: str, sizes: Mapping[str, int], without_vector: Mapping[str, int], overdue: float) -> None:
        """The catalogue was counted: what it holds, by why they have none its pictures without a vector, and for how
        many seconds the oldest pending one has been due."""
        for what, count in sizes.items():
            self._catalogue.labels(what).set(count)
        for why, count in without_vector.items():
            self._without_vector.labels(space, why).set(count)
        self._overdue.set(overdue)
        self._counted_at.labels(space).set(time.time())

    def indexes_seen(self, states: Mapping[str, int]) -> None:
        for state, count in states.items():
            self._indexes.labels(state).set(count)

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

    def fetched(self, result: str, seconds: float) -> None:
        """A picture was fetched by URL, or not; `result`: what came of it."""
        self._fetches.labels(result).inc()
        if result == "fetched":
            self.stage_seconds.labels("fetch", "").observe(seconds)

    def swept(self, objects: int) -> None:
        self._swept.inc(objects)

    def reread(self, same: int, corrected: int, failed: int) -> None:
        """Media were looked at again: so many were read right, were corrected, could not be read."""
        for result, media in (("same", same), ("corrected", corrected), ("failed", failed)):
            self._reread.labels(result).inc(media)

    def batched(self, tower: str, size: int) -> None:
        self.batch_size.labels(tower).observe(size)

    def observe(self, load: Load) -> None:
        """Bring gauges and counters up to date with what others count themselves."""
        self._gauges.observe(load)

    def render(self) -> bytes:
        """Everything, of all workers."""
        if self._shared is None:
            return generate_latest(self.registry)
        self._forget_dead_workers()
        registry = CollectorRegistry()
        MultiProcessCollector(registry, path=str(self._shared))  # type: ignore[no-untyped-call]
        return generate_latest(registry) + generate_latest(self._of_this_process(CollectorRegistry()))

    def _of_this_process(self, registry: CollectorRegistry) -> CollectorRegistry:
        """What workers do not add up: the process of the one that was asked, and what their parent counts."""
        ProcessCollector(registry=registry)
        registry.register(RestartsCollector(self._places))
        return registry

    def _gauge(self, name: str, about: str, *labels: str, merged: Merged = "livesum") -> Gauge:
        return Gauge(name, about, labels, registry=self.registry, multiprocess_mode=merged)

    def _forget_dead_workers(self) -> None:
        """Remove the gauges of workers that died: what they had admitted is gone."""
        for file in (self._shared or Path()).glob("gauge_live*_*.db"):
            found = re.search(r"_([0-9]+)\.db$", file.name)
            if found and not Path(f"/proc/{found[1]}").exists():
                mark_process_dead(int(found[1]), path=os.fspath(file.parent))  # type: ignore[no-untyped-call]
