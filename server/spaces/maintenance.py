"""Maintenance of a space: beside answering, a server looks for media that its own space lacks, and embeds them.

A server writes only into its own space. While servers of two models run side by side, a picture that one server
accepts is missing in the other server's space until a server there finds it, seconds later. So each server finds the
other's pictures, and the space that was live before stays complete as the way back. Media that were adopted from a
legacy schema are embedded in the same way. What an earlier version of the readers has misread is embedded again: see
rereading.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from server.batching.embedder import Embedder
from server.catalogue.rows import SpaceRow
from server.database.advisory import held
from server.database.connections import Direct
from server.database.failures import translated
from server.database.locks import LOCKS_OF_MAINTENANCE
from server.database.pool import Pool
from server.errors import CatalogueUnavailable, Overloaded, SpaceDropped, StorageFailed
from server.ingest.storage import MediaStore
from server.spaces.backfill import Backfill
from server.spaces.rereading import Reread, Rereading

FOLLOW_EACH_SECONDS = 10.0
"""How often a server looks for new media: each time it reads a few rows of an index."""

# A sweep finds what following cannot: media that were added while no server of this space ran, or in an unforeseen way.
_SWEEP_EACH_SECONDS = 6 * 3600.0
_SWEEP_PAUSE_SECONDS = 0.05
_PICTURES_AT_ONCE = 2
_MEDIA_IN_A_TURN = 50
_FAILED_TRIED_AGAIN = 20

_log = logging.getLogger(__name__)


class Maintenance:
    """Embeds what a server's own space lacks, a few pictures at a time, in the bulk lane behind interactive callers."""

    def __init__(
        self,
        pool: Pool,
        space: SpaceRow,
        embedder: Embedder,
        store: MediaStore,
        *,
        direct: Direct | None = None,
        own: bool = True,
        on_reread: Callable[[int, int, int], None] = lambda *_: None,
    ) -> None:
        """`direct`: where this server takes its turn with others; without it, where the pool connects to. `own`:
        whether the store is this database's own. `on_reread` is told how many media were looked at again and
        found right, were corrected, or could not be read."""
        self._direct = direct or Direct(pool.url)
        self._space = space
        self._backfill = Backfill(pool, space, embedder, store, at_once=_PICTURES_AT_ONCE)
        # Media that were added below this transaction have been looked at, or are left to the sweep.
        self._since: str | None = None
        self._rereading = Rereading(pool, space, embedder, store, at_once=_PICTURES_AT_ONCE, thumbnails=own)
        self._on_reread = on_reread

    async def run(self) -> None:
        """Follow what is new, and sweep through everything now and then, for as long as the server runs."""
        await asyncio.gather(
            self._repeat(self.follow, FOLLOW_EACH_SECONDS),
            self._repeat(self.sweep, _SWEEP_EACH_SECONDS),
            self._repeat(self.reread, FOLLOW_EACH_SECONDS),
        )

    async def _repeat(self, look: Callable[[], Awaitable[int]], pause: float) -> None:
        """`look` again and again, with so many seconds in between; sooner after a failure."""
        while True:
            seconds = pause
            try:
                await look()
            except SpaceDropped:
                _log.warning("The space of this server has been dropped: nothing is left to embed for.")
                return
            except (CatalogueUnavailable, StorageFailed, Overloaded) as exc:
                _log.info("Another look for pictures to embed follows soon: %s", exc.line)
                seconds = FOLLOW_EACH_SECONDS
            except Exception:
                _log.exception("The look for pictures to embed failed; another one follows.")
                seconds = FOLLOW_EACH_SECONDS
            await asyncio.sleep(seconds)

    async def follow(self) -> int:
        """Embed what was added since the last time, and try again what failed before and is due; how many got a vector.

        Raises CatalogueUnavailable's kinds, SpaceDropped, StorageFailed, Overloaded; the next look then begins where
        this one did.
        """
        horizon = await self._backfill.horizon()
        embedded = 0
        if self._since is not None:
            async for page in self._backfill.missing(self._since, horizon.unseen_from):
                embedded += await self._fill(await self._backfill.never_tried(page))
        self._since = horizon.complete_below
        return embedded + await self._fill(await self._backfill.due_again(_FAILED_TRIED_AGAIN))

    async def sweep(self) -> int:
        """Embed all missing media, except those that were tried in vain; how many got a vector. Raises as `follow`."""
        embedded = 0
        async for page in self._backfill.missing():
            embedded += await self._fill(await self._backfill.never_tried(page))
            await asyncio.sleep(_SWEEP_PAUSE_SECONDS)
        return embedded

    async def _fill(self, ids: Sequence[str]) -> int:
        embedded = 0
        for start in range(0, len(ids), _MEDIA_IN_A_TURN):
            async with self._turn():
                embedded += (await self._backfill.fill(ids[start : start + _MEDIA_IN_A_TURN])).embedded
        if embedded:
            _log.info("Embedded pictures that the space lacked: %d.", embedded)
        return embedded

    async def reread(self) -> int:
        """Look again at what earlier versions of the readers have read; how many media were corrected.

        Raises as `follow`.
        """
        done = Reread()
        async for some in self._rereading.reread(self._turn):
            self._on_reread(some.looked_at - some.corrected - some.failed, some.corrected, some.failed)
            done += some
        if done.looked_at:
            _log.info(
                "Looked again at pictures that an earlier version has read: %d, of which %d were corrected and %d "
                "could not be read.",
                done.looked_at,
                done.corrected,
                done.failed,
            )
        return done.corrected

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """The servers of one space take turns, so that the later ones find the vectors of the earlier ones.

        Behind a pooler of transactions, without a direct URL, they do not: two may then embed the same picture.
        """
        lock = (LOCKS_OF_MAINTENANCE, self._space.number)
        async with contextlib.AsyncExitStack() as stack:
            with translated():
                await stack.enter_async_context(held(self._direct.url, lock, pooling=self._direct.pooling))
            yield
