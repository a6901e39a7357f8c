"""The ASGI app: routes, middleware, error handlers and lifespan, put together."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from litestar import Litestar
from litestar.datastructures import State
from litestar.di import Provide
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, SwaggerRenderPlugin
from litestar.types import ControllerRouterHandler

from server.http import problems
from server.http.middleware import in_time, observed
from server.http.routes import embeddings, health, media, page, products, search
from server.lifespan import Services, open_services
from server.operations.logs import log_to_stderr
from server.operations.workers import PLACES, Place, belong_to_parent, reporting_refusal, settle, take_place, wanted
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


def create_app(settings: Settings, place: Place = _ALONE) -> Litestar:
    """The server as an ASGI app. Opens nothing yet: its lifespan does. `place`: among several workers."""

    @asynccontextmanager
    async def opened(app: Litestar) -> AsyncIterator[None]:
        async with open_services(settings, place) as services:
            app.state.services = services
            yield

    openapi = OpenAPIConfig(
        title="Twinlens",
        version="1",
        description="Search by image for product catalogues.",
        path="/schema",
        # The browsable page loads its scripts from the network, so the plain document comes first.
        render_plugins=[JsonRenderPlugin(path=["/", "/openapi.json"]), SwaggerRenderPlugin(path="/swagger")],
    )
    return assemble(settings, HANDLERS, opened, openapi)


def assemble(
    settings: Settings,
    handlers: Sequence[ControllerRouterHandler],
    lifespan: Callable[[Litestar], AbstractAsyncContextManager[None]],
    openapi: OpenAPIConfig | None = None,
) -> Litestar:
    """An app of these handlers; `lifespan` puts the Services that they use into its state."""
    return Litestar(
        route_handlers=handlers,
        lifespan=[lifespan],
        dependencies={"services": Provide(_services, sync_to_thread=False)},
        exception_handlers=problems.EXCEPTION_HANDLERS,
        middleware=[observed, in_time(settings.deadline)],
        request_max_body_size=settings.max_upload,
        logging_config=None,
        openapi_config=openapi,
    )


def from_environment() -> Litestar:
    """The app of a worker process: the parent has put every setting into the environment."""
    log_to_stderr()
    belong_to_parent()
    with reporting_refusal():
        settings = Settings.read(os.environ)
        log_to_stderr(settings.redact)
        place = take_place(Path(os.environ[PLACES]), wanted(settings))
        if place.of > 1:
            settle(place)
        return create_app(settings, place)


def _services(state: State) -> Services:
    services: Services = state.services
    return services
