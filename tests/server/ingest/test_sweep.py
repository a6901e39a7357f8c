"""Sweeping: orphans go, whatever a row promises stays, and no upload loses its bytes however long it is held up."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from server.database.pool import open_pool
from server.errors import CatalogueBusy, MediaNotFound, StoreUnavailable, SweepRefused
from server.ingest import sweep as sweeping
from server.ingest.mark import Standing, settle
from server.ingest.storage import MARK, MediaStore
from server.ingest.sweep import Found, Sweep, Sweeper
from tests.support.databases import run_sql
from tests.support.house import House, picture

pytestmark = pytest.mark.anyio

NOW = timedelta()
ORPHANS = [f"media/acme/{1:032x}.png", f"thumbnails/acme/{1:032x}.webp", f"media/somebody/{2:032x}.jpg"]


@pytest.fixture
async def standing(house: House) -> Standing:
    return await asyncio.to_thread(settle, house.url, house.store)


def sweep_of(house: House, standing: Standing, older_than: timedelta = NOW) -> Sweep:
    return Sweep(house.pool, house.store, standing, older_than=older_than)


async def everything(sweep: Sweep) -> int:
    """As the command does it; how many objects are removed."""
    removed = 0
    async for orphans in sweep.orphans(Found()):
        removed += await sweep.remove(orphans)
    return removed


@pytest.fixture(params=["folder", "s3"])
async def filled(
    request: pytest.FixtureRequest, database_url: str, tmp_path: Path
) -> AsyncIterator[tuple[Sweep, MediaStore]]:
    """A store with ORPHANS and what is none, and a sweep of it."""
    url = None
    if request.param == "s3":
        url = f"{request.getfixturevalue('s3_url')}-{tmp_path.name}"
    store = MediaStore.at(url, tmp_path / "media")
    standing = await asyncio.to_thread(settle, database_url, store)
    for key in ORPHANS:
        await store.put(key, b"12345")
    async with open_pool(database_url, min_size=1, max_size=2, timeout=30) as pool:
        yield Sweep(pool, store, standing, older_than=NOW), store


async def keys_of(store: MediaStore) -> set[str]:
    return {one.key async for page in store.pages() for one in page}


async def test_orphans_are_removed_and_what_a_row_promises_stays(
    filled: tuple[Sweep, MediaStore], database_url: str
) -> None:
    sweep, store = filled
    promised = {f"media/acme/{3:032x}.png", f"thumbnails/acme/{3:032x}.webp", f"media/legacy/{4:032x}.jpg"}
    for key in promised:
        await store.put(key, b"bytes")
    for key in ("notes.txt", "media/acme/photo.png", "media/a/b/00000000000000000000000000000009.png"):
        await store.put(key, b"of somebody else")
    run_sql(database_url, """INSERT INTO products (id, "clientId", name) VALUES ('p', 'acme', 'P')""")
    insert = """INSERT INTO media (id, "productId", "clientId", "s3Key") VALUES (%s, 'p', 'acme', %s)"""
    run_sql(database_url, insert, (f"{3:032x}", f"media/acme/{3:032x}.png"))
    run_sql(database_url, insert, ("17", f"media/legacy/{4:032x}.jpg"))  # adopted: its key has another id than it has
    found, orphans = await sweep.look()
    assert {one.key for one in orphans} == set(ORPHANS)
    assert (found.objects, found.orphans, found.bytes) == (6, 3, 15)
    assert await keys_of(store) == {*promised, *ORPHANS}  # looking removes nothing
    assert await everything(sweep) == 3
    assert await keys_of(store) == promised
    assert await store.get("notes.txt") == b"of somebody else"
    assert await store.get("media/acme/photo.png")
    assert await everything(sweep) == 0


async def test_young_objects_are_left_alone(house: House, standing: Standing) -> None:
    await house.store.put(ORPHANS[0], b"bytes")
    assert await everything(sweep_of(house, standing, sweeping.OLDER_THAN)) == 0
    path = house.folder / ORPHANS[0]
    os.utime(path, (path.stat().st_atime, path.stat().st_mtime - 3700))
    assert await everything(sweep_of(house, standing, sweeping.OLDER_THAN)) == 1


async def test_writes_that_were_killed_are_removed_from_a_folder(house: House, standing: Standing) -> None:
    media, _ = await house.add()
    left = house.folder / f"{media.s3_key}#1"
    left.write_bytes(b"half")
    sweep = sweep_of(house, standing)
    found, orphans = await sweep.look()
    assert (found.unfinished, orphans) == ([left], [])
    assert await sweep.remove_unfinished(found.unfinished) == 1
    assert house.consistent
    left.write_bytes(b"half")
    assert (await sweep_of(house, standing, sweeping.OLDER_THAN).look())[0].unfinished == []


async def test_what_a_kill_between_the_row_and_its_bytes_leaves_is_removed(house: House, standing: Standing) -> None:
    gone, _ = await house.add(picture(1))
    await house.add(picture(2))
    run_sql(house.url, "DELETE FROM media WHERE id = %s", (gone.id,))
    assert not house.consistent
    assert await everything(sweep_of(house, standing)) == 2
    assert house.consistent


# --- an upload and a sweep at the same time --------------------------------------------------------------------------


async def test_an_upload_that_is_held_up_before_its_row_is_refused_once_its_bytes_are_swept(
    house: House, standing: Standing, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored, awake = asyncio.Event(), asyncio.Event()
    put = house.store.put

    async def fall_asleep(key: str, data: bytes) -> None:
        await put(key, data)
        if key.startswith("thumbnails/"):
            stored.set()
            await awake.wait()

    monkeypatch.setattr(house.store, "put", fall_asleep)
    adding = asyncio.create_task(house.add())
    await stored.wait()
    assert len(house.objects) == 2
    assert await everything(sweep_of(house, standing)) == 2
    awake.set()
    with pytest.raises(StoreUnavailable, match="send the picture again"):
        await adding
    assert (house.rows, house.objects) == (set(), set())
    await house.add()
    assert house.consistent


async def test_an_upload_that_waits_for_its_product_keeps_its_bytes(house: House, standing: Standing) -> None:
    with house.holding() as other:
        adding = asyncio.create_task(house.add())
        await house.blocked()
        assert len(house.objects) == 2
        assert await everything(sweep_of(house, standing)) == 0
        other.rollback()
        await adding
    assert house.consistent


async def test_an_upload_that_is_adding_its_row_keeps_its_bytes(house: House, standing: Standing) -> None:
    with psycopg.connect(house.url) as other:
        other.execute(f"LOCK TABLE {house.catalogue.space.table} IN SHARE MODE".encode())
        adding = asyncio.create_task(house.add())
        await house.blocked()
        assert (len(house.objects), house.rows) == (2, set())
        assert await everything(sweep_of(house, standing)) == 0
        other.rollback()
        await adding
    assert len(house.rows) == 1
    assert house.consistent


async def test_whatever_uploads_deletions_and_sweeps_do_at_once_each_row_has_its_bytes(
    house: House, standing: Standing
) -> None:
    drawn = random.Random(18)
    outcomes: list[str] = []

    async def come_and_go(first: int) -> None:
        for value in range(first, first + 12):
            try:
                media, _ = await house.add(picture(value, (8, 6 + value)))
                outcomes.append("added")
                if drawn.random() < 0.4:
                    await house.librarian.remove("acme", media.id)
                    outcomes.append("removed")
            except (StoreUnavailable, CatalogueBusy, MediaNotFound) as exc:
                outcomes.append(exc.code)

    async def sweep() -> None:
        while True:
            await everything(sweep_of(house, standing))

    sweeps = [asyncio.create_task(sweep()) for _ in range(2)]
    await asyncio.gather(*(come_and_go(100 * number) for number in range(4)))
    for task in sweeps:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    await everything(sweep_of(house, standing))
    assert {"added", "removed"} <= set(outcomes)
    assert len(house.rows) == outcomes.count("added") - outcomes.count("removed")
    assert house.consistent


# --- when not to -----------------------------------------------------------------------------------------------------


async def test_a_copy_of_the_database_sweeps_nothing(house: House, standing: Standing) -> None:
    with pytest.raises(SweepRefused, match="copy"):
        sweep_of(house, Standing(standing.id, own=False))
    assert await Sweeper(house.pool, house.store, Standing(standing.id, own=False)).sweep() == 0


async def test_a_store_that_goes_away_is_not_swept(house: House, standing: Standing) -> None:
    await house.store.put(ORPHANS[0], b"bytes")
    sweep = sweep_of(house, standing)
    _, orphans = await sweep.look()
    (house.folder / MARK).unlink()
    with pytest.raises(StoreUnavailable):
        await everything(sweep)
    with pytest.raises(StoreUnavailable):
        await sweep.remove(orphans)
    assert house.objects == {ORPHANS[0]}


async def test_the_background_removes_few_and_reports_many(
    house: House, standing: Standing, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    media, _ = await house.add()
    removed: list[int] = []
    sweeper = Sweeper(house.pool, house.store, standing, older_than=NOW, on_removed=removed.append)
    for number in range(sweeping.FEW + 1):
        await house.store.put(f"media/acme/{number:032x}.png", b"bytes")
    assert await sweeper.sweep() == 0
    assert "103 objects, 101 of which" in caplog.records[-1].getMessage()
    await house.store.delete(f"media/acme/{0:032x}.png")
    assert await sweeper.sweep() == sweeping.FEW
    assert removed == [sweeping.FEW]
    assert house.objects == {media.s3_key, media.thumbnail_key}


async def test_servers_take_turns(house: House, standing: Standing) -> None:
    one, other = sweep_of(house, standing), sweep_of(house, standing)
    assert not await one.take_turn()  # the store was marked a moment ago
    run_sql(house.url, """UPDATE twinlens_store SET "sweptAt" = now() - interval '7 hours'""")
    assert sorted(await asyncio.gather(one.take_turn(), other.take_turn())) == [False, True]


async def test_what_could_not_be_deleted_is_deleted_soon(house: House, standing: Standing) -> None:
    sweeper = Sweeper(house.pool, house.store, standing, first=False)
    house.librarian._letting_go._on_remain = sweeper.remember
    media, _ = await house.add()
    house.store.trouble = StoreUnavailable(reason="away")
    await house.librarian.remove("acme", media.id)
    await sweeper.delete_remembered()
    assert len(house.objects) == 2
    house.store.trouble = None
    await sweeper.delete_remembered()
    assert (house.rows, house.objects) == (set(), set())


async def test_what_a_media_had_before_its_picture_was_replaced_is_an_orphan(house: House, standing: Standing) -> None:
    media, _ = await house.add(picture(1))
    before = {media.s3_key: (house.folder / media.s3_key).read_bytes()}
    await house.librarian.put("acme", media.id, "p", picture(2), within=60)
    for key, data in before.items():  # as a crash leaves it between the row and its bytes
        await house.store.put(key, data)
    assert house.objects > {key for keys in house.rows for key in keys}
    assert await everything(sweep_of(house, standing)) == len(before)
    assert house.consistent
