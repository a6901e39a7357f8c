"""Many changes of a client's products at once: each comes to what the single call would have come to, in their order.

All of a batch is one transaction, in which some neighbours share a savepoint: they are sent together, in one round
trip, and where one of them fails, each half of them is sent again by itself, down to the one that fails. So a batch
that breaks off has changed nothing, and one that was answered has changed all that its answer says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import psycopg
from psycopg import AsyncConnection, AsyncCursor
from psycopg.rows import TupleRow, tuple_row
from psycopg.types.json import Jsonb

from server.catalogue.ids import id_elsewhere
from server.catalogue.rows import ANYTHING
from server.catalogue.turns import Turns
from server.database.failures import translated
from server.database.locks import LOCK_TIMEOUT_SECONDS, LOCKS_OF_BATCHES
from server.database.queries import Queries
from server.database.runner import Runner
from server.errors import CatalogueConflict, ProductNotFound, TwinlensError

MOST_CHANGES = 1000
"""In one batch."""

_TOGETHER = 50
# A batch of a thousand takes about a second, and those of one client go one after the other: two that lock the same
# products in another order would wait for each other.
_PATIENCE_SECONDS = 10.0
_TRIES = 3  # as of the single call: a twin of the change can leave a statement without a row, or be in its way

_SAVEPOINT, _BACK, _ON = b"SAVEPOINT part", b"ROLLBACK TO part; RELEASE part", b"RELEASE part"

# What one change can bring about, and the others need not suffer for. Whatever else happens ends the transaction.
_OF_ONE = (psycopg.IntegrityError, psycopg.DataError, psycopg.errors.ProgramLimitExceeded, UnicodeEncodeError)


@dataclass(frozen=True, slots=True)
class Upsert:
    """Create a product, or replace what it is."""

    id: str
    name: str
    sku: str | None = None
    is_active: bool = True
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete a product with its media."""

    id: str


Change = Upsert | Delete

Outcome = Literal["created", "replaced", "deleted"] | TwinlensError
"""What a change came to; an error has changed nothing."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What a batch came to."""

    outcomes: list[Outcome]
    """Of each change, in their order."""
    keys: list[str]
    """Of the bytes and thumbnails whose rows are gone."""


class _NotTogether(Exception):
    """One of several changes that were sent together has to be tried again by itself."""


