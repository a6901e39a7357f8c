"""The ASGI app: routes, middleware, error handlers and lifespan, put together."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from litestar import Litestar
from litestar.datastructures import State
from litestar.di import Provide
from litestar.types import ASGIApp, ControllerRouterHandler, Middleware

from server.http import problems
from server.http.access_log import logged
from server.http.auditing import audited
from server.http.authorising import authorised
from server.http.bodies import BODY_LIMITS, BodyLimits
from server.http.caching import kept_apart
from server.http.cors import cross_origin, named_origins
from server.http.draining import draining
from server.http.guard import guard
from server.http.limiting import limited
from server.http.memory import BodyMemory, within_memory
from server.http.methods import heads
from server.http.middleware import in_time, observed
from server.http.overdue import Overdue
from server.http.paths import by_raw_path, with_ids
from server.http.routes import (
    attributes,
    embeddings,
    health,
    media,
    media_placing,
    operator,
    page,
    product_batch,
    product_lists,
    products,
    schema,
    search,
)
from server.http.security import secured
from server.http.shedding import shedding
from server.lifespan import Services, open_services
from server.operations.bare_output import hear_prints
from server.operations.logs import log_the_unforeseen, log_to_stderr
from server.operations.workers import PLACES, Place, belong_to_parent, reporting_refusal, settle, take_place, wanted
from server.settings import Settings, log_form

HANDLERS: Sequence[ControllerRouterHandler] = [
    embeddings.embed_image,
    embeddings.embeddings,
    search.search_by_image,
    search.search,
    product_lists.list_products,
    products.put_product,
    products.patch_product,
    products.get_product,
    products.delete_product,
    product_lists.list_media,
    product_batch.batch_products,
    attributes.get_attributes,
    attributes.put_attributes,
    media.add_media,
    media_placing.put_media,
    media_placing.patch_media,
    media.get_media,
    media.delete_media,
    media.get_duplicates,
    media.get_regions,
    media.get_thumbnail,
    media.get_file,
    health.live,
    health.ready,
    health.metrics,
    operator.overview,
    operator.page,
    operator.report,
    page.page,
    page.web,
    page.swagger_file,
    schema.openapi,
    schema.swagger,
]

_ALONE = Place()

_log = logging.getLogger(__name__)

# So much is read of a body after its answer, also where bodies must be small.
_DRAINED_BYTES = 64_000_000


def create_app(settings: Settings, place: Place = _ALONE) -> Litestar:
    """The server as an ASGI app. Opens nothing yet: its lifespan does. `place`: among several workers."""

    @asynccontextmanager
    async def opened(app: Litestar) -> AsyncIterator[None]:
        async with open_services(settings, place) as services:
            app.state.services = services
            yield

    return assemble(
        settings,
        HANDLERS,
        opened,
        workers=place.of,
        guarded=guard(settings, named_origins(settings)),
        door=[kept_apart, authorised, limited],
    )


def assemble(
    settings: Settings,
    handlers: Sequence[ControllerRouterHandler],
    lifespan: Callable[[Litestar], AbstractAsyncContextManager[None]],
    *,
    workers: int = 1,
    guarded: Callable[[ASGIApp], ASGIApp] = lambda app: app,
    door: Sequence[Middleware] = (),
) -> Litestar:
    """An app of these handlers; `lifespan` puts the Services that they use into its state.

    `workers`: how many of its kind share the memory for bodies. `guarded` and `door` ask the services' keyring:
    `guarded` goes around the routes, and `door` around each handler; it decides who may call, before anything of a body
    is read.
    """
    memory = BodyMemory(settings.memory_of_bodies // workers, settings.max_upload)
    overdue = Overdue()

    @asynccontextmanager
    async def handled(_: Litestar) -> AsyncIterator[None]:
        yield
        await overdue.close()  # before what the handlers use is closed

    app = Litestar(
        route_handlers=handlers,
        state=State({BODY_LIMITS: BodyLimits(settings.max_parts, settings.max_json)}),
        lifespan=[lifespan, handled],
        dependencies={"services": Provide(_services, sync_to_thread=False)},
        exception_handlers=problems.EXCEPTION_HANDLERS,
        # The outer one first. A handler keeps its room for as long as it runs, also beyond its deadline.
        middleware=[with_ids, in_time(settings.deadline, overdue), *door, within_memory(memory)],
        request_max_body_size=settings.max_upload,
        logging_config=None,
        openapi_config=None,  # Litestar's own description; ours is at /schema
    )
    # Litestar's own middleware runs only where a route matches. These go around all of it, the outer one first.
    answered = secured(cross_origin(shedding(heads(guarded(app.asgi_handler))), settings))
    answered = logged(audited(answered), each=settings.access_log)
    app.asgi_handler = by_raw_path(draining(observed(answered), most=_most_drained(settings)))
    return app


def _most_drained(settings: Settings) -> int:
    """Bytes of a body after its answer: also of one that is too large, unless by far."""
    return max(4 * settings.max_upload, _DRAINED_BYTES)


def from_environment() -> Litestar:
    """The app of a worker process: the parent has put every setting into the environment."""
    hear_prints()
    form = log_form(os.environ)
    log_to_stderr(form=form, process="worker")
    log_the_unforeseen()
    belong_to_parent()
    try:
        with reporting_refusal():
            settings = Settings.read(os.environ)
            log_to_stderr(settings.printable, form, process="worker")
            place = take_place(Path(os.environ[PLACES]), wanted(settings))
            log_to_stderr(settings.printable, form, process=f"worker {place.number + 1}")
            if place.of > 1:
                settle(place)
            return create_app(settings, place)
    except Exception:
        # Raised further, it would be a page of traceback beside the log.
        _log.critical("The worker cannot start, because of an error that nobody expected.", exc_info=True)
        sys.exit(1)


def _services(state: State) -> Services:
    services: Services = state.services
    return services
