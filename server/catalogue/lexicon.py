"""The lexicon: what products are called, written down where triggers did not do it.

Triggers write down the words of each product that is written (0019_words.sql). Two things they leave to a server: the
products that were there before the tables were, and those of a client that has changed which attributes are searched.
Both are done some products at a time, so that no writer waits for more than a moment, and go on where they ended.
"""

from __future__ import annotations

import contextlib

from psycopg import AsyncConnection
from psycopg.rows import TupleRow, scalar_row

from server.database.queries import Queries
from server.database.runner import Runner
from server.errors import TwinlensError

PRODUCTS_AT_ONCE = 500
"""Which are locked against change meanwhile: for about a tenth of a second."""

_TURNS_AT_FIRST = 4

_QUERIES = Queries.read("words.sql")


class Lexicon:
    """Writes down what is due, for all clients. Every method may raise CatalogueUnavailable."""

    def __init__(self, owners: Runner) -> None:
        """`owners`: the connections of the tables' owner."""
        self._owners = owners

    async def catch_up(self) -> int:
        """Write down all that is due; for how many clients something was.

        Any number of servers may do so at once: a client that one is working on is left to it by the others.
        """
        due = await self._owners.fetch(_QUERIES["due"], {}, scalar_row, "words_due")
        for client_id in due:
            while await self._turn(client_id):
                pass
        return len(due)

    async def begin(self, client_id: str) -> None:
        """Write down the first of what is due of a client, which for most is all. What is left, or fails, is due."""
        with contextlib.suppress(TwinlensError):
            for _ in range(_TURNS_AT_FIRST):
                if not await self._turn(client_id):
                    return

    async def _turn(self, client_id: str) -> bool:
        """Whether any may be left."""
        parameters = {"client_id": client_id, "most": PRODUCTS_AT_ONCE}

        async def turn(connection: AsyncConnection[TupleRow]) -> bool:
            cursor = connection.cursor(row_factory=scalar_row)
            await cursor.execute(_QUERIES["name_due"], parameters)
            (left,) = await cursor.fetchall()
            return bool(left)

        return await self._owners.write(turn, "name_due")
