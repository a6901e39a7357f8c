"""What is restored is what was saved; and whatever comes in between, no part of it is taken for the whole."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from server.access import stored_keys
from server.backup.archive import MANIFEST, SUMS, Archive, ArchiveWriter
from server.backup.load import Loader
from server.backup.shelves import Shelves
from server.catalogue.catalogue import Catalogue
from server.catalogue.rows import Query
from server.database.connections import connect
from server.database.isolation import SERVING_ROLE, arrange, find
from server.database.migrations import load_migrations, migrate
from server.database.pool import open_pool
from server.errors import BackupRefused, DatabaseUnusable, StoreRefused, StoreUnavailable
from server.ingest import mark
from server.ingest.mark import settle
from server.ingest.storage import MARK, NOTE, MediaStore
from server.postgres.server import EmbeddedPostgres
from server.spaces import spaces
from tests.support.backups import LARGE, PICTURES, Place, digests_hold, isolation, rows, shapes
from tests.support.databases import applied, as_role, contents, discard, fresh_database, role, run_sql
from tests.support.spaces import add_media, open_old
from tests.support.vectors import unit_vectors

pytestmark = pytest.mark.anyio

NOWHERE = "postgresql://twinlens@127.0.0.1:1/twinlens"


def rewritten(backup: Path, path: Path, **changes: Any) -> Path:
    """The same backup with another description, whole all the same."""
    with Archive(backup) as archive, path.open("w+b") as file, io.BytesIO() as sums:
        writer = ArchiveWriter(file, sums, 0)
        for member in archive.members():
            if member.name == MANIFEST:
                writer.add(MANIFEST, json.dumps({**json.loads(archive.read(member)), **changes}).encode())
            elif member.name != SUMS:
                writer.add(member.name, archive.read(member))
        writer.close()
    return path


def is_untouched(place: Place) -> bool:
    return not place.folder.exists() and not any(kind == "relation" for kind, _ in contents(place.url))


# --- what is restored ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def restored(backup: Path, postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with fresh_database(postgres_url) as url:
        place = Place(url, tmp_path_factory.mktemp("restored") / "media")
        place.restore(backup)
        yield place


def test_every_row_of_every_table_is_there(furnished: Place, restored: Place) -> None:
    """Keys, limits, audit, spaces, and the secret that signs addresses among them."""
    saved = rows(furnished.url)
    assert rows(restored.url) == saved
    for table in ("media", "twinlens_keys", "twinlens_limits", "twinlens_audit", "twinlens_indexes", "twinlens_recall"):
        assert saved[table]
    assert len(saved["twinlens_spaces"]) == 2


def test_so_are_indexes_constraints_triggers_functions_and_views(furnished: Place, restored: Place) -> None:
    assert shapes(restored.url) == shapes(furnished.url)
    assert any("hnsw" in one for one in shapes(restored.url)["indexes"])


def test_so_is_every_picture_and_thumbnail(furnished: Place, restored: Place) -> None:
    assert restored.objects == furnished.objects
    assert digests_hold(restored, PICTURES)


def test_clients_are_kept_apart_by_the_role_that_serves_here(furnished: Place, restored: Place) -> None:
    """The roles that served there get no rights by their names alone."""
    found, there = isolation(restored.url), isolation(furnished.url)
    assert found["serving"] == [([SERVING_ROLE],)]
    assert found["tables"] == there["tables"]
    of_clients = {"products", "media", "twinlens_feed_rows", "twinlens_idempotency", "twinlens_attributes"}
    of_clients |= {"twinlens_searchable", "twinlens_space_1", "twinlens_space_2"}
    assert {name for name, *_ in found["policies"]} == of_clients
    for _, policy, _, roles, *_ in found["policies"]:
        assert roles == [SERVING_ROLE] if policy == "twinlens_client" else ["public"]
    assert {who for _, _, who in found["rights"]} == {SERVING_ROLE}
    assert find(restored.url).role == SERVING_ROLE
    with psycopg.connect(restored.url) as connection:
        connection.execute(f"SET ROLE {SERVING_ROLE}")
        assert connection.execute("SELECT count(*) FROM media").fetchone() == (0,)
        connection.execute("SET twinlens.client = 'acme'")
        assert connection.execute("SELECT count(*) FROM media").fetchone() == (PICTURES,)


def test_the_store_is_its_own_and_not_that_of_a_copy(furnished: Place, restored: Place) -> None:
    standing = settle(restored.url, restored.store)
    assert standing.own
    assert standing.id != settle(furnished.url, furnished.store).id
    assert not (restored.folder / NOTE).exists()


def test_keys_are_on_as_they_were(restored: Place) -> None:
    with connect(restored.url) as connection:
        assert stored_keys.are_on(connection)
        assert len(stored_keys.usable(connection)) == 2


def test_nothing_is_left_to_migrate_and_writing_goes_on(restored: Place) -> None:
    assert migrate(restored.url) == []
    run_sql(restored.url, """INSERT INTO products (id, "clientId", name) VALUES ('new', 'acme', 'New')""")
    run_sql(restored.url, """DELETE FROM products WHERE id = 'new'""")
    ((number,),) = run_sql(restored.url, "INSERT INTO twinlens_audit (action) VALUES ('x') RETURNING id")
    assert number == 1 + run_sql(restored.url, "SELECT count(*) FROM twinlens_audit WHERE action <> 'x'")[0][0]
    run_sql(restored.url, "DELETE FROM twinlens_audit WHERE action = 'x'")


async def test_searches_go_through_the_restored_index(restored: Place) -> None:
    space = next(one for one in spaces.list_spaces(restored.url) if one.live)
    async with open_pool(restored.url, min_size=1, max_size=2, timeout=30) as pool:
        catalogue = Catalogue(pool, space)
        wanted = unit_vectors(300, 16, 1)[17]
        found = await catalogue.search(Query(LARGE, wanted, limit=3))
    assert (found.plan, found.matches[0].media_id) == ("index", "large-000017")


# --- where to --------------------------------------------------------------------------------------------------------


@contextmanager
def owner(url: str, *statements: str) -> Iterator[str]:
    """The URL of a role that may make tables in the database and no more, once an administrator has prepared it."""
    with role(url) as name:
        for statement in ("CREATE EXTENSION vector", "GRANT CREATE ON SCHEMA public TO {}", *statements):
            run_sql(url, statement.format(name))
        yield as_role(url, name)


def test_a_role_that_owns_nothing_else_is_enough(furnished: Place, backup: Path, empty: Place) -> None:
    with owner(empty.url) as url:
        place = Place(url, empty.folder)
        place.restore(backup)
        assert rows(empty.url) == rows(furnished.url)
        assert shapes(empty.url) == shapes(furnished.url)
        owners = run_sql(
            url, "SELECT DISTINCT relowner::regrole::text FROM pg_class WHERE relname ~ '^(twinlens|media)'"
        )
        assert owners == run_sql(url, "SELECT current_user::text")
        assert find(url).role is None  # it may not take on the role that serves, and the command says what would help
        assert {policy for _, policy, *_ in isolation(empty.url)["policies"]} == {"twinlens_all"}


def test_a_role_that_may_take_on_the_one_that_serves_has_it(backup: Path, empty: Place) -> None:
    with owner(empty.url, f"GRANT {SERVING_ROLE} TO {{}} WITH INHERIT FALSE, SET TRUE") as url:
        Place(url, empty.folder).restore(backup)
        assert find(url).role == SERVING_ROLE
        assert {policy for _, policy, *_ in isolation(empty.url)["policies"]} == {"twinlens_all", "twinlens_client"}


def test_with_two_urls_the_other_role_serves(backup: Path, empty: Place) -> None:
    with role(empty.url) as app:
        empty.restore(backup)
        assert arrange(empty.url, as_role(empty.url, app)).role == app
        assert find(as_role(empty.url, app)).role == app


def test_an_s3_is_saved_from_and_restored_to(
    s3_url: str, furnished: Place, backup: Path, empty: Place, postgres_url: str, tmp_path: Path
) -> None:
    there = MediaStore.at(s3_url, tmp_path)
    empty.restore(backup, there)
    assert settle(empty.url, there).own
    made = empty.back_up(tmp_path / "again.tar", MediaStore.at(s3_url, tmp_path))
    assert (made.copied.missing, made.copied.changed) == (0, 0)
    with fresh_database(postgres_url) as another:
        place = Place(another, tmp_path / "folder")
        place.restore(tmp_path / "again.tar")
        assert place.objects == furnished.objects
        assert rows(another) == rows(furnished.url)


def test_another_schema_is_refused_with_what_to_do(backup: Path, empty: Place) -> None:
    run_sql(empty.url, "CREATE SCHEMA shop")
    url = psycopg.conninfo.make_conninfo(empty.url, options="-csearch_path=shop")
    with pytest.raises(
        BackupRefused, match=r"schema public, and the search_path of \w+ leads to shop.*SET search_path"
    ):
        Place(url, empty.folder).restore(backup)
    assert is_untouched(empty)


def test_a_schema_of_its_own_is_saved_and_restored(empty: Place, postgres_url: str, tmp_path: Path) -> None:
    def in_shop(url: str) -> str:
        run_sql(url, "CREATE SCHEMA shop")
        run_sql(url, "CREATE SCHEMA other")
        return psycopg.conninfo.make_conninfo(url, options="-csearch_path=shop")

    run_sql(empty.url, "CREATE TABLE of_somebody_else (n integer)")
    url = in_shop(empty.url)
    migrate(url)
    arrange(url)
    add_media(url, "a", vectors_in=[open_old(url)])
    settle(url, empty.store)
    Place(url, empty.folder).back_up(tmp_path / "shop.tar", with_media=False)
    with fresh_database(postgres_url) as another:
        there = in_shop(another)
        Place(there, tmp_path / "media").restore(tmp_path / "shop.tar")
        assert run_sql(there, "SELECT id FROM media") == [("a",)]
        assert ("relation", "of_somebody_else") not in contents(another)


def test_pgvector_that_lies_elsewhere_is_refused_with_what_to_do(backup: Path, empty: Place) -> None:
    run_sql(empty.url, "CREATE SCHEMA extensions")
    run_sql(empty.url, "CREATE EXTENSION vector WITH SCHEMA extensions")
    with pytest.raises(BackupRefused, match="ALTER EXTENSION vector SET SCHEMA public"):
        empty.restore(backup)
    assert not empty.folder.exists()


def test_a_postgres_that_is_older_takes_it(
    furnished: Place, backup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bundled 16: it knows less than the pg_restore of 18 says."""
    from server.postgres import binaries, server

    older = binaries._installs()[0] / "bin"
    monkeypatch.setattr(server, "reachable_binaries", lambda account, cluster: _for(account, older, binaries))
    postgres = EmbeddedPostgres(tmp_path / "older", extra_settings=["fsync=off"])
    try:
        with postgres:
            place = Place(postgres.url, tmp_path / "media")
            assert run_sql(place.url, "SHOW server_version")[0][0].startswith("16.")
            place.restore(backup)
            assert rows(place.url) == rows(furnished.url)
            made = place.back_up(tmp_path / "back.tar")
            assert made.manifest.postgres == 16
    finally:
        discard(postgres)


