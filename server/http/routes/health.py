"""Whether the server is alive and ready, and its metrics."""

from __future__ import annotations

from litestar import Response, get
from litestar.di import NamedDependency

from server.http.openapi import contract
from server.http.problems import answered_with
from server.http.request import MOST_SECONDS
from server.http.wire import Health, Readiness
from server.lifespan import Services, load_of
from server.operations.metrics import CONTENT_TYPE
from server.preprocessing import media


@get("/health/live", **contract("live", answers={200: ("The process answers.", Health)}, ours=False), tags=["health"])
async def live() -> Health:
    """The process answers."""
    return Health(status="ok")


# Those who ask for a server's health give up soon. The whole answer has the first of these, of which waiting for a
# connection to the database may take the second.
_ANSWERED_WITHIN_SECONDS = 2.0
_CONNECTED_WITHIN_SECONDS = 1.5


@get(
    "/health/ready",
    **contract("ready", *answered_with(503), answers={200: ("Ready.", Readiness)}, ours=False),
    tags=["health"],
    opt={MOST_SECONDS: _ANSWERED_WITHIN_SECONDS},
)
async def ready(services: NamedDependency[Services]) -> Readiness:
    """The goldens passed at the start, the database answers now, and the store of pictures is there; otherwise 503."""
    services.store.require()
    await services.catalogue.ping(_CONNECTED_WITHIN_SECONDS)
    return Readiness(
        status="ready",
        model=services.encoder.model,
        device=services.encoder.device,
        precision=services.encoder.precision,
        space=services.encoder.space.id,
        text=services.embedder.reads_text,
        reads=media.reads(),
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
