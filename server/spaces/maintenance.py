"""What a server does beside answering: it looks for media that its own space lacks, and embeds them.

A server writes only into its own space. While servers of two models run side by side, what one takes in is missing in
the other's space until a server there finds it, seconds later; so each finds the other's pictures, and the space that
was live before stays whole as the way back. It also embeds what was taken over from an older system.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from psycopg import AsyncConnection

from server.batching.embedder import Embedder
from server.catalogue.rows import SpaceRow
from server.database.connections import Pool
from server.database.failures import translated
from server.database.locks import LOCKS_OF_MAINTENANCE
from server.errors import CatalogueUnavailable, Overloaded, SpaceDropped, StorageFailed
from server.ingest.storage import MediaStore
from server.spaces.backfill import Backfill

ROUND = 10.0
"""Seconds between two looks at what is new: a few rows of an index."""

# What nobody would find otherwise came by ways that nobody foresaw, or while no server of this space was there to see.
_THOROUGH_ROUND = 6 * 3600.0
_AT_ONCE = 2
_CHUNK = 50
_FAILED_AGAIN = 20
_BREATH = 0.05

_log = logging.getLogger(__name__)


class Maintenance:
    """Embeds what a server's own space lacks, a few at a time and behind everybody who waits for an answer."""

    def __init__(self, pool: Pool, space: SpaceRow, embedder: Embedder, store: MediaStore) -> None:
        self._pool = pool
        self._space = space
        self._backfill = Backfill(pool, space, embedder, store, at_once=_AT_ONCE)
        # Whatever came before this transaction was looked at, or is by the sweep.
        self._since: str | None = None

    async def run(self) -> None:
        """Follow what is new, and beside that sweep through everything now and then, for as long as the server runs."""
        await asyncio.gather(self._again(self.follow, ROUND), self._again(self.sweep, _THOROUGH_ROUND))

    async def _again(self, look: Callable[[], Awaitable[int]], pause: float) -> None:
        while True:
            seconds = pause
            try:
                if embedded := await look():
                    _log.info("Embedded what the space lacked: pictures: %d.", embedded)
            except SpaceDropped:
                _log.warning("The space of this server has been dropped: nothing is left to embed for.")
                return
            except (CatalogueUnavailable, StorageFailed, Overloaded) as exc:
                _log.info("What the space lacks is looked for again later: %s", exc.sentence)
                seconds = ROUND
            except Exception:
                _log.exception("What the space lacks could not be looked for; another try follows.")
                seconds = ROUND
            await asyncio.sleep(seconds)

    async def follow(self) -> int:
        """Embed what has come since the last time, and try again what is due; how many got a vector.

        Raises CatalogueUnavailable's kinds, SpaceDropped, StorageFailed, Overloaded; the next look begins where this
        one did.
        """
        oldest, next_one = await self._backfill.horizon()
        embedded = 0
        if self._since is not None:
            async for page in self._backfill.missing(self._since, next_one):
                embedded += await self._fill(await self._backfill.never_tried(page))
        self._since = oldest
        return embedded + await self._fill(await self._backfill.due_again(_FAILED_AGAIN))

    async def sweep(self) -> int:
        """Embed all that is missing, but for what was tried in vain; how many got a vector. Raises as `follow`."""
        embedded = 0
        async for page in self._backfill.missing():
            embedded += await self._fill(await self._backfill.never_tried(page))
            await asyncio.sleep(_BREATH)
        return embedded

    async def _fill(self, ids: Sequence[str]) -> int:
        embedded = 0
        for start in range(0, len(ids), _CHUNK):
            async with self._alone():
                embedded += (await self._backfill.fill(ids[start : start + _CHUNK])).embedded
        return embedded

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """The servers of one space take turns: whoever comes later finds the vectors there."""
        with translated():
            connection = await AsyncConnection.connect(str(self._pool.conninfo), autocommit=True, connect_timeout=10)
        async with connection:
            with translated():
                locks = (LOCKS_OF_MAINTENANCE, self._space.number)
                await connection.execute("SELECT pg_advisory_lock(%s, %s)", locks)
            yield
