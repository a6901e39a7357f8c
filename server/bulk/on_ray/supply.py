"""Rows on their way from the process of the command, which has read the feed, to the workers that ask for them.

The feed is as large as it likes and lies on one machine. So nothing of it is copied beforehand: a worker asks for the
next batch, by a number that means no more than that, and the process of the command answers. It keeps a batch until
each of its rows has been told of. A worker that takes the place of a lost one asks for the same number, and is given
the rows that are still to be done.
"""

from __future__ import annotations

import asyncio
import pickle
from collections import Counter
from collections.abc import Iterator
from typing import Any

from server.ingest.spool import Placed


class Supply:
    """Stands between those who ask and the one who answers; an actor of Ray, which remembers nothing that matters."""

    def __init__(self) -> None:
        self._asked: dict[int, asyncio.Future[bytes]] = {}
        self._unanswered: list[int] = []
        self._news = asyncio.Event()
        self._begun: dict[int, Counter[str]] = {}
        self._again: Counter[str] = Counter()

    async def ask(self, number: int) -> bytes:
        """The rows of a batch, packed."""
        if (answer := self._asked.get(number)) is None:
            answer = self._asked[number] = asyncio.get_running_loop().create_future()
            self._unanswered.append(number)
            self._news.set()
        return await answer

    async def wanted(self) -> list[int]:
        """The numbers that were asked for since the last call; waits for one."""
        await self._news.wait()
        self._news.clear()
        numbers, self._unanswered = self._unanswered, []
        return numbers

    async def give(self, number: int, rows: bytes) -> None:
        """The answer to all who ask for this number."""
        if (answer := self._asked.pop(number, None)) is not None and not answer.done():
            answer.set_result(rows)

    async def begin(self, stage: str, number: int) -> None:
        """A worker of this stage begins with a batch."""
        begun = self._begun.setdefault(number, Counter())
        if begun[stage]:
            self._again[stage] += 1
        begun[stage] += 1

    async def begun_again(self) -> dict[str, int]:
        """How many batches each stage began more than once, since a worker was lost."""
        return dict(self._again)

    async def forget(self, number: int) -> None:
        """All rows of a batch are done."""
        self._begun.pop(number, None)


class Handing:
    """The rows that are given out, and which of them are still to be told of.

    A batch has at least `size` rows and ends with a product, as far as products have few rows: two workers that write
    rows of one product would wait for each other.
    """

    def __init__(self, rows: Iterator[Placed], size: int, stop: asyncio.Event) -> None:
        """`stop`: once it is set, no other batch is begun."""
        self._rows = rows
        self._size = size
        self._stop = stop
        self._next: Placed | None = None
        self._exhausted = False
        self._out: dict[int, dict[int, Placed]] = {}
        self.done = asyncio.Event()
        """Set once there is nothing left to give out, and all that was given has been told of."""

    async def give(self, number: int) -> bytes:
        """The rows of a batch that are still to be done, packed."""
        if number not in self._out and not self._stop.is_set() and not self._exhausted:
            rows = await asyncio.to_thread(self._gather)
            if rows:
                self._out[number] = {one.at: one for one in rows}
        self.look()
        return pickle.dumps(list(self._out.get(number, {}).values()), protocol=5)

    def _gather(self) -> list[Placed]:
        rows = [] if self._next is None else [self._next]
        self._next = None
        for one in self._rows:
            if len(rows) >= 2 * self._size or (len(rows) >= self._size and one.product is not rows[-1].product):
                self._next = one
                return rows
            rows.append(one)
        self._exhausted = True
        return rows

    def settle(self, number: int, at: int) -> Placed | None:
        """The row at this place in the feed is done. None where that was known already."""
        batch = self._out.get(number, {})
        row = batch.pop(at, None)
        if not batch:
            self._out.pop(number, None)
        self.look()
        return row

    def is_out(self, number: int) -> bool:
        """Whether rows of this batch are still to be told of."""
        return number in self._out

    def look(self) -> None:
        """See whether all is done."""
        if not self._out and (self._exhausted or self._stop.is_set()):
            self.done.set()


def unpacked(rows: bytes) -> list[Placed]:
    found: list[Any] = pickle.loads(rows)  # noqa: S301 - packed by the process of the command
    return found
