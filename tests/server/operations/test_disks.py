"""Disks: how much room is left, that one is full, that a drive is not there, and one that hangs."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from server.errors import DiskFull
from server.operations import disks as disks_module
from server.operations.disks import Disks, Room, room_of
from tests.support.full_disk import fill, small_disk
from tests.support.process import until


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disks_module, "_LOOK_SECONDS", 0.01)


def test_the_room_on_a_disk_is_what_the_system_says(tmp_path: Path) -> None:
    room = room_of(tmp_path)
    assert 0 < room.free <= room.size
    assert room.names


def test_a_disk_that_fills_is_trouble_and_no_longer_once_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", disks_module.__name__)
    monkeypatch.setattr(disks_module, "LEAST_FREE_BYTES", 1_000_000)
    with small_disk(tmp_path / "disk", 4) as disk, Disks({"media": disk}, needed=["media"]) as disks:
        until(lambda: disks.rooms)
        assert disks.trouble is None
        assert disks.rooms["media"].size == 4 * 1024 * 1024
        filling = fill(disk)
        until(lambda: disks.trouble)
        assert isinstance(disks.trouble, DiskFull)
        assert str(tmp_path) not in disks.trouble.sentence
        filling.unlink()
        until(lambda: disks.trouble is None)
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]
    assert str(tmp_path / "disk") in caplog.records[0].getMessage()


def test_a_disk_that_has_no_room_for_another_file_is_full(tmp_path: Path) -> None:
    with Disks({"media": tmp_path}, needed=["media"], look=lambda _: Room(10**12, 10**12, names=False)) as disks:
        until(lambda: disks.trouble)


def test_a_full_disk_that_the_server_can_do_without_is_no_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disks_module, "LEAST_FREE_BYTES", 1 << 62)
    with Disks({"data": tmp_path, "media": tmp_path / "none"}, needed=["media"]) as disks:
        until(lambda: disks.rooms)
        assert disks.trouble is None


def test_a_folder_that_is_not_there_has_no_room_and_is_found_when_it_comes(tmp_path: Path) -> None:
    with Disks({"data": tmp_path, "media": tmp_path / "media"}, needed=["media"]) as disks:
        until(lambda: set(disks.rooms) == {"data"})
        (tmp_path / "media").mkdir()
        until(lambda: set(disks.rooms) == {"data", "media"})


def test_a_drive_that_hangs_holds_up_neither_the_start_nor_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disks_module, "_FIRST_LOOK_SECONDS", 0.01)
    back = threading.Event()

    def look(folder: Path) -> Room:
        back.wait()
        return room_of(folder)

    with Disks({"media": tmp_path}, needed=["media"], look=look) as disks:
        assert disks.rooms == {}
        assert disks.trouble is None
    back.set()
