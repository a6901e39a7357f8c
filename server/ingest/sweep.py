"""Sweeping the store: objects that no row of the catalogue promises are found and removed.

They are left by a crash between the bytes and their row, and by deletions whose second half failed. The key of an
object has 32 hex digits of its upload, which no other upload has, of whatever client; they are the media's id as well,
unless its caller chose one. So an object is an orphan, or belongs to an upload that has not ended, when they are no
media's id and no row names its key. To tell them apart, however long an upload is held up: the sweep locks the
upload, finds it without a row, and notes that it may never get one; all of it is committed before the object is
deleted. An upload adds its row under the same lock, and only where there is no such note.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from psycopg import AsyncConnection
from psycopg.rows import TupleRow, scalar_row

from server.database.failures import translated
from server.database.locks import LOCKS_OF_MEDIA
from server.database.pool import Pool
from server.database.queries import Queries
from server.errors import BytesRemain, CatalogueUnavailable, StorageFailed, SweepRefused
from server.ingest.backups import backup_runs
from server.ingest.mark import Standing
from server.ingest.storage import MediaStore, Stored
from server.wording import counted

OLDER_THAN = timedelta(hours=1)
"""Younger objects are left alone: their upload is most likely still going on. Being wrong about it loses nothing."""

SWEEP_EACH = timedelta(hours=6)
"""Of all the servers of a database together."""

FEW = 100
"""So many orphans are removed without a question, in the background and by hand."""

_LOOK_EACH_SECONDS = 60.0
_MOST_REMEMBERED = 10_000
# In the background: one object in so many may be an orphan. More look like a catalogue that lacks rows.
_SHARE = 100
_BATCH = 1000
_PAUSE_SECONDS = 0.05

_log = logging.getLogger(__name__)


@dataclass
class Found:
    """What a look at the store found: objects, and those that no row promises, with their bytes."""

    objects: int = 0
    orphans: int = 0
    bytes: int = 0
    unfinished: list[Path] = field(default_factory=list)
    """Files that writes which never ended have left."""

    @property
    def suspicious(self) -> bool:
        """Whether most of the store looks like orphans: then it is more likely that the database lacks rows."""
        return self.orphans * 2 > self.objects and (self.orphans > FEW or self.orphans == self.objects)

    def __str__(self) -> str:
        orphans = f"{self.orphans:,} of which no picture of the catalogue needs ({self.bytes:,} bytes)"
        beside = f", and what {counted(len(self.unfinished), 'unfinished write')} left" if self.unfinished else ""
        return f"{counted(self.objects, 'object')}, {orphans}{beside}"


class Sweep:
    """Finds and removes the orphans of a database's own store.

    Every method may raise CatalogueUnavailable and its kinds, and StoreUnavailable.
    """

    def __init__(
        self, pool: Pool, store: MediaStore, standing: Standing, *, older_than: timedelta = OLDER_THAN
    ) -> None:
        """Raises SweepRefused where the store was marked by another database, which this one is a copy of."""
        if not standing.own:
            raise SweepRefused(
                "This database is a copy, restored or cloned, of the one that marked the store: what it knows nothing "
                "of may be pictures of the other's, so nothing is removed. Where the other one is gone: python -m "
                "server store --adopt, and start the servers again."
            )
        self._pool = pool
        self._store = store
        self._older_than = older_than
        self._queries = Queries.read("store.sql")

    async def look(self, *, pause: float = 0.0) -> tuple[Found, list[Stored]]:
        """What there is to remove; the orphans are given only as far as they are few enough to be kept in memory."""
        found = Found()
        kept: list[Stored] = []
        async for page in self.orphans(found, pause=pause):
            kept += page[: _MOST_REMEMBERED - len(kept)]
        found.unfinished = await self._store.unfinished(self._before)
        return found, kept

    async def orphans(
        self, found: Found, *, pause: float = 0.0, client_id: str | None = None
    ) -> AsyncIterator[list[Stored]]:
        """The orphans, some hundreds at a time, counted into `found`; with `client_id`, those of this client alone.

        `pause`: seconds between pages of the listing.
        """
        await self._store.look()
        before = self._before
        maybe: list[Stored] = []

        async def sure() -> list[Stored]:
            named = await self._fetch("named", {"keys": [one.key for one in maybe]})
            orphans = [one for one in maybe if one.key not in named]
            maybe.clear()
            found.orphans += len(orphans)
            found.bytes += sum(one.bytes for one in orphans)
            return orphans

        async for page in self._store.pages(client_id):
            found.objects += len(page)
            old = [one for one in page if one.at < before]
            with_row = await self._fetch("with_row", {"ids": [one.media_id for one in old]}) if old else set()
            maybe += [one for one in old if one.media_id not in with_row]
            if len(maybe) >= _BATCH:
                yield await sure()
            await asyncio.sleep(pause)
        if maybe:
            yield await sure()

    async def remove(self, orphans: Sequence[Stored]) -> int:
        """Remove those of these objects that are still orphans; how many.

        Raises BytesRemain, SweepRefused where a backup runs, which may still have to fetch what had a row a moment ago.
        """
        removed = 0
        for start in range(0, len(orphans), _BATCH):
            batch = orphans[start : start + _BATCH]
            ids = [one.media_id for one in batch]
            async with self._transaction() as connection:
                held = await self._rows(connection, "hold", {"ids": sorted(set(ids)), "locks": LOCKS_OF_MEDIA})
                known = await self._rows(connection, "with_row", {"ids": ids})
                known |= await self._rows(connection, "named", {"keys": [one.key for one in batch]})
                gone = [one for one in batch if one.media_id in held and not {one.media_id, one.key} & known]
                await connection.execute(self._queries["bury"], {"ids": sorted({one.media_id for one in gone})})
            if await backup_runs(self._pool):
                raise SweepRefused(
                    "A backup of this database is running, so nothing is removed: sweep when it is done."
                )
            await self._store.look()
            await self._store.delete(*(one.key for one in gone))
            removed += len(gone)
        return removed

    async def remove_unfinished(self, files: Iterable[Path]) -> int:
        """Remove what unfinished writes have left; how many files."""
        removed = 0
        for file in files:
            try:
                await asyncio.to_thread(file.unlink)
            except FileNotFoundError:
                continue
            except OSError as exc:
                raise BytesRemain([str(file)], reason=str(exc)) from exc
            removed += 1
        return removed

    async def take_turn(self, pause: timedelta = SWEEP_EACH) -> bool:
        """Whether it is time for a sweep, and no other server has begun one."""
        async with self._transaction() as connection:
            turn = await self._rows(connection, "take_turn", {"pause": pause, "id": self._store.expected})
            if turn:
                await connection.execute(self._queries["forget"])
        return bool(turn)

    @property
    def _before(self) -> datetime:
        return datetime.now(UTC) - self._older_than

    async def _fetch(self, name: str, parameters: dict[str, object]) -> set[str]:
        async with self._transaction() as connection:
            return await self._rows(connection, name, parameters)

    async def _rows(self, connection: AsyncConnection[TupleRow], name: str, parameters: dict[str, object]) -> set[str]:
        cursor = connection.cursor(row_factory=scalar_row)
        return set(await (await cursor.execute(self._queries[name], parameters)).fetchall())

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[AsyncConnection[TupleRow]]:
        with translated():
            async with self._pool.connection() as connection, connection.transaction():
                await connection.execute(self._queries["patience"])
                yield connection


class Sweeper:
    """Sweeps in the background of a server: soon what could not be deleted, and now and then everything."""

    def __init__(
        self,
        pool: Pool,
        store: MediaStore,
        standing: Standing,
        *,
        first: bool = True,
        older_than: timedelta = OLDER_THAN,
        on_removed: Callable[[int], None] = lambda _: None,
    ) -> None:
        """`first`: whether this is the worker that sweeps everything; `on_removed` is told how many objects."""
        self._pool = pool
        self._store = store
        self._remain: set[str] = set()
        self._on_removed = on_removed
        self._sweep: Sweep | None = None
        if first:
            try:
                self._sweep = Sweep(pool, store, standing, older_than=older_than)
            except SweepRefused as exc:
                _log.warning("The store is not swept in the background: %s", exc.sentence)

    def remember(self, keys: Sequence[str]) -> None:
        """Try to delete these again soon: no row names them."""
        self._remain.update(keys[: _MOST_REMEMBERED - len(self._remain)])

    async def run(self) -> None:
        """For as long as the server runs."""
        while True:
            await asyncio.sleep(_LOOK_EACH_SECONDS)
            try:
                await self.delete_remembered()
                if self._sweep is not None and self._store.trouble is None and await self._sweep.take_turn():
                    await self.sweep()
            except (CatalogueUnavailable, StorageFailed, SweepRefused) as exc:
                _log.info("Another sweep of the store follows later: %s", exc.line)
            except Exception:
                _log.exception("The sweep of the store failed; another one follows.")

    async def delete_remembered(self) -> None:
        """Delete what could not be deleted before. Does nothing while the store is away, or a backup runs."""
        if not self._remain or self._store.trouble is not None or await backup_runs(self._pool):
            return
        keys = list(self._remain)
        try:
            await self._store.delete(*keys)
        except BytesRemain as exc:
            keys = [key for key in keys if key not in exc.keys]
        self._remain.difference_update(keys)
        self._removed(len(keys))

    async def sweep(self) -> int:
        """Remove the orphans, if they are few; how many objects. Raises as Sweep's methods do."""
        if self._sweep is None:
            return 0
        found, orphans = await self._sweep.look(pause=_PAUSE_SECONDS)
        few = found.orphans <= max(FEW, found.objects // _SHARE) and found.orphans <= len(orphans)
        if found.suspicious or not few:
            _log.warning(
                "The store of pictures holds %s. So many are not removed in the background, since the database may be "
                "an older one. See them with python -m server sweep --dry-run; python -m server sweep removes them.",
                found,
            )
            return 0
        removed = await self._sweep.remove(orphans) + await self._sweep.remove_unfinished(found.unfinished)
        self._removed(removed)
        return removed

    def _removed(self, count: int) -> None:
        if count:
            _log.info("Removed from the store of pictures what no picture of the catalogue needs; objects: %d.", count)
            self._on_removed(count)
