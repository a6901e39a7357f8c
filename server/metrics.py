"""What the server counts and times, in Prometheus' text format. One registry for each app, none global."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from server.embedder import Timings, Tower

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_STAGE_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """Handles for those who measure; `render` for those who scrape."""

    def __init__(self) -> None:
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
        self.pictures_inside = Gauge(
            "twinlens_pictures_inside", "Pictures let in and not answered yet.", registry=self.registry
        )
        self.texts_inside = Gauge("twinlens_texts_inside", "Texts let in and not answered yet.", registry=self.registry)

    def embedded(self, tower: Tower, timings: Timings) -> None:
        for stage, seconds in timings.items():
            self.stage_seconds.labels(stage, tower).observe(seconds)

    def searched(self, seconds: float) -> None:
        # A search belongs to no tower: it may come with a vector of its own.
        self.stage_seconds.labels("search", "").observe(seconds)

    def batched(self, tower: Tower, size: int) -> None:
        self.batch_size.labels(tower).observe(size)

    def render(self) -> bytes:
        return generate_latest(self.registry)
