"""How large the catalogue is, and what of it searches cannot find: counted beside the requests, for those who run it.

The metrics get counts of all clients together: which client has what is nobody's business who reads a dashboard. That,
and what each embedding space holds, is in the tally, which an admin's key alone can see.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic, time
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import TupleRow, class_row, dict_row

from server.catalogue.rows import SpaceRow, table_of
from server.catalogue.tally import MOST_CLIENTS, ClientSize, SpaceSize, Tally
from server.database.connections import connection_of_its_own
from server.database.failures import translated
from server.database.queries import Queries
from server.database.runner import Runner
from server.errors import TwinlensError

_LOOK_SECONDS = 10.0
# To count reads indexes of every row, so it is done at most this often, and takes at most this share of the time.
_COUNT_SECONDS = 60.0
_SHARE = 0.02
_LONGEST_SECONDS = 600.0

_log = logging.getLogger(__name__)

Counts = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class _Other:
    """Another space than the server's own."""

    number: int
    retired: bool


class Census:
    """Counts what one database holds. The runner must see the rows of all clients."""

    def __init__(
        self,
        runner: Runner,
        space: SpaceRow,
        *,
        on_counted: Callable[[str, Counts, Counts, float], None],
        on_indexes: Callable[[Counts], None],
        on_tally: Callable[[Tally], None] = lambda _: None,
    ) -> None:
        """`on_counted` is told the space's id, the sizes, the pictures without a vector by why they have none, and for
        how many seconds the oldest pending one has been due; `on_indexes`, how many indexes are in which state;
        `on_tally`, what each of the largest clients and each space has."""
        self._runner = runner
        self._space = space
        self._on_counted = on_counted
        self._on_indexes = on_indexes
        self._on_tally = on_tally
        self._queries = Queries.read("sizes.sql").of(space.table)

    async def index_states(self) -> Counts:
        """Large clients' indexes: ready, building, incomplete. Raises CatalogueUnavailable."""
        states = self._queries["index_states"]
        (row,) = await self._runner.fetch(states, {"table": self._space.table}, dict_row)
        return row

    async def count(self) -> float:
        """Count everything once; how many seconds that took. Raises CatalogueUnavailable."""
        began = monotonic()
        with translated():
            # Its own, since among very many pictures a count takes longer than a statement for a request may.
            async with connection_of_its_own(self._runner.url, longest=_LONGEST_SECONDS) as connection:
                sizes = await _one(connection, self._queries["sizes"], {"most_clients": MOST_CLIENTS})
                largest = sizes.pop("largest_clients")
                without = await _one(connection, self._queries["without_vector"], {"number": self._space.number})
                overdue = await _one(connection, self._queries["overdue"])
                spaces = {self._space.number: SpaceSize(vectors=sizes["vectors"], **without)}
                spaces |= await self._others(connection)
        self._on_counted(self._space.id, sizes, without, overdue["seconds"])
        clients = tuple(ClientSize(**one) for one in largest)
        self._on_tally(Tally(at=time(), clients=sizes["clients"], largest=clients, spaces=spaces))
        return monotonic() - began

    async def _others(self, connection: AsyncConnection[TupleRow]) -> dict[int, SpaceSize]:
        """Of the other spaces, by number: their vectors, and what they lack, unless they are retired."""
        found = {}
        cursor = connection.cursor(row_factory=class_row(_Other))
        for space in await (
            await cursor.execute(self._queries["other_spaces"], {"own": self._space.number})
        ).fetchall():
            queries = self._queries.of(table_of(space.number))
            with suppress(psycopg.errors.UndefinedTable):  # it was dropped at this moment
                sizes = await _one(connection, queries["vectors"])
                if not space.retired:
                    sizes |= await _one(connection, queries["without_vector"], {"number": space.number})
                found[space.number] = SpaceSize(**sizes)
        return found

    async def run(self) -> None:
        """Count again and again, for as long as the server runs."""
        due = monotonic()
        while True:
            try:
                self._on_indexes(await self.index_states())
                if monotonic() >= due:
                    due = monotonic() + _COUNT_SECONDS  # also where it fails
                    seconds = await self.count()
                    due = monotonic() + max(_COUNT_SECONDS, seconds / _SHARE)
            except TwinlensError as exc:
                _log.info("The catalogue could not be counted for the metrics; another try follows: %s", exc.line)
            except Exception:
                _log.exception("The catalogue could not be counted for the metrics; another try follows.")
            await asyncio.sleep(_LOOK_SECONDS)


async def _one(
    connection: AsyncConnection[TupleRow], statement: bytes, parameters: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The row of a statement that has one."""
    cursor = connection.cursor(row_factory=dict_row)
    (row,) = await (await cursor.execute(statement, parameters)).fetchall()
    return row
