"""python -m bench.gpu.app: the product's /embed-image without a catalogue, so that no database is needed.

It takes the flags of `python -m server`, and what those do not say from WORKER_VARIABLE, as JSON. Each worker has the
cores and the GPU that the product would give it, and the product's own encoder, batcher, embedder and route.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import fields
from pathlib import Path

import msgspec
from granian.constants import HTTPModes, Interfaces
from granian.log import LogLevels
from granian.server import Server
from litestar import Litestar, get

from bench.gpu.embedding import open_embedder
from bench.gpu.setting import WORKER_VARIABLE, WorkerSetting
from bench.gpu.tower import tower
from server.app import assemble
from server.artifact.artifact import Artifact
from server.commands.flags import add_flags, flags_of
from server.http.routes.embeddings import embed_image
from server.inference import gpus
from server.inference.encoder import Serving
from server.lifespan import Services
from server.operations.address import held
from server.operations.logs import log_to_stderr
from server.operations.metrics import Metrics
from server.operations.workers import settle, take_place
from server.settings import Settings

READY = "bench worker is ready"
"""What each worker logs when it is."""

_FLAGS = "TWINLENS_TEST_FLAGS"

_log = logging.getLogger(__name__)


def main() -> int:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser("python -m bench.gpu.app", description=(__doc__ or "").split("\n\n")[0])
    add_flags(parser)
    flags = flags_of(parser.parse_args())
    settings = Settings.read(os.environ, flags)
    settings.data.mkdir(parents=True, exist_ok=True)
    os.environ[_FLAGS] = json.dumps(flags)
    multiprocessing.set_start_method("spawn", force=True)
    with held(settings.host, settings.port) as address:
        Server(
            "bench.gpu.app:from_environment",
            factory=True,
            address=address.host,
            port=address.port,
            interface=Interfaces.ASGI,
            http=HTTPModes.http1,
            websockets=False,
            workers=_given().workers,
            workers_kill_timeout=10,
            log_level=LogLevels.warning,
        ).serve()
    return 0


def from_environment() -> Litestar:
    """The app of a worker process."""
    log_to_stderr()
    return create(Settings.read(os.environ, json.loads(os.environ[_FLAGS])), _given())


def _given() -> WorkerSetting:
    return msgspec.json.decode(os.environ[WORKER_VARIABLE], type=WorkerSetting)


def create(settings: Settings, given: WorkerSetting) -> Litestar:
    """The app. Opens nothing yet: its lifespan does."""

    @asynccontextmanager
    async def opened(app: Litestar) -> AsyncIterator[None]:
        artifact = Artifact.read(settings.model)
        place = take_place(settings.data, given.workers)
        if given.workers > 1:
            settle(place)
        count = gpus.present() if settings.device == "cuda" else 0
        serving = Serving(
            gpu=gpus.gpu_of(place.number, count) if count > 1 else given.gpu,
            most=given.most,
            cache=Path(given.cache),
            tensorrt=given.tensorrt,
        )
        with tower(artifact, settings.precision, settings.device, serving) as encoder:
            async with open_embedder(encoder, settings.max_pixels) as embedder:
                known = {"settings": settings, "encoder": encoder, "embedder": embedder, "metrics": Metrics()}
                # There is no catalogue, and nothing that belongs to one.
                app.state.services = Services(**{one.name: known.get(one.name) for one in fields(Services)})  # type: ignore[arg-type]
                _log.info(READY)
                yield

    return assemble(settings, [embed_image, ready], opened)


@get("/health/ready")
async def ready() -> str:
    """A worker is ready when it listens at all."""
    return "ready"


if __name__ == "__main__":
    sys.exit(main())
