"""What a server has in hand, and whether all that it needs is as it should be: for the metrics, and for readiness."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from server.batching.embedder import Embedder
from server.batching.pulse import Pulse
from server.catalogue.catalogue import Catalogue
from server.database.cancelling import end
from server.database.pool import Pool
from server.errors import CatalogueUnavailable, StoreUnavailable, TwinlensError
from server.ingest.storage import MediaStore
from server.operations.disks import Disks
from server.operations.load import Connections, Load, Queue, Vectors
from server.postgres.cluster import cluster_of
from server.postgres.server import EmbeddedPostgres
from server.settings import Settings

# Those who ask for a server's health give up soon. Waiting for a connection to the database may take the first of
# these, and the whole answer of the database the second.
_CONNECTED_WITHIN_SECONDS = 1.5
_ANSWERED_WITHIN_SECONDS = 1.8

Checks = Mapping[str, TwinlensError | None]
"""What was looked at, and what is wrong with it."""


class Health:
    """Looks at the parts of one server; owns none of them."""

    def __init__(
        self,
        embedder: Embedder,
        pulse: Pulse,
        catalogue: Catalogue,
        store: MediaStore,
        disks: Disks,
        pools: Mapping[str, Pool],
    ) -> None:
        """`pools`: by what they are for; `requests` is the one that answers."""
        self._embedder = embedder
        self._pulse = pulse
        self._catalogue = catalogue
        self._store = store
        self._disks = disks
        self._pools = pools
        self._ending: set[asyncio.Task[object]] = set()

    def known(self) -> Checks:
        """As last known; asks nobody."""
        store = self._store.trouble
        return {
            "model": self._pulse.trouble,
            "database": CatalogueUnavailable() if self._pools["requests"].away else None,
            # Whoever has noticed it has logged it.
            "store": StoreUnavailable(reason=store.reason, known=True) if store is not None else None,
            "disk": self._disks.trouble,
        }

    async def checked(self) -> Checks:
        """As it is now: the database is asked, and answers within two seconds or counts as away."""
        return {**self.known(), "database": await self._database()}

    async def _database(self) -> TwinlensError | None:
        asking = asyncio.ensure_future(self._catalogue.ping(_CONNECTED_WITHIN_SECONDS))
        try:
            await asyncio.wait((asking,), timeout=_ANSWERED_WITHIN_SECONDS)
        finally:
            if not asking.done():
                # It may take as long to end as what it waits for.
                ending = asyncio.create_task(end(asking))
                self._ending.add(ending)
                ending.add_done_callback(self._ending.discard)
        if not asking.done():
            return CatalogueUnavailable()
        failure = asking.exception()
        if failure is not None and not isinstance(failure, TwinlensError):
            raise failure
        return failure

    async def close(self) -> None:
        """Wait until nothing is asked any more: a few seconds at most."""
        await asyncio.gather(*self._ending)

    def load(self) -> Load:
        """What is in hand at this moment, and what was counted since the start."""
        embedder = self._embedder
        vectors: dict[str, Vectors] = {
            tower: Vectors(kept=known.hits, joined=known.joined, made=known.made, bytes=known.bytes)
            for tower, known in embedder.known.items()
        }
        queues = tuple(
            Queue(stage, tower, lane, waiting.count, waiting.age)
            for (stage, tower), lanes in embedder.queues().items()
            for lane, waiting in lanes.items()
        )
        return Load(
            embedder.pictures.inside,
            embedder.texts.inside,
            vectors,
            len(asyncio.all_tasks()),
            queues,
            {tower: batcher.longest_run() for tower, batcher in embedder.towers.items()},
            {name: _connections(pool) for name, pool in self._pools.items()},
            self._disks.rooms,
            {name: error is None for name, error in self.known().items()},
        )


def _connections(pool: Pool) -> Connections:
    found = pool.get_stats()
    resting = found["pool_available"]
    return Connections(
        lent=found["pool_size"] - resting,
        resting=resting,
        waiting=found["requests_waiting"],
        waited=found.get("requests_wait_ms", 0) / 1000,
        refused=found.get("requests_errors", 0),
    )


def disks_of(settings: Settings, store: MediaStore) -> Disks:
    """The disks that this server writes to: of its data folder, of the store where that is a folder, of the database
    where that is the embedded one. Without room for pictures or for the database it cannot do its work."""
    folders: dict[str, Path] = {"data": settings.data}
    if store.folder is not None:
        folders["media"] = store.folder
    if settings.database_url == EmbeddedPostgres(settings.data).url:
        folders["database"] = cluster_of(settings.data.resolve())
    return Disks(folders, needed=[name for name in folders if name != "data"])