def _for(account: Any, folder: Path, binaries: Any) -> Path:
    if account is None or binaries._usable_by_all(folder.parent):
        return folder
    return Path(binaries._copy_binaries(folder.parent) / "bin")


# --- older and newer -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 3, 6, 8])
def test_one_of_an_older_schema_is_migrated(number: int, empty: Place, postgres_url: str, tmp_path: Path) -> None:
    folder = tmp_path / "migrations"
    folder.mkdir()
    for one in load_migrations()[:number]:
        (folder / f"{one.name}.sql").write_text(one.text, encoding="utf-8")
    migrate(empty.url, folder)
    add_media(empty.url, "a", "b", vectors_in=[open_old(empty.url)])
    asyncio.run(_put(empty.folder, "a", "b"))
    if number > 3:
        settle(empty.url, empty.store)
    empty.back_up(tmp_path / "older.tar")
    with fresh_database(postgres_url) as url:
        place = Place(url, tmp_path / "restored")
        done = place.restore(tmp_path / "older.tar")
        assert list(done.migrations) == [one.name for one in load_migrations()[number:]]
        assert applied(url) == [one.name for one in load_migrations()]
        assert migrate(url) == []
        assert place.objects == {"a": b"a", "b": b"b"}
        assert settle(url, place.store).own
        assert run_sql(url, "SELECT id FROM media ORDER BY 1") == [("a",), ("b",)]
        with fresh_database(postgres_url) as new:
            migrate(new)
            arrange(new)
            open_old(new)
            assert shapes(url)["functions"] == shapes(new)["functions"]
            assert set(shapes(url)["columns"]) == set(shapes(new)["columns"])


