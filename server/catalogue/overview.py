"""How the catalogue stands, for those who run it: its clients, its spaces with a re-embedding, its indexes.

Nothing is counted for it: how many there are of something, the census has counted. What is read besides are small
tables and PostgreSQL's own, and that at most once in some seconds, however many look.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from psycopg import AsyncConnection
from psycopg.rows import TupleRow, class_row, dict_row

from server.catalogue.rows import SpaceRow
from server.catalogue.tally import SpaceSize, Tallies, Tally
from server.database.locks import LOCKS_OF_REEMBEDDING
from server.database.queries import Queries
from server.database.runner import Runner

MOST_SPACES = 100
MOST_INDEXES = 100

_FRESH_SECONDS = 5.0
# Whoever looks wants to know soon that the database is away.
_PATIENCE_SECONDS = 1.5


@dataclass(frozen=True, slots=True)
class SpaceSeen:
    """An embedding space. `being_filled`: whether somebody re-embeds for it at this moment; `size`: None where it was
    not counted yet."""

    number: int
    id: str
    dimensions: int
    model: str
    created_at: datetime
    retired_at: datetime | None
    state: Literal["live", "retired", "filling"]
    being_filled: bool
    size: SpaceSize | None = None


@dataclass(frozen=True, slots=True)
class IndexSeen:
    """A client's index. `vectors`, `ef_search` and `recall` (0 to 1) are those of when it was measured, None before;
    of searches that were compared since: how many, and the mean share that the index had found of the exact answer."""

    client_id: str | None
    state: Literal["ready", "building", "incomplete"]
    vectors: int | None
    ef_search: int | None
    recall: float | None
    measured_at: datetime | None
    compared: int = 0
    compared_recall: float | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """All that was seen. `tally`: None as long as nothing was counted; `indexes`: how many there are of this space."""

    tally: Tally | None
    spaces: tuple[SpaceSeen, ...]
    indexes: int
    largest_indexes: tuple[IndexSeen, ...] = field(default=())


class Overview:
    """Looks at one database. The runner must see the rows of all clients."""

    def __init__(
        self, runner: Runner, space: SpaceRow, tallies: Tallies, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`space`: whose indexes are looked at."""
        self._runner = runner
        self._space = space
        self._tallies = tallies
        self._clock = clock
        self._queries = Queries.read("operator.sql")
        self._lock = asyncio.Lock()
        self._seen: Seen | None = None
        self._until = 0.0

    async def look(self) -> Seen:
        """How it stands, or stood some seconds ago. Raises CatalogueUnavailable's kinds."""
        async with self._lock:
            if self._seen is None or self._clock() >= self._until:
                self._seen = None
                self._seen = await self._runner.read(self._read, "overview", patience=_PATIENCE_SECONDS)
                self._until = self._clock() + _FRESH_SECONDS
            return self._seen

    async def _read(self, connection: AsyncConnection[TupleRow]) -> Seen:
        async def fetch(name: str, row: Any, **parameters: Any) -> list[Any]:
            cursor = connection.cursor(row_factory=row)
            return await (await cursor.execute(self._queries[name], parameters)).fetchall()

        tally = await asyncio.to_thread(self._tallies.last)
        spaces = await fetch("spaces", dict_row, locks=LOCKS_OF_REEMBEDDING, most=MOST_SPACES)
        indexes = await fetch("indexes", dict_row, table=self._space.table, most=MOST_INDEXES)
        compared = {
            one.client_id: one for one in await fetch("compared", class_row(_Compared), space=self._space.number)
        }
        return Seen(
            tally,
            tuple(SpaceSeen(**one, size=tally.spaces.get(one["number"]) if tally else None) for one in spaces),
            indexes[0]["total"] if indexes else 0,
            tuple(_index(one, compared) for one in indexes),
        )


@dataclass(frozen=True, slots=True)
class _Compared:
    client_id: str
    searches: int
    recall: float


def _index(row: dict[str, Any], compared: Mapping[str, _Compared]) -> IndexSeen:
    del row["total"]
    found = compared.get(row["client_id"])
    return (
        IndexSeen(**row) if found is None else IndexSeen(**row, compared=found.searches, compared_recall=found.recall)
    )
