"""Whether the server is alive and ready, and its metrics."""

from __future__ import annotations

from litestar import Response, get
from litestar.di import NamedDependency

from server.http.openapi import contract
from server.http.problems import answered_with
from server.http.wire import Health, Readiness
from server.lifespan import Services, load_of
from server.operations.metrics import CONTENT_TYPE


@get("/health/live", **contract("live", answers={200: ("The process answers.", Health)}, ours=False), tags=["health"])
async def live() -> Health:
    """The process answers."""
    return Health(status="ok")


@get(
    "/health/ready",
    **contract("ready", *answered_with(503), answers={200: ("Ready.", Readiness)}, ours=False),
    tags=["health"],
)
async def ready(services: NamedDependency[Services]) -> Readiness:
    """The goldens passed at the start and the database answers now; otherwise 503."""
    await services.catalogue.ping()
    return Readiness(
        status="ready",
        model=services.encoder.model,
        device=services.encoder.device,
        precision=services.encoder.precision,
        space=services.encoder.space.id,
        text=services.embedder.reads_text,
    )


@get(
    "/metrics",
    media_type="text/plain",
    **contract("metrics", answers={200: ("The metrics.", {"text/plain": str})}, ours=False),
    tags=["health"],
)
async def metrics(services: NamedDependency[Services]) -> Response[bytes]:
    """Counters and timings in Prometheus' text format."""
    services.metrics.observe(load_of(services.embedder))
    return Response(services.metrics.render(), headers={"Content-Type": CONTENT_TYPE})
