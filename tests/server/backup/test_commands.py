"""What the two commands print, and how they end."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from server.commands import backup as backup_command
from server.commands import restore as restore_command
from server.settings import Settings
from tests.support.backups import PICTURES, VECTORS, Place
from tests.support.databases import role, run_sql

MEDIA = PICTURES + VECTORS


class Commands:
    """Both, with the settings of a place."""

    def __init__(self, place: Place, capsys: pytest.CaptureFixture[str]) -> None:
        self._settings = Settings(database_url=place.url, media_url=str(place.folder), data=place.folder.parent)
        self._url = place.url
        self._capsys = capsys

    def backup(self, *words: object, code: int = 0) -> Any:
        parser = argparse.ArgumentParser()
        backup_command.add_arguments(parser)
        assert backup_command.run(self._settings, parser.parse_args([*map(str, words)]), self._url) == code
        return self._capsys.readouterr()

    def restore(self, *words: object) -> Any:
        parser = argparse.ArgumentParser()
        restore_command.add_arguments(parser)
        assert restore_command.run(self._settings, parser.parse_args([*map(str, words)])) == 0
        return self._capsys.readouterr()


def test_a_backup_ends_with_a_sentence(writable: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = Commands(writable, capsys).backup(tmp_path / "backup.tar")
    assert f"{MEDIA} pictures, with {MEDIA + PICTURES} files of pictures and thumbnails, in " in said.out
    assert "Dumping the database" in said.err
    assert "(100.0%)" not in said.out


def test_one_that_lacks_pictures_says_which_and_ends_with_1(
    writable: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = [f"elsewhere/large-{number:06}" for number in range(25)]
    for key in keys:
        (writable.folder / key).unlink()
    said = Commands(writable, capsys).backup(tmp_path / "backup.tar", "--json", code=1)
    found = json.loads(said.out)
    assert (found["missing"], found["changed"], found["media"]) == (25, 0, MEDIA)
    assert f"  {keys[0]}: missing\n" in said.err
    assert said.err.endswith("  ...\n")


def test_a_restore_says_what_is_there_and_what_is_left_to_do(
    writable: Place, empty: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with role(writable.url) as reader:
        run_sql(writable.url, f"GRANT SELECT ON products TO {reader}")
        writable.back_up(tmp_path / "backup.tar")
    lines = Commands(empty, capsys).restore(tmp_path / "backup.tar").out.splitlines()
    assert "is restored: 304 products and 312 pictures, with 324 files" in lines[0]
    assert lines[1].startswith("Servers serve as the role twinlens_server")
    assert lines[2] == f"Roles of your own had rights on its tables, which are not restored: {reader}."
    assert lines[3] == "Start servers with the artifact of the space aaaaaaaaaaaa (test)."


def test_one_without_pictures_says_so_and_json_is_the_last_line(
    backup: Path, empty: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    said = Commands(empty, capsys).restore(backup, "--without-media", "--json")
    found = json.loads(said.out)
    assert (found["products"], found["objects"], found["migrations"]) == (304, 0, [])
    assert "store --adopt" in said.err
    assert not empty.folder.exists()


def test_both_are_in_the_audit(
    writable: Place, empty: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def audit(place: Place) -> list[tuple[Any, ...]]:
        asked = "SELECT action, object, operator IS NOT NULL FROM twinlens_audit WHERE action IN ('backup', 'restore')"
        return run_sql(place.url, f"{asked} ORDER BY id")

    before, path = audit(writable), tmp_path / "backup.tar"
    Commands(writable, capsys).backup(path)
    assert audit(writable) == [*before, ("backup", str(path), True)]
    Commands(empty, capsys).restore(path)
    # The backup holds what was in the audit before it was made.
    assert audit(empty) == [*before, ("restore", str(path), True)]