class Batches:
    """Applies batches to the catalogue."""

    def __init__(self, queries: Queries, runner: Runner) -> None:
        self._queries = queries
        self._runner = runner
        self._turns = Turns(1, _PATIENCE_SECONDS)

    async def apply(
        self, client_id: str, changes: Sequence[Change | TwinlensError], *, atomic: bool = False
    ) -> Applied:
        """Apply changes in their order; an error in the place of one is what it comes to.

        A change sees what those before it have done, also of the same product. With `atomic`, all of them are made or
        none: raises the first error, whose sentence says which one it is. Raises CatalogueUnavailable's kinds; nothing
        is changed then, but for OutcomeUnknown, after which all of it may be.
        """
        for place, change in enumerate(changes):
            if atomic and isinstance(change, TwinlensError):
                raise _refusal(place, change)

        async def apply(connection: AsyncConnection[TupleRow]) -> Applied:
            applied = Applied([], [])
            async with connection.transaction():
                await self._take_turn(connection, client_id)
                for start in range(0, len(changes), _TOGETHER):
                    await self._apply(connection, client_id, changes[start : start + _TOGETHER], applied, atomic)
            return applied

        async with self._turns.turn(client_id):
            return await self._runner.write(apply, "batch", client=client_id, answers=lambda applied: applied)

    async def _take_turn(self, connection: AsyncConnection[TupleRow], client_id: str) -> None:
        """Wait for the client's batches on other servers; for single changes no longer than those wait."""
        parameters = {"locks": LOCKS_OF_BATCHES, "client_id": client_id}
        async with connection.pipeline():
            await connection.execute(_lock_timeout(_PATIENCE_SECONDS))
            await connection.execute(self._queries["batch_turn"], parameters)
            await connection.execute(_lock_timeout(LOCK_TIMEOUT_SECONDS))

    async def _apply(
        self,
        connection: AsyncConnection[TupleRow],
        client_id: str,
        changes: Sequence[Change | TwinlensError],
        applied: Applied,
        atomic: bool,
    ) -> None:
        """Apply some neighbours: together, or, where one of them fails, each half by itself."""
        failure: Exception | None = None
        for _ in range(_TRIES if len(changes) == 1 else 1):
            try:
                done, keys = await self._together(connection, client_id, changes)
            except (*_OF_ONE, _NotTogether) as exc:
                await connection.execute(_BACK)
                failure = exc
                if isinstance(exc, (psycopg.errors.UniqueViolation, _NotTogether)):
                    continue
                break
            await connection.execute(_ON)
            for outcome in done:
                _add(outcome, applied, atomic)
            applied.keys.extend(keys)
            return
        if len(changes) == 1 and failure is not None:
            _add(_translation(failure), applied, atomic)
            return
        half = len(changes) // 2
        for some in (changes[:half], changes[half:]):
            await self._apply(connection, client_id, some, applied, atomic)

    async def _together(
        self, connection: AsyncConnection[TupleRow], client_id: str, changes: Sequence[Change | TwinlensError]
    ) -> tuple[list[Outcome], list[str]]:
        """Send changes in one go, after a savepoint. Raises psycopg's errors, and _NotTogether."""
        sent: list[tuple[Change, list[AsyncCursor[TupleRow]]] | TwinlensError] = []
        async with connection.pipeline():
            await connection.execute(_SAVEPOINT)
            for change in changes:
                if isinstance(change, TwinlensError):
                    sent.append(change)
                    continue
                cursors = []
                for name in _STATEMENTS[type(change)]:
                    cursor = connection.cursor(row_factory=tuple_row)
                    await cursor.execute(self._queries[name], _parameters(client_id, change))
                    cursors.append(cursor)
                sent.append((change, cursors))
        outcomes: list[Outcome] = []
        keys: list[str] = []
        for one in sent:
            if isinstance(one, TwinlensError):
                outcomes.append(one)
            elif (outcome := await _outcome(*one, keys)) is not None:
                outcomes.append(outcome)
            else:
                raise _NotTogether
        return outcomes, keys


# Of a delete: the product is locked before its media are looked for, as of the single call.
_STATEMENTS: Mapping[type[Change], Sequence[str]] = {
    Upsert: ("put_product",),
    Delete: ("batch_lock_product", "batch_delete_media", "batch_delete_product"),
}


def _lock_timeout(seconds: float) -> bytes:
    return f"SET LOCAL lock_timeout = {round(seconds * 1000)}".encode()


def _parameters(client_id: str, change: Change) -> dict[str, Any]:
    if isinstance(change, Upsert):
        return {
            "id": change.id,
            "elsewhere": id_elsewhere(client_id, change.id),
            "client_id": client_id,
            "name": change.name,
            "sku": change.sku,
            "is_active": change.is_active,
            "attributes": Jsonb(dict(change.attributes)),
            **ANYTHING.parameters,
        }
    return {"id": change.id, "client_id": client_id}


async def _outcome(change: Change, cursors: Sequence[AsyncCursor[TupleRow]], keys: list[str]) -> Outcome | None:
    """What the statements of a change came to; None where they have to run again. `keys` gets those that are gone."""
    if isinstance(change, Upsert):
        stored = await cursors[0].fetchone()
        return None if stored is None else "created" if stored[-1] else "replaced"
    locked, media, _ = cursors
    if await locked.fetchone() is None:
        return ProductNotFound()
    keys += [key for row in await media.fetchall() for key in row if key is not None]
    return "deleted"


def _add(outcome: Outcome, applied: Applied, atomic: bool) -> None:
    """Add what a change came to. Raises it where it is an error, and all are to be made or none."""
    if atomic and isinstance(outcome, TwinlensError):
        raise _refusal(len(applied.outcomes), outcome)
    applied.outcomes.append(outcome)


def _translation(error: Exception) -> TwinlensError:
    """The error in our words, as the single call has it."""
    if isinstance(error, _NotTogether):
        return CatalogueConflict("This product was being created or deleted at this moment; please try again.")
    try:
        with translated():
            raise error
    except TwinlensError as exc:
        return exc


def _refusal(place: int, error: TwinlensError) -> TwinlensError:
    """The error of a batch of which nothing is done because of one of its items."""
    error.args = (f"items[{place}]: {error.sentence} Nothing of the batch was changed.",)
    return error
