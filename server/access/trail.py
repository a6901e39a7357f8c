"""The way of an entry from a request to the audit's table: a bounded queue, written in batches beside the requests.

An entry is a line of the log at once, and a row within a second or so. Nothing that is not kept goes unsaid: what does
not fit is counted by what came of it, and the counts become rows and lines as well.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from itertools import islice

from psycopg import AsyncConnection
from psycopg.rows import TupleRow, scalar_row

from server.access.audit import Entry, columns
from server.access.limits import Bucket
from server.database.queries import Queries
from server.database.runner import Runner
from server.errors import BadParameter, TwinlensError
from server.limits import Allowance

FLUSH_SECONDS = 1.0
"""Between two batches: a server that is killed loses the rows of so long, and none of the lines."""

MOST_WAITING = 10_000
"""Entries of one worker that wait for the database, a few megabytes."""

REFUSED_EACH_SECOND = 10.0
REFUSED_AT_ONCE = 100.0
"""Of refused writes so many are kept one by one, so that a flood of them fills neither the table nor the log."""

_BATCH = 1000
_CLOSING_SECONDS = 5.0
_FORGET_EACH_SECONDS = 600.0
_FORGET_BATCH = 5000
_FORGET_PAUSE_SECONDS = 0.2

_log = logging.getLogger(__name__)


class Trail:
    """Keeps the audit of one worker."""

    def __init__(self, runner: Runner, *, days: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`days`: for so long rows are kept; 0: there are none, and the log alone has the audit."""
        self._runner = runner
        self._days = days
        self._queries = Queries.read("audit.sql")
        self._waiting: deque[Entry] = deque()
        self._left_out: Counter[tuple[int | None, str | None]] = Counter()
        self._refused = Bucket(Allowance(REFUSED_EACH_SECOND, REFUSED_AT_ONCE), clock)
        self._writing = asyncio.Lock()

    def add(self, entry: Entry, *, refused: bool = False) -> None:
        """Have an entry kept; returns at once. `refused`: nothing was changed, and it may be one of a flood."""
        if refused and not self._refused.take():
            self._left_out[entry.status, entry.code] += 1
            return
        _log.info("%s", entry, extra={"fields": entry.fields})
        self._keep(entry)

    def _keep(self, entry: Entry) -> None:
        if not self._days:
            return
        if len(self._waiting) < MOST_WAITING:
            self._waiting.append(entry)
        else:
            self._left_out[entry.status, entry.code] += entry.count

    async def flush(self) -> None:
        """Write what waits. Raises CatalogueUnavailable's kinds, and what was not written waits on.

        A connection that breaks may have written all of it: then it is there twice, which is better than not at all.
        """
        async with self._writing:
            self._sum_up()
            while batch := list(islice(self._waiting, _BATCH)):
                try:
                    await self._runner.write(partial(self._insert, batch))
                except BadParameter:
                    # An entry is made such that the table can hold it. Should one be an exception, it must not keep
                    # all others from being written for ever.
                    await self._one_by_one(batch)
                for _ in batch:
                    self._waiting.popleft()

    async def _one_by_one(self, batch: Sequence[Entry]) -> None:
        for entry in batch:
            try:
                await self._runner.write(partial(self._insert, [entry]))
            except BadParameter as exc:
                _log.error("An entry of the audit is in the log alone, and not in the table: %s: %s", exc.line, entry)

    async def _insert(self, entries: Sequence[Entry], connection: AsyncConnection[TupleRow]) -> None:
        await connection.execute(self._queries["add"], columns(entries))

    def _sum_up(self) -> None:
        """Make one entry of all those that had the same end and were not kept by themselves."""
        counts, self._left_out = self._left_out, Counter()
        for (status, code), count in counts.items():
            entry = Entry(action="(several)", status=status, code=code, count=count)
            said = "Writes that the audit has no entries of their own for: %s"
            _log.warning(said, entry, extra={"fields": entry.fields})
            self._keep(entry)

    async def run(self) -> None:
        """Write batches for as long as the server runs."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            try:
                await self.flush()
            except TwinlensError as exc:
                _log.warning("%s entries of the audit wait for the database: %s", f"{len(self._waiting):,}", exc.line)
            except Exception:
                _log.exception("%s entries of the audit could not be written.", f"{len(self._waiting):,}")

    async def close(self) -> None:
        """Write the rest, for a few seconds at most; what cannot be written then is said."""
        try:
            async with asyncio.timeout(_CLOSING_SECONDS):
                await self.flush()
                await self.flush()  # what did not fit beside the rest
        except (TwinlensError, TimeoutError) as exc:
            said = exc.line if isinstance(exc, TwinlensError) else "the database did not answer in time"
            _log.error(
                "%s entries of the audit are in the log alone, and not in the table: %s",
                f"{len(self._waiting):,}",
                said,
            )

    async def forget(self, owners: Runner) -> None:
        """Remove what is older than the days that it is kept, for as long as the server runs; a few rows at a time.

        `owners`: with the rights of the table's owner, since whoever serves requests may only add.
        """
        while self._days:
            try:
                more = await self._forget_some(owners) == _FORGET_BATCH
            except TwinlensError as exc:
                _log.warning("The audit's old entries could not be removed; another try follows: %s", exc.line)
                more = False
            await asyncio.sleep(_FORGET_PAUSE_SECONDS if more else _FORGET_EACH_SECONDS)

    async def _forget_some(self, owners: Runner) -> int:
        asked = {"older_than": timedelta(days=self._days), "most": _FORGET_BATCH}

        async def forget(connection: AsyncConnection[TupleRow]) -> int:
            cursor = connection.cursor(row_factory=scalar_row)
            return int(await (await cursor.execute(self._queries["forget"], asked)).fetchone() or 0)

        return await owners.write(forget)
