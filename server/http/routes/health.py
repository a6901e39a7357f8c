"""Whether the server is alive and ready, and its metrics."""

from __future__ import annotations

from litestar import Response, get
from litestar.di import NamedDependency

from server.errors import Unready
from server.http.openapi import contract
from server.http.problems import answered_with
from server.http.request import MOST_SECONDS
from server.http.wire import Checks, Health, NotReadyProblem, Readiness
from server.lifespan import Services
from server.operations.metrics import CONTENT_TYPE
from server.preprocessing import media


@get("/health/live", **contract("live", answers={200: ("The process answers.", Health)}, ours=False), tags=["health"])
async def live() -> Health:
    """The process answers."""
    return Health(status="ok")


_ANSWERED_WITHIN_SECONDS = 2.0
"""Those who ask for a server's health give up soon."""


@get(
    "/health/ready",
    **contract(
        "ready", *answered_with(503), answers={200: ("Ready.", Readiness)}, refused={503: NotReadyProblem}, ours=False
    ),
    tags=["health"],
    opt={MOST_SECONDS: _ANSWERED_WITHIN_SECONDS},
)
async def ready(services: NamedDependency[Services]) -> Readiness:
    """Whether the server can do all of its work: 503, and what is wrong, where it cannot.

    The goldens passed at the start, the model answers, the database answers now, the store of pictures is there, and
    the disks have room.
    """
    checks = await services.health.checked()
    if any(checks.values()):
        raise Unready(checks)
    return Readiness(
        status="ready",
        model=services.encoder.model,
        device=services.encoder.device,
        precision=services.encoder.precision,
        space=services.encoder.space.id,
        text=services.embedder.reads_text,
        reads=media.reads(),
        checks=Checks.of(checks),
    )


@get(
    "/metrics",
    media_type="text/plain",
    **contract("metrics", answers={200: ("The metrics.", {"text/plain": str})}, ours=False),
    tags=["health"],
)
async def metrics(services: NamedDependency[Services]) -> Response[bytes]:
    """Counters and timings in Prometheus' text format."""
    services.metrics.observe(services.health.load())
    return Response(services.metrics.render(), headers={"Content-Type": CONTENT_TYPE})
