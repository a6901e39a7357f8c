"""A backup is one moment of a catalogue, whole, whatever is written meanwhile."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from functools import partial
from pathlib import Path

import psycopg
import pytest

from server.backup import backup as making
from server.backup.archive import PROBLEMS, STORE, Archive
from server.backup.snapshot import taken
from server.database.connections import Direct
from server.errors import CatalogueUnavailable, DatabaseUnusable, StoreRefused, SweepRefused
from server.ingest.backups import backup_runs
from server.ingest.librarian import Librarian
from server.ingest.mark import settle
from server.ingest.storage import MARK, MediaStore, Opened
from server.ingest.sweep import Sweep, Sweeper
from tests.support.backups import PICTURES, VECTORS, Place, digests_hold
from tests.support.databases import run_sql
from tests.support.house import House, open_house, picture

pytestmark = pytest.mark.anyio


def names(path: Path) -> list[str]:
    with Archive(path) as archive:
        archive.check()
        return [member.name for member in archive.members()]


class Slow(MediaStore):
    """A store of which the first object is not given before something else has happened."""

    def __init__(self, folder: Path, *, until: threading.Event) -> None:
        store = MediaStore.at(None, folder)
        super().__init__(store._open_store, store.where, store.folder)
        self.asked = threading.Event()
        self._until = until

    async def open(self, key: str, *, at_once: int) -> Opened:
        self.asked.set()
        await asyncio.to_thread(self._until.wait)
        return await super().open(key, at_once=at_once)


def test_it_holds_the_database_the_pictures_and_the_mark(furnished: Place, backup: Path) -> None:
    found = {name.removeprefix(STORE) for name in names(backup) if name.startswith(STORE)}
    assert found == {*furnished.objects, MARK}
    assert len(found) == 2 * PICTURES + VECTORS + 1


def test_it_is_for_its_owner_alone(backup: Path) -> None:
    assert backup.stat().st_mode & 0o777 == 0o600


def test_it_says_what_it_is(furnished: Place, tmp_path: Path) -> None:
    made = furnished.back_up(tmp_path / "backup.tar")
    assert (made.manifest.products, made.manifest.media) == (3 + VECTORS + 1, PICTURES + VECTORS)
    assert made.copied.objects == made.manifest.objects == 2 * PICTURES + VECTORS
    assert made.bytes == (tmp_path / "backup.tar").stat().st_size
    assert (made.copied.missing, made.copied.changed) == (0, 0)


def test_without_the_pictures_it_is_the_database_alone(furnished: Place, tmp_path: Path) -> None:
    store = MediaStore.at(None, tmp_path / "not there")
    made = furnished.back_up(tmp_path / "backup.tar", store, with_media=False)
    assert not [name for name in names(tmp_path / "backup.tar") if name.startswith(STORE)]
    assert not made.manifest.with_media


async def test_what_is_deleted_meanwhile_keeps_its_bytes_until_the_backup_is_done(
    database_url: str, tmp_path: Path
) -> None:
    """Sweeping by hand and in the background included."""
    go_on, path = threading.Event(), tmp_path / "backup.tar"
    async with open_house(database_url, tmp_path / "store") as house:
        standing = await asyncio.to_thread(settle, house.url, house.store)
        sweeper = Sweeper(house.pool, house.store, standing)
        runs = partial(backup_runs, house.pool)
        librarian = Librarian(house.embedder, house.catalogue, house.store, sweeper.remember, backup_runs=runs)
        media = [(await house.add(picture(value)))[0] for value in range(3)]
        before = house.objects
        slow = Slow(house.folder, until=go_on)
        place = Place(house.url, house.folder)
        backing_up = asyncio.create_task(asyncio.to_thread(place.back_up, path, slow))
        await asyncio.to_thread(slow.asked.wait)
        assert await runs()

        await librarian.remove("acme", media[0].id)
        await librarian.remove_product("acme", "p")
        run_sql(house.url, "DELETE FROM media")
        sweep = Sweep(house.pool, house.store, standing, older_than=-timedelta(minutes=1))
        _, orphans = await sweep.look()
        assert {one.key for one in orphans} == before
        with pytest.raises(SweepRefused, match="backup of this database is running"):
            await sweep.remove(orphans)
        await sweeper.delete_remembered()
        assert house.objects == before

        await house.catalogue.put_product("acme", "p", name="Added meanwhile")
        await house.add(picture(9))
        go_on.set()
        made = await backing_up
        assert (made.copied.missing, made.manifest.media) == (0, 3)
        assert {name.removeprefix(STORE) for name in names(path) if "/acme/" in name} == before
        while await runs():  # its session may be ending still
            await asyncio.sleep(0.005)
        await sweeper.delete_remembered()
        await sweep.remove(orphans)
        assert house.consistent
        assert house.objects.isdisjoint(before)


async def test_a_librarian_who_cannot_ask_leaves_the_bytes(house: House) -> None:
    async def away() -> bool:
        raise CatalogueUnavailable

    left: list[str] = []
    librarian = Librarian(house.embedder, house.catalogue, house.store, left.extend, backup_runs=away)
    media, _ = await house.add()
    before = house.objects
    await librarian.remove("acme", media.id)
    assert house.objects == before == set(left)


async def test_writes_go_on_all_the_while_and_every_row_has_its_bytes(
    database_url: str, empty: Place, tmp_path: Path
) -> None:
    """Three callers add and delete as fast as they can; whatever moment was caught, it is whole."""
    path, done = tmp_path / "backup.tar", asyncio.Event()
    async with open_house(database_url, tmp_path / "store") as house:
        await asyncio.to_thread(settle, house.url, house.store)
        librarian = Librarian(
            house.embedder, house.catalogue, house.store, backup_runs=partial(backup_runs, house.pool)
        )

        async def busy(client: int) -> None:
            value = client
            while not done.is_set():
                media, _ = await house.add(picture(value % 250, (8, 7 + value // 250)))
                if value % 2:
                    await librarian.remove("acme", media.id)
                value += 3

        for value in range(40):
            await house.add(picture(value, (9, 9)))
        callers = [asyncio.create_task(busy(client)) for client in range(3)]
        place = Place(house.url, house.folder)
        made = await asyncio.to_thread(place.back_up, path)
        done.set()
        await asyncio.gather(*callers)
    assert (made.copied.missing, made.copied.changed) == (0, 0)
    await asyncio.to_thread(empty.restore, path)
    assert digests_hold(empty, made.manifest.media)
    assert made.manifest.media >= 40


def test_missing_and_changed_pictures_are_told_and_the_rest_is_saved(writable: Place, tmp_path: Path) -> None:
    keys = [
        key for (key,) in run_sql(writable.url, """SELECT "s3Key" FROM media WHERE "clientId" = 'acme' ORDER BY 1""")
    ]
    (writable.folder / keys[0]).unlink()
    (writable.folder / keys[1]).write_bytes(b"something else")
    thumbnail = next(key for key in writable.objects if key.startswith("thumbnails/"))
    (writable.folder / thumbnail).unlink()  # made anew when it is asked for
    made = writable.back_up(tmp_path / "backup.tar")
    assert (made.copied.missing, made.copied.changed) == (1, 1)
    assert made.copied.examples == [f"{keys[0]}: missing", f"{keys[1]}: its bytes are not those that were embedded"]
    with Archive(tmp_path / "backup.tar") as archive:
        (problems,) = (archive.read(one) for one in archive.members() if one.name == PROBLEMS)
    assert problems.decode().splitlines() == made.copied.examples
    assert len(names(tmp_path / "backup.tar")) == 3 + 2 * PICTURES + VECTORS - 2 + 1 + 2


def test_a_store_that_is_not_there_is_no_empty_store(furnished: Place, tmp_path: Path) -> None:
    path = tmp_path / "backup.tar"
    with pytest.raises(StoreRefused, match="lacks its mark"):
        furnished.back_up(path, MediaStore.at(None, tmp_path / "unmounted"))
    (tmp_path / "unmounted").mkdir()
    with pytest.raises(StoreRefused, match="lacks its mark"):
        furnished.back_up(path, MediaStore.at(None, tmp_path / "unmounted"))
    assert sorted(one.name for one in tmp_path.iterdir()) == ["unmounted"]


def test_a_store_that_goes_away_ends_the_backup(
    writable: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = writable.store

    async def vanish(key: str, *, at_once: int) -> Opened:
        (writable.folder / MARK).unlink(missing_ok=True)
        return await MediaStore.open(store, key, at_once=at_once)

    monkeypatch.setattr(store, "open", vanish)
    (writable.folder / "elsewhere" / "large-000000").unlink()
    with pytest.raises(StoreRefused, match="lacks its mark"):
        writable.back_up(tmp_path / "backup.tar", store)
    assert not list(tmp_path.glob("backup*"))


def test_a_lock_that_was_lost_is_noticed(writable: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = writable.store

    async def cut(key: str, *, at_once: int) -> Opened:
        run_sql(
            writable.url,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        monkeypatch.setattr(store, "open", partial(MediaStore.open, store))
        return await store.open(key, at_once=at_once)

    monkeypatch.setattr(store, "open", cut)
    with pytest.raises(DatabaseUnusable):
        writable.back_up(tmp_path / "backup.tar", store)
    assert not list(tmp_path.glob("backup*"))


def test_a_dump_that_fails_is_said_without_the_password(
    furnished: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "pg_dump"
    program.write_text("#!/bin/sh\necho PGDMP\necho 'no such luck' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(making, "find_program", lambda *_: program)
    with pytest.raises(DatabaseUnusable, match="could not be dumped: no such luck"):
        furnished.back_up(tmp_path / "backup.tar")
    assert not list(tmp_path.glob("backup*"))


def test_a_migration_waits_for_the_snapshot_and_no_longer(writable: Place, tmp_path: Path) -> None:
    """And nobody changes a table until it is dumped."""
    with taken(Direct(writable.url)), psycopg.connect(writable.url, autocommit=True) as other:
        ((got,),) = other.execute("SELECT pg_try_advisory_lock(%s, 1)", (0x7477696E,)).fetchall()
        assert got
        other.execute("SET lock_timeout = '50ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            other.execute("ALTER TABLE media ADD COLUMN more text")


def test_a_catalogue_must_be_there(bare_database_url: str, tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnusable, match="holds no catalogue"):
        Place(bare_database_url, tmp_path / "media").back_up(tmp_path / "backup.tar")
    assert not list(tmp_path.iterdir())
