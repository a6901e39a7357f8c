"""Limits that are exact across all servers of a database: allowances are kept in a table of PostgreSQL's.

Each request of a limited caller takes a round trip more. While the database does not answer, this process counts for
itself. What the database has refused is refused here until it is due, so a flood never reaches the database.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from psycopg import AsyncConnection
from psycopg.rows import TupleRow, class_row

from server.access.limits import Inside, Left, LocalLimiter, Wanted
from server.database.queries import Queries
from server.database.runner import Runner
from server.errors import TwinlensError
from server.limits import Allowance

TELL_SECONDS = 1.0
"""Between two times at which it is told what was received."""

# A caller must not wait long for being counted, and counting must leave connections to searches.
_LONGEST_SECONDS = 1.0
_AT_ONCE = 2
_MOST_REFUSED = 10_000  # that are remembered
_TRIES = 3  # a row may be forgotten just after it was made
_APART_SECONDS = 2.0  # for so long it is not asked again when it has not answered
_FORGET_EACH = 600  # times

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Row:
    """What the table has of one allowance."""

    subject: str
    kind: str
    over: float
    """Seconds until it is full."""
    enough: bool
    """Whether there was one left before."""


class ExactLimiter:
    """Allowances that all servers of a database share. How many requests are inside is counted by each for itself."""

    def __init__(self, runner: Runner, workers: int = 1, clock: Callable[[], float] = time.monotonic) -> None:
        """`workers`: by how many the allowances are divided while the database is away."""
        self.inside = Inside()
        self._runner = runner
        self._queries = Queries.read("limits.sql")
        self._workers = workers
        self._clock = clock
        self._local = LocalLimiter(clock)
        self._asking = asyncio.Semaphore(_AT_ONCE)
        self._apart_until = float("-inf")
        self._refused: dict[tuple[str, str, Allowance], float] = {}
        self._owed: dict[tuple[str, str], Wanted] = {}

    async def take(self, wanted: Sequence[Wanted]) -> list[Left]:
        """As `Limiter` has it."""
        now = self._clock()
        if now < self._apart_until:
            return self.take_now(wanted)
        if known := self._known(wanted, now):
            return known
        async with self._asking:
            if self._clock() < self._apart_until:  # those who waited here need not find out for themselves
                return self.take_now(wanted)
            try:
                async with asyncio.timeout(_LONGEST_SECONDS):
                    return self._answers(wanted, await self._ask(wanted, admit=True))
            except (TwinlensError, TimeoutError) as exc:
                self._apart_until = self._clock() + _APART_SECONDS
                _log.warning("Limits are counted here alone for a while, since the database does not answer: %r", exc)
                return self.take_now(wanted)

    def take_now(self, wanted: Sequence[Wanted]) -> list[Left]:
        """As `Limiter` has it."""
        return self._local.take_now(
            [Wanted(one.subject, one.kind, one.allowance.share(self._workers), one.count) for one in wanted]
        )

    def owe(self, wanted: Iterable[Wanted]) -> None:
        """As `Limiter` has it: the database is told within `TELL_SECONDS`."""
        for one in wanted:
            place = one.subject, one.kind
            before = self._owed[place].count if place in self._owed else 0.0
            self._owed[place] = Wanted(one.subject, one.kind, one.allowance, one.count + before)

    async def run(self) -> None:
        """Tell the database what is owed, and have it forget what is full, for as long as the server runs."""
        turn = 0
        while True:
            await asyncio.sleep(TELL_SECONDS)
            turn += 1
            try:
                await self.tell()
                if turn % _FORGET_EACH == 0:
                    await self._runner.read(self._forget)
            except TwinlensError as exc:
                _log.warning("What was received could not be counted; another try follows: %s", exc.line)

    async def tell(self) -> None:
        """Tell the database what is owed. Raises CatalogueUnavailable's kinds, and then it is owed still."""
        owed, self._owed = list(self._owed.values()), {}
        try:
            if owed:
                await self._ask(owed, admit=False)
        except BaseException:
            self.owe(owed)
            raise

    async def _ask(self, wanted: Sequence[Wanted], *, admit: bool) -> list[_Row]:
        parameters = {
            "subjects": [one.subject for one in wanted],
            "kinds": [one.kind for one in wanted],
            "rates": [one.allowance.rate for one in wanted],
            "bursts": [one.allowance.burst for one in wanted],
            "counts": [float(one.count) for one in wanted],
            "admit": admit,
        }

        async def take(connection: AsyncConnection[TupleRow]) -> list[_Row]:
            cursor = connection.cursor(row_factory=class_row(_Row))
            rows: list[_Row] = []
            for _ in range(_TRIES):
                rows = await (await cursor.execute(self._queries["take"], parameters)).fetchall()
                if len(rows) == len(wanted):
                    break
                await connection.execute(self._queries["begin"], parameters)
            return rows

        # As if it only read: where a connection dies it is done once more, and at worst something is counted twice.
        return await self._runner.read(take, "take", patience=_LONGEST_SECONDS)

    async def _forget(self, connection: AsyncConnection[TupleRow]) -> None:
        await connection.execute(self._queries["forget_full"])

    def _answers(self, wanted: Sequence[Wanted], rows: Iterable[_Row]) -> list[Left]:
        found = {(row.subject, row.kind): row for row in rows}
        now = self._clock()
        answers = []
        for one in wanted:
            row = found[one.subject, one.kind]
            left = one.allowance.left(row.over, 0.0)
            wait = 0.0 if row.enough else one.allowance.wait(row.over, 0.0)
            if wait:
                self._remember(one, now + wait)
            answers.append(Left(one, left, wait))
        return answers

    def _known(self, wanted: Sequence[Wanted], now: float) -> list[Left]:
        """The answer that the database has given before and that holds still; empty where there is none."""
        dues = [(one, self._refused.get((one.subject, one.kind, one.allowance), now)) for one in wanted]
        if all(due <= now for _, due in dues):
            return []
        return [Left(one, 0.0 if due > now else one.allowance.burst, max(0.0, due - now)) for one, due in dues]

    def _remember(self, one: Wanted, due: float) -> None:
        if len(self._refused) >= _MOST_REFUSED:
            self._refused.clear()  # the database says so again
        self._refused[one.subject, one.kind, one.allowance] = due
