"""A file has its name when it is whole, and never before."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from server.backup.unfinished import SUFFIX, unfinished
from server.errors import BackupRefused
from tests import ROOT


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "backup.tar"


def part_of(path: Path) -> Path:
    return path.with_name(path.name + SUFFIX)


def test_it_has_its_name_when_it_is_whole_and_is_for_its_owner_alone(path: Path) -> None:
    with unfinished(path) as file:
        file.write(b"all")
        assert not path.exists()
    assert path.read_bytes() == b"all"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_nothing_is_left_where_it_fails(path: Path) -> None:
    with pytest.raises(ZeroDivisionError), unfinished(path) as file:
        file.write(bytes([1 // 0]))
    assert list(path.parent.iterdir()) == []


def test_a_full_disk_is_a_sentence(path: Path) -> None:
    with pytest.raises(BackupRefused, match="could not be written: No space left on device"), unfinished(path):
        raise OSError(28, "No space left on device")
    assert list(path.parent.iterdir()) == []


def test_a_file_that_is_there_is_not_written_over(path: Path) -> None:
    path.write_bytes(b"precious")
    with pytest.raises(BackupRefused, match="there already"), unfinished(path):
        pass
    assert path.read_bytes() == b"precious"


def test_nor_is_one_that_came_meanwhile(path: Path) -> None:
    with pytest.raises(BackupRefused, match="somebody else"), unfinished(path):
        path.write_bytes(b"precious")
    assert path.read_bytes() == b"precious"
    assert not part_of(path).exists()


def test_a_link_is_not_followed(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    part_of(path).symlink_to(target)
    with pytest.raises(BackupRefused, match="could not be written"), unfinished(path):
        pass
    assert target.read_bytes() == b"precious"


def test_a_folder_that_is_not_there_is_said(path: Path) -> None:
    with pytest.raises(BackupRefused, match="No such file"), unfinished(path / "below"):
        pass


def test_two_do_not_write_the_same_file(path: Path) -> None:
    with unfinished(path) as file:
        file.write(b"mine")
        with pytest.raises(BackupRefused, match="Another process"), unfinished(path):
            pass
    assert path.read_bytes() == b"mine"


def test_what_a_killed_process_left_is_written_over(path: Path) -> None:
    code = f"""
import os, signal
from pathlib import Path
from server.backup.unfinished import unfinished
with unfinished(Path({str(path)!r})) as file:
    file.write(b"x" * 1000)
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    assert part_of(path).stat().st_size == 1000
    assert not path.exists()
    part_of(path).chmod(0o644)
    with unfinished(path) as file:
        file.write(b"all")
    assert path.read_bytes() == b"all"
    assert path.stat().st_mode & 0o777 == 0o600
