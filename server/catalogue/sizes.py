"""How large the catalogue is, and what of it searches cannot find: counted beside the requests, for the metrics.

Counts are of all clients together. Which client has what is nobody's business who reads a dashboard.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any

from psycopg.rows import dict_row

from server.catalogue.rows import SpaceRow
from server.database.queries import Queries
from server.database.runner import Runner
from server.errors import TwinlensError

_LOOK_SECONDS = 10.0
# To count reads indexes of every row, so it is done at most this often, and takes at most this share of the time.
_COUNT_SECONDS = 60.0
_SHARE = 0.02

_log = logging.getLogger(__name__)

Counts = Mapping[str, int]


class Census:
    """Counts what one database holds. The runner must see the rows of all clients."""

    def __init__(
        self,
        runner: Runner,
        space: SpaceRow,
        *,
        on_counted: Callable[[str, Counts, Counts], None],
        on_indexes: Callable[[Counts], None],
    ) -> None:
        """`on_counted` is told the space's id, the sizes, and the pictures without a vector by why they have none;
        `on_indexes`, how many indexes are in which state."""
        self._runner = runner
        self._space = space
        self._on_counted = on_counted
        self._on_indexes = on_indexes
        self._queries = Queries.read("sizes.sql").of(space.table)

    async def sizes(self) -> Counts:
        """Clients, products, media and vectors. Raises CatalogueUnavailable."""
        return await self._row("sizes", {})

    async def without_vector(self) -> Counts:
        """Pictures without a vector in the space, by whether somebody has tried. Raises CatalogueUnavailable."""
        return await self._row("without_vector", {"number": self._space.number})

    async def index_states(self) -> Counts:
        """Large clients' indexes: ready, building, incomplete. Raises CatalogueUnavailable."""
        return await self._row("index_states", {"table": self._space.table})

    async def count(self) -> float:
        """Count everything once; how many seconds that took."""
        began = monotonic()
        self._on_counted(self._space.id, await self.sizes(), await self.without_vector())
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

    async def _row(self, name: str, parameters: Mapping[str, Any]) -> Counts:
        (row,) = await self._runner.fetch(self._queries[name], parameters, dict_row)
        return row
