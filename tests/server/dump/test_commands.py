"""What the two commands print, how they end, and what they do with a database that is new or of another model."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from server.artifact.artifact import Artifact
from server.commands import dump as dump_command
from server.commands import load as load_command
from server.errors import ArtifactInvalid, DatabaseUnusable, DumpRefused, ExtraMissing
from server.settings import Settings
from tests import STARTER
from tests.support.backups import PICTURES, VECTORS, Place
from tests.support.catalogue import SPACE, open_test_space
from tests.support.databases import contents, run_sql
from tests.support.dumps import catalogue, dump
from tests.support.serving import Shop
from tests.support.spaces import NEW, older_database, open_old

MEDIA = PICTURES + VECTORS


class Commands:
    """Both, with the settings of a place."""

    def __init__(self, place: Place, capsys: pytest.CaptureFixture[str], **settings: Any) -> None:
        media = {"media_url": str(place.folder), "data": place.folder.parent}
        self._settings = Settings(**{"database_url": place.url, "model": STARTER, **media, **settings})
        self._url = place.url
        self._capsys = capsys

    def dump(self, *words: object, code: int = 0) -> Any:
        parser = argparse.ArgumentParser()
        dump_command.add_arguments(parser)
        assert dump_command.run(self._settings, parser.parse_args([*map(str, words)]), self._url) == code
        return self._capsys.readouterr()

    def load(self, *words: object, code: int = 0) -> Any:
        parser = argparse.ArgumentParser()
        load_command.add_arguments(parser)
        assert load_command.run(self._settings, parser.parse_args([*map(str, words)])) == code
        return self._capsys.readouterr()


def test_a_dump_ends_with_a_sentence(furnished: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = Commands(furnished, capsys).dump("--parquet", tmp_path / "dump", "--client", "acme").out
    assert said.startswith(f"{tmp_path / 'dump'} holds the catalogue of the client acme as of ")
    assert f"4 products, {PICTURES} pictures, {PICTURES} vectors of aaaaaaaaaaaa (test), without the pictures'" in said


def test_one_that_lacks_pictures_says_which_and_ends_with_1(
    writable: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = [f"elsewhere/large-{number:06}" for number in range(25)]
    for key in keys:
        (writable.folder / key).unlink()
    words = ("--parquet", tmp_path / "dump", "--with-pictures", "--all-spaces", "--json")
    said = Commands(writable, capsys).dump(*words, code=1)
    found = json.loads(said.out)
    assert (found["missing"], found["changed"], found["media"]) == (25, 0, MEDIA)
    assert found["vectors"] == {SPACE: MEDIA, NEW: 0}
    assert f"  {keys[0]}: missing\n" in said.err
    assert said.err.endswith("  ...\n")


def test_a_load_says_what_was_added_and_what_was_not(
    dumped: Path, empty: Place, space: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = Commands(empty, capsys)
    found = json.loads(commands.load(dumped, "--json").out)
    assert (found["products"], found["media"], found["vectors"]) == (305, MEDIA, MEDIA)
    assert found["pictures"] == MEDIA + PICTURES
    again = commands.load(dumped).out
    assert "were added: 0 products, 0 pictures, 0 vectors, and 0 files" in again
    run_sql(empty.url, "UPDATE products SET name = 'Mine' WHERE id = 'p1'")
    assert "Left as they are in the database: 1 (product p1 of client acme)." in commands.load(dumped, "--keep").out


def test_without_the_pictures_it_says_what_to_do(
    dumped: Path, empty: Place, space: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    said = Commands(empty, capsys).load(dumped, "--without-pictures", "--without-vectors").out
    assert f"Where they are not in {empty.folder} yet, put them there" in said
    assert "store --adopt" in said
    assert "servers embed the pictures in the background" in said


def test_vectors_of_other_spaces_than_the_live_one_are_left_out(
    furnished: Place, empty: Place, space: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dump(furnished, tmp_path / "dump", all_spaces=True)
    said = Commands(empty, capsys).load(tmp_path / "dump").out
    assert f"Vectors of other spaces than the live one were left out: {NEW[:12]} (test)." in said


def test_an_empty_database_becomes_a_catalogue_in_the_space_of_the_artifact(
    shop: Shop, bare_database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Commands(Place(shop.database_url, shop.data / "media"), capsys).dump(
        "--parquet", tmp_path / "dump", "--with-pictures"
    )
    new = Place(bare_database_url, tmp_path / "new" / "media")
    said = Commands(new, capsys).load(tmp_path / "dump").out
    assert "were added: 280 products, 280 pictures, 280 vectors, and 560 files" in said
    assert catalogue(new.url) == catalogue(shop.database_url)
    starter = Artifact.read(STARTER).space("fp32").id
    assert run_sql(new.url, "SELECT id FROM twinlens_spaces WHERE live") == [(starter,)]
    assert run_sql(new.url, 'SELECT cardinality("servingRoles") FROM twinlens_access') == [(1,)]


def test_another_artifact_than_the_dumps_leaves_the_database_empty(
    dumped: Path, bare_database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = Place(bare_database_url, tmp_path / "new" / "media")
    before = contents(place.url)
    with pytest.raises(
        DumpRefused, match=r"vectors of aaaaaaaaaaaa \(test\), and the artifact .*starter makes the space"
    ):
        Commands(place, capsys).load(dumped)
    with pytest.raises(ArtifactInvalid):
        Commands(place, capsys, model=tmp_path / "none").load(dumped)
    assert contents(place.url) == before
    assert not place.folder.exists()
    Commands(place, capsys).load(dumped, "--without-vectors")
    assert run_sql(place.url, "SELECT count(*) FROM media") == [(MEDIA,)]


def test_another_live_space_than_the_dumps_is_refused(
    dumped: Path, empty: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    live = open_old(empty.url)
    with pytest.raises(DumpRefused, match=f"and the database has live the space {live.short_id}"):
        Commands(empty, capsys).load(dumped)
    assert run_sql(empty.url, "SELECT count(*) FROM products") == [(0,)]
    assert "Without vectors" in Commands(empty, capsys).load(dumped, "--without-vectors").out


def test_an_older_database_is_not_brought_up_to_date_on_the_way(
    dumped: Path, bare_database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = Place(bare_database_url, tmp_path / "media")
    older_database(place.url, tmp_path / "migrations")
    commands = Commands(place, capsys)
    with pytest.raises(DatabaseUnusable, match="of an older version of Twinlens"):
        commands.load(dumped, "--without-vectors")
    with pytest.raises(DatabaseUnusable, match="of an older version of Twinlens"):
        commands.dump("--parquet", tmp_path / "dump")
    assert not (tmp_path / "dump").exists()


def test_a_damaged_dump_is_refused_before_an_embedded_database_is_made(
    copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(copied / "vectors")
    place = Place("", tmp_path / "new" / "media")
    with pytest.raises(DumpRefused, match="is not whole"):
        Commands(place, capsys, database_url=None).load(copied)
    assert not (tmp_path / "new").exists()


def test_without_pyarrow_they_say_which_extra_is_missing(
    dumped: Path, empty: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    open_test_space(empty.url)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ExtraMissing, match=r"needs pyarrow, .* with the extra parquet of twinlens"):
        Commands(empty, capsys).dump("--parquet", tmp_path / "dump")
    with pytest.raises(ExtraMissing):
        Commands(empty, capsys).load(dumped)
    assert not (tmp_path / "dump").exists()
