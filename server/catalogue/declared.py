"""What a client's attributes are declared as, so that filters compare what came as texts as what it is."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from psycopg import AsyncConnection
from psycopg.rows import TupleRow, tuple_row

from server.catalogue.filters import AttributeType, Types
from server.database.connections import connect
from server.database.queries import Queries
from server.database.replica import Replica
from server.database.runner import Runner

_QUERIES = Queries.read("attributes.sql")


async def types_of(reads: Runner | Replica, client_id: str, names: Collection[str]) -> Types:
    """What those of these attributes are declared as that are declared. Without names, nothing is asked."""
    if not names:
        return {}
    parameters = {"client_id": client_id, "names": sorted(names)}
    return dict(await reads.fetch(_QUERIES["types"], parameters, tuple_row, "attribute_types", client=client_id))


class Declarations:
    """All that clients declare of their attributes. Every method may raise CatalogueUnavailable."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    async def of(self, client_id: str) -> dict[str, AttributeType]:
        """By the attribute's name."""
        parameters = {"client_id": client_id, "names": None}
        rows = await self._runner.fetch(_QUERIES["types"], parameters, tuple_row, "attribute_types", client=client_id)
        return dict(rows)

    async def declare(self, client_id: str, types: Mapping[str, AttributeType]) -> dict[str, AttributeType]:
        """These in place of all that was declared. Raises BadParameter for a name that the database cannot hold."""
        named = dict(sorted(types.items()))
        parameters = {"client_id": client_id, "names": [*named], "types": [*named.values()]}

        async def declare(connection: AsyncConnection[TupleRow]) -> dict[str, AttributeType]:
            await connection.execute(_QUERIES["declare"], parameters)
            return named

        return await self._runner.write(declare, "declare_attributes", client=client_id, answers=lambda made: made)


def declared_at(url: str, client_id: str) -> dict[str, AttributeType]:
    """As `Declarations.of`, for a command. Raises DatabaseUnusable."""
    with connect(url) as connection:
        return dict(connection.execute(_QUERIES["types"], {"client_id": client_id, "names": None}).fetchall())
