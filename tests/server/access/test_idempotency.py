"""The keys of writes in the database: what they stand for, for how long, and how many of them are kept."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import AsyncIterator

import pytest
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from server.access.idempotency import Answer, Claim, Ledger
from server.database import once
from server.database.pool import open_pool
from server.database.runner import Runner
from server.errors import CatalogueBusy, IdempotencyKeyInUse, IdempotencyKeyReused
from tests.support.databases import run_sql

pytestmark = pytest.mark.anyio

ASKED, OTHER = (hashlib.sha256(text).digest() for text in (b"this", b"that"))
DONE = Answer(201, b'{"id":"shoe"}', '"65f0c1a9"')


@pytest.fixture
async def runner(database_url: str) -> AsyncIterator[Runner]:
    async with open_pool(database_url, min_size=1, max_size=4, timeout=30) as pool:
        yield Runner(pool)


@pytest.fixture
def ledger(runner: Runner) -> Ledger:
    return Ledger(runner)


async def claimed(ledger: Ledger, key: str = "k", client_id: str = "acme") -> Claim:
    claim = await ledger.begin(client_id, key, ASKED, within=30)
    assert isinstance(claim, Claim)
    return claim


def keys(url: str) -> list[str]:
    return [key for (key,) in run_sql(url, "SELECT key FROM twinlens_idempotency ORDER BY key")]


async def test_a_key_stands_for_its_request_until_that_is_answered_and_for_the_answer_then(ledger: Ledger) -> None:
    claim = await claimed(ledger)
    with pytest.raises(IdempotencyKeyInUse):
        await ledger.begin("acme", "k", ASKED, within=30)
    with pytest.raises(IdempotencyKeyReused):
        await ledger.begin("acme", "k", OTHER, within=30)
    await ledger.keep_alone(claim, DONE)
    assert await ledger.begin("acme", "k", ASKED, within=30) == DONE
    with pytest.raises(IdempotencyKeyReused):
        await ledger.begin("acme", "k", OTHER, within=30)


async def test_a_key_that_is_released_is_free_and_an_answer_cannot_be_released(
    ledger: Ledger, database_url: str
) -> None:
    claim = await claimed(ledger)
    await ledger.release(claim)
    assert keys(database_url) == []
    claim = await claimed(ledger)
    await ledger.keep_alone(claim, DONE)
    await ledger.release(claim)
    assert await ledger.begin("acme", "k", ASKED, within=30) == DONE


async def test_a_key_that_is_released_soon_is_released_before_the_end(ledger: Ledger, database_url: str) -> None:
    ledger.release_soon(await claimed(ledger))
    await ledger.close()
    assert keys(database_url) == []


async def test_of_many_who_come_at_once_one_has_the_key(ledger: Ledger) -> None:
    async def begin() -> Claim | Answer | None:
        try:
            return await ledger.begin("acme", "k", ASKED, within=30)
        except IdempotencyKeyInUse:
            return None

    came = await asyncio.gather(*(begin() for _ in range(12)))
    assert [one is not None for one in came].count(True) == 1


async def test_an_answer_is_kept_with_the_write_or_not_at_all(
    ledger: Ledger, runner: Runner, database_url: str
) -> None:
    claim = await claimed(ledger)

    async def keep(connection: AsyncConnection[TupleRow], made: object) -> None:
        await ledger.keep(connection, claim, Answer(200, str(made).encode()))

    async def write(connection: AsyncConnection[TupleRow]) -> str:
        await connection.execute("""INSERT INTO products (id, "clientId", name) VALUES ('p', 'acme', 'P')""")
        return "made"

    async def write_in_vain(connection: AsyncConnection[TupleRow]) -> str:
        await write(connection)
        raise CatalogueBusy

    with once.once(keep) as kept:
        with pytest.raises(CatalogueBusy):
            await runner.write(write_in_vain, answers=lambda made: made)
        assert not kept.kept
        assert run_sql(database_url, "SELECT FROM products") == []
        await runner.write(write)  # of which no answer is made
        assert not kept.kept
        run_sql(database_url, "DELETE FROM products")
        await runner.write(write, answers=lambda made: made)
        assert kept.kept
    assert await ledger.begin("acme", "k", ASKED, within=30) == Answer(200, b"made")

    gone = Claim("acme", "k", uuid.uuid4())  # whose place another one has taken

    async def late(connection: AsyncConnection[TupleRow], made: object) -> None:
        await ledger.keep(connection, gone, DONE)

    run_sql(database_url, "DELETE FROM products")
    with once.once(late), pytest.raises(IdempotencyKeyInUse):
        await runner.write(write, answers=lambda made: made)
    assert run_sql(database_url, "SELECT FROM products") == []


async def test_what_does_not_count_any_more_is_removed_and_so_are_the_oldest_of_too_many(
    ledger: Ledger, runner: Runner, database_url: str
) -> None:
    for number in range(6):
        await ledger.keep_alone(await claimed(ledger, f"k{number}"), DONE)
    await claimed(ledger, "under-way")
    await ledger.keep_alone(await claimed(ledger, "k0", "other"), DONE)
    assert await ledger.forget_some(runner) == 0
    run_sql(database_url, "UPDATE twinlens_idempotency SET until = now() WHERE key IN ('k1', 'k2')")
    assert await ledger.forget_some(runner, most=1) == 1
    assert await ledger.forget_some(runner, most=1) == 1
    assert keys(database_url) == ["k0", "k0", "k3", "k4", "k5", "under-way"]
    # Of `acme` there are five, one of them under way.
    assert await ledger.forget_some(runner, kept=3) == 2
    assert keys(database_url) == ["k0", "k4", "k5", "under-way"]
    assert run_sql(database_url, """SELECT "clientId" FROM twinlens_idempotency WHERE key = 'k0'""") == [("other",)]
