"""create_app(settings): the one place that sees everything."""

from __future__ import annotations

import asyncio
import os
import re
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter

from litestar import Litestar
from litestar.datastructures import MutableScopeHeaders, State
from litestar.di import Provide
from litestar.enums import ScopeType
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, SwaggerRenderPlugin
from litestar.types import ASGIApp, ControllerRouterHandler, Message, Middleware, Receive, Scope, Send

from server import lifespan
from server.errors import DeadlineMissed, TwinlensError
from server.http import problems, timing
from server.http.bodies import deadline_of
from server.http.request import Request
from server.http.routes import embeddings, health, media, page, products, search
from server.lifespan import Services
from server.operations.workers import PLACES, Place, settle, take_place, wanted
from server.settings import Settings

HANDLERS: Sequence[ControllerRouterHandler] = [
    embeddings.embed_image,
    embeddings.embeddings,
    search.search_by_image,
    search.search,
    products.put_product,
    products.get_product,
    products.delete_product,
    media.add_media,
    media.get_media,
    media.delete_media,
    media.get_duplicates,
    media.get_thumbnail,
    health.live,
    health.ready,
    health.metrics,
    page.page,
    page.web,
]

_ALONE = Place()

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


def create_app(settings: Settings, place: Place = _ALONE) -> Litestar:
    """The server as an ASGI app. Opens nothing yet: its lifespan does. `place`: among several workers."""

    @asynccontextmanager
    async def opened(app: Litestar) -> AsyncIterator[None]:
        async with lifespan.open_services(settings, place) as services:
            app.state.services = services
            yield

    return Litestar(
        route_handlers=HANDLERS,
        lifespan=[opened],
        dependencies={"services": Provide(_services, sync_to_thread=False)},
        exception_handlers=problems.EXCEPTION_HANDLERS,
        middleware=[observed, in_time(settings.deadline)],
        request_max_body_size=settings.max_upload,
        logging_config=None,
        openapi_config=OpenAPIConfig(
            title="Twinlens",
            version="1",
            description="Search by image for product catalogues.",
            path="/schema",
            # The browsable form takes its scripts from the network, so the plain document stands in front.
            render_plugins=[JsonRenderPlugin(path=["/", "/openapi.json"]), SwaggerRenderPlugin(path="/swagger")],
        ),
    )


def from_environment() -> Litestar:
    """The app of a worker process: the parent has put every setting into the environment."""
    lifespan.log_to_stderr()
    lifespan.belong_to_parent()
    with lifespan.refusing():
        settings = Settings.read(os.environ)
        place = take_place(Path(os.environ[PLACES]), wanted(settings))
        if place.of > 1:
            settle(place)
        return create_app(settings, place)


def _services(state: State) -> Services:
    services: Services = state.services
    return services


def observed(app: ASGIApp) -> ASGIApp:
    """Give each request an id (the caller's own, if it is a sensible one), and count and time its answer."""

    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await app(scope, receive, send)
            return
        asked = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        request_id = asked.decode() if _REQUEST_ID.fullmatch(asked) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        started = timing.begin(scope)

        def count(status: int) -> None:
            services: Services | None = getattr(scope["litestar_app"].state, "services", None)
            if services is not None:
                # The template, not the path: ids would make a series each.
                route = scope.get("path_template") or "(none)"
                services.metrics.requests.labels(scope["method"], route, status).inc()
                services.metrics.request_seconds.labels(route).observe(perf_counter() - started)

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableScopeHeaders(message)
                headers[problems.REQUEST_ID_HEADER] = request_id
                if told := timing.header(scope):
                    headers["Server-Timing"] = told
                count(message["status"])
            await send(message)

        try:
            await app(scope, receive, counted)
        except TwinlensError as exc:  # from a middleware below: it is answered beyond this one
            count(problems.status_of(exc))
            raise

    return middleware


def in_time(most: float) -> Middleware:
    """Answer each request within its deadline, wherever its time goes: a slow sender, the store, the database."""

    def create(app: ASGIApp) -> ASGIApp:
        async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                async with asyncio.timeout(deadline_of(Request(scope), most)):
                    await app(scope, receive, send)
            except TimeoutError as exc:
                raise DeadlineMissed from exc

        return middleware

    return create
