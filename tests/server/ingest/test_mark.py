"""Which store is a database's: found out from marks, on real databases, in folders and in an S3."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from server.database.connections import connect
from server.errors import DatabaseUnusable, StorageFailed, StoreRefused
from server.ingest.mark import adopt, ask, look, settle
from server.ingest.storage import MARK, Mark, MediaStore
from tests.support.databases import database_of, fresh_database, run_sql

KEYS = [f"media/acme/{at:032x}.png" for at in range(3)]


def folder_store(folder: Path) -> MediaStore:
    return MediaStore.at(None, folder)


def add_row(url: str, media_id: str, key: str) -> None:
    run_sql(url, """INSERT INTO products (id, "clientId", name) VALUES ('p', 'acme', 'P') ON CONFLICT DO NOTHING""")
    columns = """(id, "productId", "clientId", "s3Key")"""
    run_sql(url, f"INSERT INTO media {columns} VALUES (%s, 'p', 'acme', %s)", (media_id, key))


def add_rows(url: str, keys: list[str] = KEYS) -> None:
    """As servers have added them."""
    for key in keys:
        add_row(url, Path(key).stem, key)


def unmark(url: str) -> None:
    """As before there were marks."""
    run_sql(url, "DELETE FROM twinlens_store")


def test_the_first_start_of_an_empty_database_makes_folder_and_mark_and_later_ones_find_them(
    database_url: str, tmp_path: Path
) -> None:
    folder = tmp_path / "deep" / "media"
    first = settle(database_url, folder_store(folder))
    assert json.loads((folder / MARK).read_text())["id"] == first.id
    assert first.own
    store = folder_store(folder)
    assert settle(database_url, store) == first
    assert store.expected == first.id


@pytest.mark.parametrize("below", [True, False], ids=["an empty folder", "no folder"])
def test_a_volume_that_is_not_mounted_is_refused_and_nothing_is_made(
    database_url: str, tmp_path: Path, below: bool
) -> None:
    folder = tmp_path / "media"
    settle(database_url, folder_store(folder))
    add_rows(database_url)
    folder.rename(tmp_path / "volume")
    if below:
        folder.mkdir()
    with pytest.raises(StoreRefused, match=r"not mounted.*store --adopt") as refused:
        settle(database_url, folder_store(folder))
    assert str(folder) in refused.value.sentence
    assert folder.exists() == below
    assert not below or not list(folder.iterdir())


def test_another_databases_store_is_refused_and_left_as_it_is(
    database_url: str, postgres_url: str, template_database: str, tmp_path: Path
) -> None:
    folder = tmp_path / "media"
    mine = settle(database_url, folder_store(folder))
    with fresh_database(postgres_url, template_database) as other:
        for _ in range(2):
            with pytest.raises(StoreRefused, match="belongs to another database"):
                settle(other, folder_store(folder))
        settle(other, folder_store(tmp_path / "theirs"))
        with pytest.raises(StoreRefused, match="belongs to another database"):
            settle(other, folder_store(folder))
    assert settle(database_url, folder_store(folder)) == mine


def test_a_filled_database_from_before_marks_takes_the_store_that_has_its_pictures(
    database_url: str, tmp_path: Path
) -> None:
    store = folder_store(tmp_path / "media")
    store.make()
    add_rows(database_url)
    ask(store.put(KEYS[1], b"bytes"))  # the others are lost, and that is no reason to refuse
    standing = settle(database_url, store)
    assert settle(database_url, folder_store(tmp_path / "media")) == standing


def test_a_filled_database_from_before_marks_refuses_a_store_with_none_of_its_pictures(
    database_url: str, tmp_path: Path
) -> None:
    add_rows(database_url)
    folder = tmp_path / "media"
    with pytest.raises(StoreRefused, match="none of 3 that were looked for"):
        settle(database_url, folder_store(folder))
    assert not folder.exists()
    folder.mkdir()
    with pytest.raises(StoreRefused, match="none of 3 that were looked for"):
        settle(database_url, folder_store(folder))
    assert not list(folder.iterdir())
    assert run_sql(database_url, "SELECT count(*) FROM twinlens_store") == [(0,)]


def test_an_adopted_database_whose_pictures_lie_elsewhere_starts(database_url: str, tmp_path: Path) -> None:
    add_row(database_url, "17", "https://cdn.example/a.jpg")
    add_row(database_url, "18", "media/acme/older.jpg")
    settle(database_url, folder_store(tmp_path / "media"))
    assert (tmp_path / "media" / MARK).exists()


def test_a_start_that_was_killed_between_the_two_marks_is_taken_up_again(database_url: str, tmp_path: Path) -> None:
    first = settle(database_url, folder_store(tmp_path / "media"))
    unmark(database_url)
    assert settle(database_url, folder_store(tmp_path / "media")) == first


def test_a_copy_of_a_database_starts_on_a_copy_of_its_store_and_is_known_as_a_copy(
    database_url: str, postgres_url: str, tmp_path: Path
) -> None:
    first = settle(database_url, folder_store(tmp_path / "media"))
    with fresh_database(postgres_url, database_of(database_url)) as copy:
        standing = settle(copy, folder_store(tmp_path / "media"))
        assert (standing.id, standing.own) == (first.id, False)


def test_a_workers_start_survives_a_store_that_is_away(database_url: str, tmp_path: Path) -> None:
    folder = tmp_path / "media"
    first = settle(database_url, folder_store(folder))
    folder.rename(tmp_path / "volume")
    store = folder_store(folder)
    assert settle(database_url, store, or_away=True).id == first.id
    with pytest.raises(StorageFailed):
        ask(store.get(KEYS[0]))
    assert not folder.exists()


def test_a_mark_that_cannot_be_read_is_no_mark_that_is_absent(database_url: str, tmp_path: Path) -> None:
    store = folder_store(tmp_path / "media")
    store.make()
    (tmp_path / "media" / MARK).write_text("")
    with pytest.raises(StoreRefused, match="cannot be read"):
        settle(database_url, store)


def test_a_place_that_cannot_be_a_folder_is_refused(database_url: str, tmp_path: Path) -> None:
    (tmp_path / "media").write_text("a file")
    with pytest.raises(StoreRefused, match="cannot be used"):
        settle(database_url, folder_store(tmp_path / "media"))


def test_a_database_without_the_tables_is_told_to_migrate(bare_database_url: str, tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnusable, match="server migrate"):
        settle(bare_database_url, folder_store(tmp_path / "media"))
    assert not (tmp_path / "media").exists()


def test_adopting_takes_a_store_that_was_moved_without_its_mark(database_url: str, tmp_path: Path) -> None:
    settle(database_url, folder_store(tmp_path / "old"))
    add_rows(database_url)
    moved = folder_store(tmp_path / "new")
    with pytest.raises(StoreRefused, match="none of 3"):
        adopt(database_url, moved)
    with pytest.raises(StoreRefused):
        settle(database_url, moved)
    moved.make()
    ask(moved.put(KEYS[0], b"bytes"))
    assert adopt(database_url, moved) == (3, 1)
    assert settle(database_url, folder_store(tmp_path / "new")).own
    with pytest.raises(StoreRefused):
        settle(database_url, folder_store(tmp_path / "old"))


def test_adopting_a_place_without_any_picture_takes_a_yes(database_url: str, tmp_path: Path) -> None:
    add_rows(database_url)
    assert adopt(database_url, folder_store(tmp_path / "media"), whatever=True) == (3, 0)
    assert settle(database_url, folder_store(tmp_path / "media")).own


def test_a_bucket_is_marked_and_told_from_others(
    database_url: str, postgres_url: str, template_database: str, s3_url: str, tmp_path: Path
) -> None:
    url = f"{s3_url}-marks"
    first = settle(database_url, MediaStore.at(url, tmp_path))
    assert settle(database_url, MediaStore.at(url, tmp_path)) == first
    with pytest.raises(StoreRefused, match="lacks"):
        settle(database_url, MediaStore.at(f"{url}/elsewhere", tmp_path))
    with fresh_database(postgres_url, template_database) as other:
        with pytest.raises(StoreRefused, match="another database"):
            settle(other, MediaStore.at(url, tmp_path))
        with pytest.raises(StoreRefused, match="cannot be used"):
            settle(other, MediaStore.at("s3://no-such-bucket/twinlens", tmp_path))


def test_two_servers_that_mark_one_bucket_at_once_are_told_apart(s3_url: str, tmp_path: Path) -> None:
    store = MediaStore.at(f"{s3_url}-at-once", tmp_path)
    ask(store.write_mark(Mark("a" * 32)))
    with pytest.raises(StorageFailed):
        ask(store.write_mark(Mark("b" * 32)))
    assert ask(store.read_mark()) == Mark("a" * 32)


def test_no_sentence_holds_a_password(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "top-secret")
    with pytest.raises(StoreRefused) as refused:
        settle(database_url, MediaStore.at("s3://pictures/twinlens", tmp_path))
    assert "top-secret" not in refused.value.sentence
    assert MediaStore.at("s3://user:top-secret@pictures/x", tmp_path).where == "s3://pictures/x"


def test_a_database_without_pictures_takes_no_store_over_that_holds_some(database_url: str, tmp_path: Path) -> None:
    picture = tmp_path / "media" / KEYS[0]
    picture.parent.mkdir(parents=True)
    picture.write_bytes(b"somebody's")
    with pytest.raises(StoreRefused, match=r"has no pictures, and the store .* holds some"):
        settle(database_url, folder_store(tmp_path / "media"))
    with pytest.raises(StoreRefused, match="add --yes"):
        adopt(database_url, folder_store(tmp_path / "media"))
    assert [path.name for path in (tmp_path / "media").rglob("*") if path.is_file()] == [picture.name]
    adopt(database_url, folder_store(tmp_path / "media"), whatever=True)
    assert settle(database_url, folder_store(tmp_path / "media")).own


def looked_at(url: str, store: MediaStore, *, catalogue: bool) -> None:
    with connect(url) as connection:
        look(connection, store, catalogue=catalogue)


def test_a_look_before_an_upgrade_marks_the_store_with_the_pictures_and_the_start_takes_that_mark(
    database_url: str, tmp_path: Path
) -> None:
    add_rows(database_url)
    store = folder_store(tmp_path / "media")
    with pytest.raises(StoreRefused, match=r"none of 3 .* python -m server migrate, after which"):
        looked_at(database_url, store, catalogue=True)
    kept = tmp_path / "media" / KEYS[0]
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"a picture")
    looked_at(database_url, folder_store(tmp_path / "media"), catalogue=True)
    assert run_sql(database_url, "SELECT count(*) FROM twinlens_store") == [(0,)]
    marked = json.loads((tmp_path / "media" / MARK).read_text())["id"]
    assert settle(database_url, folder_store(tmp_path / "media")).id == marked


@pytest.mark.parametrize("catalogue", [True, False])
def test_a_look_before_a_migration_refuses_the_store_of_another_database(
    database_url: str, postgres_url: str, tmp_path: Path, catalogue: bool
) -> None:
    settle(database_url, folder_store(tmp_path / "media"))
    with fresh_database(postgres_url, database_of(database_url)) as other:
        unmark(other)
        with pytest.raises(StoreRefused, match="belongs to another database"):
            looked_at(other, folder_store(tmp_path / "media"), catalogue=catalogue)


def test_a_look_before_the_first_migration_makes_nothing(bare_database_url: str, tmp_path: Path) -> None:
    looked_at(bare_database_url, folder_store(tmp_path / "media"), catalogue=False)
    assert not (tmp_path / "media").exists()
    picture = tmp_path / "media" / KEYS[0]
    picture.parent.mkdir(parents=True)
    picture.write_bytes(b"somebody's")
    with pytest.raises(StoreRefused, match="holds some"):
        looked_at(bare_database_url, folder_store(tmp_path / "media"), catalogue=False)
    assert not (tmp_path / "media" / MARK).exists()