async def _put(folder: Path, *keys: str) -> None:
    store = MediaStore.at(None, folder)
    store.make()
    for key in keys:
        await store.put(key, key.encode())


def test_one_of_a_newer_version_is_refused(backup: Path, empty: Place, tmp_path: Path) -> None:
    with Archive(backup) as archive:
        known = json.loads(archive.read(archive.head()[MANIFEST]))["migrations"]
    newer = [*known, {"number": 9999, "name": "9999_to_come", "digest": "0" * 64}]
    path = rewritten(backup, tmp_path / "newer.tar", migrations=newer)
    with pytest.raises(BackupRefused, match=r"newer version.*9999_to_come.*Nothing was changed"):
        empty.restore(path)
    assert is_untouched(empty)


def test_one_of_a_migration_that_has_changed_is_refused(backup: Path, empty: Place, tmp_path: Path) -> None:
    changed = [{"number": 1, "name": "0001_catalogue", "digest": "0" * 64}]
    with pytest.raises(BackupRefused, match="0001_catalogue is not the one"):
        empty.restore(rewritten(backup, tmp_path / "changed.tar", migrations=changed))


def test_one_of_a_newer_format_is_refused(backup: Path, empty: Place, tmp_path: Path) -> None:
    path = rewritten(backup, tmp_path / "newer.tar", format=2, migrations="in another form")
    with pytest.raises(BackupRefused, match=r"format 2.*Nothing was changed"):
        empty.restore(path)
    assert is_untouched(empty)


