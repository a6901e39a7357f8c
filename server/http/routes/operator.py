"""The operator's page, and what it shows beside the metrics."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from litestar import MediaType, Response, get
from litestar.di import NamedDependency

from server import __version__
from server.errors import CatalogueUnavailable, NotFound
from server.http.openapi import contract
from server.http.operator_wire import OperatorOverview, ServerFacts
from server.http.request import Request
from server.http.routes.page import WEB, shown
from server.http.security import document_with_styles, page_with_styles
from server.http.wire import Checks
from server.lifespan import Services

REPORT = "report.html"
"""What the export measured of a model, as a page: a file of its artifact."""

_STYLE = re.compile(rb"<style>(.*?)</style>", re.DOTALL)


@get(
    "/v1/operator",
    **contract(
        "operator",
        CatalogueUnavailable,
        answers={200: ("How the server and its catalogue stand.", OperatorOverview)},
        client=False,
    ),
    tags=["health"],
)
async def overview(services: NamedDependency[Services]) -> OperatorOverview:
    """How the server and its catalogue stand: clients and sizes, spaces and a re-embedding, indexes, disks.

    For the page `/operator`, which shows it beside the metrics. Nothing is counted for it: sizes are those of the last
    count, which is made once a minute or less often, and all else is some seconds old at most.
    """
    seen = await services.overview.look()
    encoder, running = services.encoder, services.running
    report = await asyncio.to_thread(_report_of, encoder.artifact.folder)
    server = ServerFacts(
        version=__version__,
        model=encoder.model,
        space=encoder.space.id,
        dimensions=encoder.space.dimensions,
        precision=encoder.precision,
        device=encoder.device,
        text=services.embedder.reads_text,
        workers=running.workers,
        started_at=datetime.fromtimestamp(running.started, UTC),
        uptime_seconds=round(time.time() - running.started, 1),
        report=report is not None,
    )
    return OperatorOverview.of(server, Checks.of(services.health.known()), seen, services.health.load().disks)


@get("/operator", include_in_schema=False)
async def page(request: Request, services: NamedDependency[Services]) -> Response[bytes]:
    """The operator's page. It has no data in it, and asks for a key where one is needed."""
    # Its relative addresses would be wrong there; the path itself has been brought to one form already.
    if (request.scope["raw_path"] or b"").partition(b"?")[0].endswith(b"/"):
        return Response(b"", status_code=307, headers={"Location": "../operator"})
    found = await asyncio.to_thread(_report_of, services.encoder.artifact.folder)
    # With a key, the page has the report as a document that its own policy holds for.
    security = page_with_styles(found.styles if found is not None else ())
    return shown(request, services, (WEB / "operator.html").read_bytes(), security)


@get("/operator/report", include_in_schema=False)
async def report(services: NamedDependency[Services]) -> Response[bytes]:
    """What the export measured of the model that is served. Raises NotFound where its artifact has no report."""
    found = await asyncio.to_thread(_report_of, services.encoder.artifact.folder)
    if found is None:
        raise NotFound("The model that is served came without a report of its export.")
    headers = {**document_with_styles(found.styles), "Cache-Control": "no-cache"}
    return Response(found.html, media_type=MediaType.HTML, headers=headers)


@dataclass(frozen=True, slots=True)
class _Report:
    html: bytes
    styles: Sequence[str]
    """The hashes of the styles that are written into it, as a policy names them."""


@cache
def _report_of(artifact: Path) -> _Report | None:
    """The report of an artifact, which does not change while it is served."""
    try:
        html = (artifact / REPORT).read_bytes()
    except OSError:
        return None
    digests = (hashlib.sha256(style).digest() for style in _STYLE.findall(html))
    return _Report(html, [f"sha256-{base64.b64encode(one).decode()}" for one in digests])
