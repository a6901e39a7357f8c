"""Idempotency keys: a write that came with one is made once, however often it is sent within a day.

A key stands for a request of its client's from before the request writes anything. Its answer is kept by the very
transaction that writes, so a crash leaves either both or none; what is left then is a key whose request is under way,
which another one may take over once its deadline is long past. Only answers to what was done are kept: a refusal has
changed nothing, so its key is free again.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import TupleRow, class_row, scalar_row

from server.database import outcome
from server.database.cancelling import end
from server.database.queries import Queries
from server.database.runner import Runner
from server.errors import (
    CatalogueUnavailable,
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
    OutcomeUnknown,
    TwinlensError,
)

LASTING = timedelta(hours=24)
"""For so long an answer is kept."""

MOST_KEPT = 200_000
"""Answers of one client; beyond that, the oldest are forgotten sooner."""

LONGEST_KEY = 255

# A request may go on beyond its deadline, since a write is not left in the middle; statements end within that time.
_GRACE_SECONDS = 60.0
_CLOSING_SECONDS = 3.0
_TRIES = 3
_FORGET_EACH_SECONDS = 600.0
_FORGET_BATCH = 5000
_FORGET_PAUSE_SECONDS = 0.2

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as it is kept: its status, its body, which is JSON, and its ETag, if it has one."""

    status: int
    body: bytes
    etag: str | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """What a request has once its key stands for it: the right to keep its answer."""

    client_id: str
    key: str
    token: uuid.UUID


@dataclass(frozen=True, slots=True)
class _Known:
    fingerprint: bytes
    status: int | None
    body: bytes | None
    etag: str | None
    left: float


class Ledger:
    """The keys of all clients. Every method may raise CatalogueUnavailable's kinds."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._queries = Queries.read("idempotency.sql")
        self._releasing: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Wait for keys that are being released; for some seconds."""
        if self._releasing:
            _, late = await asyncio.wait(self._releasing, timeout=_CLOSING_SECONDS)
            await end(*late)

    async def begin(self, client_id: str, key: str, fingerprint: bytes, *, within: float) -> Claim | Answer:
        """Have a client's key stand for this request, which will be answered within so many seconds; or the answer that
        the same request has had. `fingerprint`: SHA-256 of what is asked.

        Raises IdempotencyKeyReused where the key stands for another request, IdempotencyKeyInUse while the first one is
        under way.
        """
        asked = {
            "client_id": client_id,
            "key": key,
            "fingerprint": fingerprint,
            "within": timedelta(seconds=within + _GRACE_SECONDS),
        }

        async def begin(connection: AsyncConnection[TupleRow]) -> Claim | Answer:
            for _ in range(_TRIES):  # what a key stood for may end between two statements
                token = await self._token(connection, "claim", asked)
                if token is not None:
                    return Claim(client_id, key, token)
                cursor = connection.cursor(row_factory=class_row(_Known))
                known = await (await cursor.execute(self._queries["known"], asked)).fetchone()
                if known is None:
                    continue
                if known.left > 0:
                    return _answer_of(known, fingerprint)
                token = await self._token(connection, "take_over", asked)
                if token is not None:
                    return Claim(client_id, key, token)
            raise IdempotencyKeyInUse

        with outcome.unwatched():
            try:
                return await self._runner.write(begin, "begin_once", client=client_id)
            except OutcomeUnknown as exc:  # nothing of the catalogue was changed
                raise CatalogueUnavailable from exc

    async def keep(self, connection: AsyncConnection[TupleRow], claim: Claim, answer: Answer) -> None:
        """Keep the answer within the caller's transaction.

        Raises IdempotencyKeyInUse where the request took so long that another one has taken its place.
        """
        cursor = await connection.execute(
            self._queries["keep"],
            {
                **_named(claim),
                "status": answer.status,
                "body": answer.body,
                "etag": answer.etag,
                "lasting": LASTING,
            },
        )
        if cursor.rowcount != 1:
            raise IdempotencyKeyInUse

    async def keep_alone(self, claim: Claim, answer: Answer) -> None:
        """Keep the answer to a request that had nothing to write. Where that fails, the next one finds it out anew."""

        async def keep(connection: AsyncConnection[TupleRow]) -> None:
            await self.keep(connection, claim, answer)

        try:
            with outcome.unwatched():
                await self._runner.write(keep, "keep_answer", client=claim.client_id)
        except TwinlensError as exc:
            _log.info("The answer to a request with an idempotency key is not kept: %s", exc.line)

    async def release(self, claim: Claim) -> None:
        """The request changed nothing: its key stands for nothing any more, at once or, where the database is away,
        once its time is over."""

        async def release(connection: AsyncConnection[TupleRow]) -> None:
            await connection.execute(self._queries["release"], _named(claim))

        try:
            with outcome.unwatched():
                await self._runner.write(release, "release_key", client=claim.client_id)
        except TwinlensError as exc:
            _log.info("An idempotency key stands for a request that was refused until its time is over: %s", exc.line)

    def release_soon(self, claim: Claim) -> None:
        """The same for a request that must not wait any more."""
        task = asyncio.create_task(self.release(claim))
        self._releasing.add(task)
        task.add_done_callback(self._releasing.discard)

    async def forget(self, owners: Runner) -> None:
        """Remove what does not count any more, for as long as the server runs; a few rows at a time.

        `owners`: who sees the rows of all clients.
        """
        while True:
            try:
                more = await self.forget_some(owners) >= _FORGET_BATCH
            except TwinlensError as exc:
                _log.warning("Old idempotency keys could not be removed; another try follows: %s", exc.line)
                more = False
            await asyncio.sleep(_FORGET_PAUSE_SECONDS if more else _FORGET_EACH_SECONDS)

    async def forget_some(self, owners: Runner, *, most: int = _FORGET_BATCH, kept: int = MOST_KEPT) -> int:
        """Remove rows whose time is over, and the oldest of clients with more than `kept`: some of each; how many."""

        async def forget(connection: AsyncConnection[TupleRow]) -> int:
            gone = 0
            for name in ("forget", "trim"):
                cursor = connection.cursor(row_factory=scalar_row)
                await cursor.execute(self._queries[name], {"most": most, "kept": kept})
                gone += int(await cursor.fetchone() or 0)
            return gone

        return await owners.write(forget)

    async def _token(
        self, connection: AsyncConnection[TupleRow], name: str, asked: Mapping[str, Any]
    ) -> uuid.UUID | None:
        cursor = connection.cursor(row_factory=scalar_row)
        found: uuid.UUID | None = await (await cursor.execute(self._queries[name], asked)).fetchone()
        return found


def _answer_of(known: _Known, fingerprint: bytes) -> Answer:
    """The answer that is kept. Raises IdempotencyKeyReused, IdempotencyKeyInUse."""
    if known.fingerprint != fingerprint:
        raise IdempotencyKeyReused
    if known.status is None or known.body is None:
        raise IdempotencyKeyInUse
    return Answer(known.status, known.body, known.etag)


def _named(claim: Claim) -> dict[str, Any]:
    return {"client_id": claim.client_id, "key": claim.key, "token": claim.token}