# --- refused before anything is written ------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [0.02, 0.3, 0.6, 0.9])
def test_a_file_that_was_cut_off_changes_nothing(part: float, backup: Path, empty: Place, tmp_path: Path) -> None:
    path = tmp_path / "cut.tar"
    path.write_bytes(backup.read_bytes()[: round(backup.stat().st_size * part)])
    with pytest.raises(BackupRefused, match="Nothing was changed"):
        empty.restore(path)
    assert is_untouched(empty)


@pytest.mark.parametrize("what", ["database.dump", "store/media/", SUMS])
def test_a_file_that_was_damaged_changes_nothing(what: str, backup: Path, empty: Place, tmp_path: Path) -> None:
    path = Path(shutil.copy(backup, tmp_path / "damaged.tar"))
    with Archive(path) as archive:
        member = next(one for one in archive.members() if one.name.startswith(what))
    with path.open("r+b") as file:
        file.seek(member.offset + member.bytes // 2)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 0x10]))
    with pytest.raises(BackupRefused, match=r"damaged.*Nothing was changed"):
        empty.restore(path)
    assert is_untouched(empty)


def test_a_filled_database_is_refused(backup: Path, writable: Place, tmp_path: Path) -> None:
    before = rows(writable.url)
    with pytest.raises(BackupRefused, match=r"holds tables already \(media, products"):
        Place(writable.url, tmp_path / "other").restore(backup)
    assert rows(writable.url) == before
    assert not (tmp_path / "other").exists()


def test_so_is_one_with_tables_of_somebody_else(backup: Path, empty: Place) -> None:
    run_sql(empty.url, "CREATE TABLE orders (id integer)")
    with pytest.raises(BackupRefused, match="holds tables already"):
        empty.restore(backup)
    assert run_sql(empty.url, "SELECT count(*) FROM orders") == [(0,)]


def test_a_filled_store_is_refused(backup: Path, furnished: Place, empty: Place) -> None:
    shutil.copytree(furnished.folder, empty.folder)
    for gone in ((), (MARK,)):
        for name in gone:
            (empty.folder / name).unlink()
        with pytest.raises(StoreRefused, match=r"into an empty one.*Nothing was changed"):
            empty.restore(backup)
    (key,) = [one for one in empty.objects if one.endswith("large-000007")]
    shutil.rmtree(empty.folder / "media")
    shutil.rmtree(empty.folder / "thumbnails")
    (empty.folder / key).write_bytes(b"of another application")
    with pytest.raises(StoreRefused, match="into an empty one"):
        empty.restore(backup)
    assert (empty.folder / key).read_bytes() == b"of another application"
    assert not (empty.folder / NOTE).exists()


def test_without_the_pictures_the_store_stays_as_it_is(backup: Path, furnished: Place, empty: Place) -> None:
    """The database is a copy, then, which removes nothing until it is told that the store is its own."""
    shutil.copytree(furnished.folder, empty.folder)
    empty.restore(backup, with_media=False)
    assert empty.objects == furnished.objects
    assert not settle(empty.url, empty.store).own
    mark.adopt(empty.url, empty.store)
    assert settle(empty.url, empty.store).own


# --- interrupted -----------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """In place of a SIGKILL: nothing of ours runs after it but what closes connections."""


def dies(*_: Any, **__: Any) -> Any:
    raise Killed


def no_server_starts(place: Place) -> bool:
    """What a start asks of the database and the store."""
    before = contents(place.url)

    def start() -> None:
        migrate(place.url, last_look=lambda one, filled: mark.look(one, place.store, catalogue=filled))
        settle(place.url, place.store)

    with pytest.raises(StoreRefused, match="A backup is being restored into the store"):
        start()
    return contents(place.url) == before


@pytest.fixture(params=["before the pictures", "among the pictures", "before the database", "before the mark"])
def interrupt(request: pytest.FixtureRequest) -> Callable[[pytest.MonkeyPatch], None]:
    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        if request.param == "among the pictures":
            put, count = MediaStore.put, 0

            async def put_some(self: MediaStore, key: str, data: bytes) -> None:
                nonlocal count
                count += 1
                if count > 100:
                    raise Killed
                await put(self, key, data)

            monkeypatch.setattr(MediaStore, "put", put_some)
        elif request.param == "before the pictures":
            monkeypatch.setattr(Shelves, "fill", dies)
        elif request.param == "before the database":
            monkeypatch.setattr(Loader, "load", dies)
        else:
            monkeypatch.setattr(Shelves, "finish", dies)

    return patch


def test_no_server_starts_on_a_part_and_the_same_restore_ends_it(
    interrupt: Callable[[pytest.MonkeyPatch], None], furnished: Place, backup: Path, empty: Place
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch)
        with pytest.raises(Killed):
            empty.restore(backup)
    assert no_server_starts(empty)
    empty.restore(backup)
    assert rows(empty.url) == rows(furnished.url)
    assert empty.objects == furnished.objects
    assert settle(empty.url, empty.store).own
    with pytest.raises(BackupRefused, match="holds tables already"):
        empty.restore(backup)


def test_nor_is_such_a_store_adopted(backup: Path, empty: Place) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Shelves, "finish", dies)
        with pytest.raises(Killed):
            empty.restore(backup)
    with pytest.raises(StoreRefused, match="being restored"):
        mark.adopt(empty.url, empty.store, whatever=True)


