"""What a server knows of keys: how it learns of changes, and for how long it trusts what it knows."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from server.access import keyring as module
from server.access import stored_keys
from server.access.keyring import TRUSTED_SECONDS, Keyring
from server.database.connections import Direct
from server.database.pool import Pool, open_pool
from server.database.runner import Runner
from server.errors import CatalogueUnavailable, KeyInvalid, KeysUnknown
from tests.support.databases import run_sql
from tests.support.keys import new_key, revoke
from tests.support.process import PATIENCE

pytestmark = pytest.mark.anyio


class Clock:
    """Time that a test lets pass."""

    def __init__(self) -> None:
        self.passed = 0.0

    def __call__(self) -> float:
        return self.passed

    def today(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.passed)


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    async with open_pool(database_url, min_size=1, max_size=2, timeout=2) as pool:
        yield pool


@pytest.fixture
def clock() -> Clock:
    return Clock()


def keyring_of(pool: Pool, clock: Clock, **options: Any) -> Keyring:
    return Keyring(Runner(pool), clock=clock, today=clock.today, **options)


def refused(keyring: Keyring, key: str) -> bool:
    try:
        keyring.principal(key)
    except KeyInvalid:
        return True
    return False


async def test_nothing_is_known_before_the_first_look(pool: Pool, clock: Clock) -> None:
    keyring = keyring_of(pool, clock)
    with pytest.raises(KeysUnknown):
        _ = keyring.needed
    await keyring.refresh()
    assert not keyring.needed
    assert len(keyring.url_secret) == 32


async def test_the_first_key_turns_keys_on_and_they_stay_on_when_it_ends(
    pool: Pool, clock: Clock, database_url: str
) -> None:
    keyring = keyring_of(pool, clock)
    made = new_key(database_url, "search")
    await keyring.refresh()
    assert keyring.needed
    caller = keyring.principal(made.key)
    assert (caller.client_id, caller.key_id, sorted(caller.scopes)) == ("acme", made.stored.id, ["search"])
    revoke(database_url, made)
    await keyring.refresh()
    assert keyring.needed
    assert refused(keyring, made.key)


async def test_a_key_expires_by_the_clock_without_a_look(pool: Pool, clock: Clock, database_url: str) -> None:
    keyring = keyring_of(pool, clock)
    made = new_key(database_url, "search", expires_at=datetime.now(UTC) + timedelta(seconds=50))
    await keyring.refresh()
    assert not refused(keyring, made.key)
    clock.passed = 51.0
    assert refused(keyring, made.key)
    assert keyring.needed


async def test_without_a_database_what_is_known_counts_for_a_minute(
    pool: Pool, clock: Clock, database_url: str
) -> None:
    keyring = keyring_of(pool, clock)
    made = new_key(database_url, "search")
    await keyring.refresh()
    await pool.close()
    clock.passed = TRUSTED_SECONDS - 1
    with pytest.raises(CatalogueUnavailable):
        await keyring.refresh()
    assert keyring.needed
    assert not refused(keyring, made.key)
    clock.passed = TRUSTED_SECONDS + 1
    with pytest.raises(KeysUnknown):
        _ = keyring.needed
    assert keyring.on  # as last known


async def test_an_exposed_server_needs_keys_although_they_are_off(pool: Pool, clock: Clock, database_url: str) -> None:
    made = new_key(database_url, "read")
    with psycopg.connect(database_url, autocommit=True) as connection:
        stored_keys.turn(connection, on=False)
    loopback, exposed = keyring_of(pool, clock), keyring_of(pool, clock, always=True)
    for keyring in (loopback, exposed):
        await keyring.refresh()
        assert not refused(keyring, made.key)
    assert (loopback.needed, exposed.needed) == (False, True)


async def test_a_restored_database_is_read_anew_however_often_it_was_changed(
    pool: Pool, clock: Clock, database_url: str
) -> None:
    """A count would say the same after as many changes as were lost."""
    keyring = keyring_of(pool, clock)
    (before,) = run_sql(database_url, "SELECT version FROM twinlens_access")
    lost = new_key(database_url, "read")
    await keyring.refresh()
    assert not refused(keyring, lost.key)
    run_sql(database_url, "ALTER TABLE twinlens_keys DISABLE TRIGGER ALL; DELETE FROM twinlens_keys")
    run_sql(database_url, "ALTER TABLE twinlens_keys ENABLE TRIGGER ALL")
    run_sql(database_url, "ALTER TABLE twinlens_access DISABLE TRIGGER ALL")
    run_sql(database_url, "UPDATE twinlens_access SET version = %s", before)
    run_sql(database_url, "ALTER TABLE twinlens_access ENABLE TRIGGER ALL")
    new_key(database_url, "read")
    await keyring.refresh()
    assert refused(keyring, lost.key)


async def test_what_no_trigger_saw_is_seen_within_a_minute(pool: Pool, clock: Clock, database_url: str) -> None:
    keyring = keyring_of(pool, clock)
    made = new_key(database_url, "read")
    await keyring.refresh()
    run_sql(database_url, "ALTER TABLE twinlens_keys DISABLE TRIGGER ALL; DELETE FROM twinlens_keys")
    await keyring.refresh()
    assert not refused(keyring, made.key)
    clock.passed = TRUSTED_SECONDS + 1
    await keyring.refresh()
    assert refused(keyring, made.key)


async def test_changes_at_the_same_time_are_each_seen(pool: Pool, clock: Clock, database_url: str) -> None:
    keyring = keyring_of(pool, clock)
    with psycopg.connect(database_url) as one, psycopg.connect(database_url) as other:
        for connection in (one, other):
            connection.execute("SELECT")  # begins a transaction that ends where this test says
        first = stored_keys.create(one, stored_keys.Wanted("a", ("read",)))
        waiting = asyncio.create_task(asyncio.to_thread(stored_keys.create, other, stored_keys.Wanted("b", ("read",))))
        await asyncio.sleep(0.1)
        one.commit()
        second = await waiting
        await keyring.refresh()
        assert (refused(keyring, first.key), refused(keyring, second.key)) == (False, True)
        other.commit()
    await keyring.refresh()
    assert not refused(keyring, second.key)


@asynccontextmanager
async def going_on(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(one) for one in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.01)


LISTENERS = """FROM pg_stat_activity
    WHERE query LIKE '%LISTEN%' AND pid <> pg_backend_pid() AND datname = current_database()"""


def heard(url: str) -> bool:
    """Whether somebody listens for changes."""
    return run_sql(url, f"SELECT count(*) {LISTENERS}") == [(1,)]


async def test_a_change_is_heard_of_as_it_is_made_and_again_after_a_break(
    pool: Pool, clock: Clock, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 3600.0)
    monkeypatch.setattr(module, "_AGAIN_SECONDS", 0.05)
    keyring = keyring_of(pool, clock, direct=Direct(database_url))
    await keyring.refresh()
    async with going_on(keyring.run(), keyring.listen()):
        await until(lambda: heard(database_url))
        made = new_key(database_url, "read")
        await until(lambda: not refused(keyring, made.key))
        assert run_sql(database_url, f"SELECT pg_terminate_backend(pid) {LISTENERS}") == [(True,)]
        revoke(database_url, made)  # while nobody hears
        await until(lambda: refused(keyring, made.key))
        await until(lambda: heard(database_url))


async def test_behind_a_pooler_of_transactions_the_keys_are_looked_at_alone(
    pool: Pool, clock: Clock, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.05)
    keyring = keyring_of(pool, clock, direct=Direct(database_url, "transaction"))
    await asyncio.wait_for(keyring.listen(), PATIENCE)
    async with going_on(keyring.run()):
        made = new_key(database_url, "read")
        await until(lambda: not refused(keyring, made.key))


async def test_a_database_that_is_away_is_a_line_in_the_log_and_not_one_each_look(
    pool: Pool, clock: Clock, database_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(module, "_AGAIN_SECONDS", 0.01)
    caplog.set_level(logging.INFO, module.__name__)
    # Nobody listens at this port.
    keyring = keyring_of(pool, clock, direct=Direct("postgresql://nobody:hush@127.0.0.1:1/none"))
    await keyring.refresh()
    await pool.close()

    def said(words: str) -> int:
        return sum(words in one.getMessage() for one in caplog.records)

    async with going_on(keyring.run(), keyring.listen()):
        await until(lambda: said("cannot be looked at"))
        await asyncio.sleep(0.2)
        clock.passed = TRUSTED_SECONDS + 1
        await until(lambda: said("callers are refused"))
        await asyncio.sleep(0.2)
    assert (said("cannot be looked at"), said("callers are refused")) == (1, 1)
    assert not [one for one in caplog.records if one.exc_info]
    assert "hush" not in caplog.text
