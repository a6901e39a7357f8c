"""What a client's attributes are declared as, so that filters compare what came as texts as what it is; and which of
them its products are found by, when words are searched for."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from psycopg import AsyncConnection
from psycopg.rows import TupleRow, scalar_row, tuple_row

from server.catalogue.filters import AttributeType, Types
from server.database.connections import connect
from server.database.queries import Queries
from server.database.replica import Replica
from server.database.runner import Runner

MOST_SEARCHABLE = 20
"""Attributes that a client's products are found by the words of."""

_QUERIES = Queries.read("attributes.sql")


async def types_of(reads: Runner | Replica, client_id: str, names: Collection[str]) -> Types:
    """What those of these attributes are declared as that are declared. Without names, nothing is asked."""
    if not names:
        return {}
    parameters = {"client_id": client_id, "names": sorted(names)}
    return dict(await reads.fetch(_QUERIES["types"], parameters, tuple_row, "attribute_types", client=client_id))


class Declared(NamedTuple):
    """All that a client has declared."""

    types: dict[str, AttributeType]
    """By the attribute's name."""
    searchable: list[str]
    """The attributes whose words its products are found by, beside those of name and SKU."""


class Declarations:
    """All that clients declare of their attributes. Every method may raise CatalogueUnavailable."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    async def of(self, client_id: str) -> Declared:
        """What the client has declared, or what holds for those who have not."""
        parameters = {"client_id": client_id, "names": None}

        async def look(connection: AsyncConnection[TupleRow]) -> Declared:
            types = await (await connection.execute(_QUERIES["types"], parameters)).fetchall()
            return Declared(dict(types), await _searchable(connection, parameters))

        return await self._runner.read(look, "declarations", client=client_id)

    async def declare(
        self, client_id: str, types: Mapping[str, AttributeType], searchable: Sequence[str] | None = None
    ) -> Declared:
        """These in place of all that was declared. `searchable`: None for what holds for those who have not chosen.

        What products are found by changes once `Lexicon` has written it down. Raises BadParameter for a name that the
        database cannot hold.
        """
        named = dict(sorted(types.items()))
        chosen = None if searchable is None else [*dict.fromkeys(searchable)]
        parameters = {
            "client_id": client_id,
            "names": [*named],
            "types": [*named.values()],
            "searchable": chosen,
        }

        async def declare(connection: AsyncConnection[TupleRow]) -> Declared:
            async with connection.transaction():
                await connection.execute(_QUERIES["declare"], parameters)
                await connection.execute(
                    _QUERIES["choose_usual" if chosen is None else "choose_searchable"], parameters
                )
                return Declared(named, await _searchable(connection, parameters))

        return await self._runner.write(declare, "declare_attributes", client=client_id, answers=lambda made: made)


async def _searchable(connection: AsyncConnection[TupleRow], parameters: Mapping[str, object]) -> list[str]:
    cursor = connection.cursor(row_factory=scalar_row)
    await cursor.execute(_QUERIES["searchable"], parameters)
    (names,) = await cursor.fetchall()
    return list(names)


def declared_at(url: str, client_id: str) -> dict[str, AttributeType]:
    """The types of `Declarations.of`, for a command. Raises DatabaseUnusable."""
    with connect(url) as connection:
        return dict(connection.execute(_QUERIES["types"], {"client_id": client_id, "names": None}).fetchall())