def test_another_backup_does_not_go_on_from_there(furnished: Place, backup: Path, empty: Place, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loader, "load", dies)
        with pytest.raises(Killed):
            empty.restore(backup)
    with pytest.raises(StoreRefused, match="part of another backup"):
        empty.restore(rewritten(backup, tmp_path / "another.tar", id="f" * 32))


def test_the_database_is_restored_as_a_whole_or_not_at_all(
    backup: Path, empty: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the last statement fails, nothing is there; and the error says which."""
    end = Loader._end
    monkeypatch.setattr(Loader, "_end", lambda self, *a: end(self, *a).replace(b"COMMIT", b"SELECT 1 / 0;\nCOMMIT"))
    before = contents(empty.url)
    with pytest.raises(BackupRefused, match=r"nothing of it was kept.*division by zero"):
        empty.restore(backup, with_media=False)
    assert contents(empty.url) == before


def test_a_dump_that_pg_restore_cannot_read_to_its_end_is_not_committed(
    backup: Path, empty: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is whole by its digest, so this is damage that was saved."""
    pieces = Archive.pieces

    def half(self: Archive, member: Any) -> Iterator[bytes]:
        for piece in pieces(self, member):
            yield piece[: len(piece) * 3 // 4] if member.name == "database.dump" and restoring_now else piece

    restoring_now = False
    load = Loader.load

    def load_half(self: Loader, *a: Any, **k: Any) -> Any:
        nonlocal restoring_now
        restoring_now = True
        return load(self, *a, **k)

    monkeypatch.setattr(Archive, "pieces", half)
    monkeypatch.setattr(Loader, "load", load_half)
    with pytest.raises(BackupRefused, match="dump in the backup cannot be read"):
        empty.restore(backup, with_media=False)
    assert is_untouched(empty)


def test_a_store_that_cannot_be_written_is_said_and_gone_on_with(furnished: Place, backup: Path, empty: Place) -> None:
    async def full(*_: Any) -> None:
        raise StoreUnavailable(reason="No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MediaStore, "put", full)
        with pytest.raises(StoreRefused, match=r"No space left on device.*run the same command again"):
            empty.restore(backup)
    empty.restore(backup)
    assert empty.objects == furnished.objects


def test_a_database_that_is_away_is_said_before_the_store_is_touched(backup: Path, tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnusable, match="cannot be used"):
        Place(NOWHERE, tmp_path / "media").restore(backup)
    assert not (tmp_path / "media").exists()


def test_a_server_that_starts_meanwhile_waits(backup: Path, empty: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would make tables where the restore makes its own."""
    load = Loader.load

    def look_and_load(self: Loader, *a: Any, **k: Any) -> Any:
        with psycopg.connect(empty.url) as other:
            assert other.execute("SELECT pg_try_advisory_lock(%s, 1)", (0x7477696E,)).fetchone() == (False,)
        return load(self, *a, **k)

    monkeypatch.setattr(Loader, "load", look_and_load)
    empty.restore(backup)
