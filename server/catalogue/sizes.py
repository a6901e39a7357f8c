"""How large the catalogue is, and what of it searches cannot find: counted beside the requests, for the metrics.

Counts are of all clients together. Which client has what is nobody's business who reads a dashboard.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from time import monotonic

from psycopg.rows import dict_row

from server.catalogue.rows import SpaceRow
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


class Census:
    """Counts what one database holds. The runner must see the rows of all clients."""

    def __init__(
        self,
        runner: Runner,
        space: SpaceRow,
        *,
        on_counted: Callable[[str, Counts, Counts, float], None],
        on_indexes: Callable[[Counts], None],
    ) -> None:
        """`on_counted` is told the space's id, the sizes, the pictures without a vector by why they have none, and for
        how many seconds the oldest pending one has been due; `on_indexes`, how many indexes are in which state."""
        self._runner = runner
        self._space = space
        self._on_counted = on_counted
        self._on_indexes = on_indexes
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
                cursor = connection.cursor(row_factory=dict_row)
                sizes = await (await cursor.execute(self._queries["sizes"])).fetchone()
                of_space = {"number": self._space.number}
                without = await (await cursor.execute(self._queries["without_vector"], of_space)).fetchone()
                overdue = await (await cursor.execute(self._queries["overdue"])).fetchone()
        self._on_counted(self._space.id, sizes or {}, without or {}, overdue["seconds"] if overdue else 0.0)
        return monotonic() - began

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
