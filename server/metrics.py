"""What the server counts and times, in Prometheus' text format. One registry for each app, none global."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from server.embedder import Timings

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
            "Time of one picture in each stage: decode, queue, encode, search.",
            ["stage"],
            buckets=_STAGE_SECONDS,
            registry=self.registry,
        )
        self.batch_size = Histogram(
            "twinlens_batch_size", "Pictures in a batch.", buckets=(1, 2, 4, 8, 16, 32), registry=self.registry
        )
        self.inside = Gauge("twinlens_pictures_inside", "Pictures let in and not answered yet.", registry=self.registry)

    def picture(self, timings: Timings) -> None:
        self.stage_seconds.labels("decode").observe(timings.decode)
        self.stage_seconds.labels("queue").observe(timings.queue)
        self.stage_seconds.labels("encode").observe(timings.encode)

    def render(self) -> bytes:
        return generate_latest(self.registry)
