"""Publishing: atomic, tidy, and sealed against one flipped byte."""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from export.__main__ import main
from export.artifacts import place
from export.errors import ExportRefused
from tests.support.checkpoints import files_of

pytestmark = pytest.mark.usefixtures("few_pictures")


@pytest.fixture
def copy(artifact: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(artifact, tmp_path / "copy"))


def verify(folder: Path) -> int:
    return main(["verify", str(folder)])


def test_an_artifact_verifies_wherever_it_is_copied(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(copy) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["files", "goldens", "gate"]


def test_one_flipped_bit_in_any_file_fails_the_verification(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, data in files_of(copy).items():
        for offset in sorted({0, 1, len(data) // 3, len(data) // 2, len(data) - 2, len(data) - 1}):
            for bit in (0x01, 0x80):
                flipped = bytearray(data)
                flipped[offset] ^= bit
                (copy / name).write_bytes(flipped)
                assert verify(copy) == 2, f"{name}, byte {offset}"
                assert capsys.readouterr().err.startswith("export: ")
        (copy / name).write_bytes(data)
    assert verify(copy) == 0


def test_every_byte_of_the_manifest_and_its_seal_is_protected(copy: Path) -> None:
    for name in ("manifest.json", "manifest.sha256"):
        data = (copy / name).read_bytes()
        for offset in range(0, len(data), 7):
            # A space for a tab, a digit for another: what JSON itself would not notice.
            flipped = bytearray(data)
            flipped[offset] ^= 0x01
            (copy / name).write_bytes(flipped)
            assert verify(copy) == 2, f"{name}, byte {offset}"
        (copy / name).write_bytes(data)


@pytest.mark.parametrize("name", ["extra.bin", "goldens/extra.npy", ".hidden", "image.int8.onnx"])
def test_a_file_that_the_manifest_does_not_list_fails(
    name: str, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (copy / name).write_bytes(b"x")
    assert verify(copy) == 2
    assert name.rpartition("/")[2] in capsys.readouterr().err


def test_a_readme_of_ones_own_is_welcome(copy: Path) -> None:
    (copy / "README.md").write_text("Ours since May.")
    assert verify(copy) == 0


def test_each_file_that_is_missing_fails(copy: Path) -> None:
    for name, data in files_of(copy).items():
        (copy / name).unlink()
        assert verify(copy) == 2, name
        (copy / name).write_bytes(data)


def test_what_is_no_artifact_fails_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(tmp_path / "nothing") == 2
    assert "no model artifact" in capsys.readouterr().err


def _no_exchange(one: Path, other: Path) -> bool:
    return False


@pytest.mark.parametrize("exchange", [place._exchange, _no_exchange], ids=["exchange", "rename"])
def test_publishing_replaces_the_complete_folder(
    exchange: Callable[[Path, Path], bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "_exchange", exchange)
    target = tmp_path / "a"
    target.mkdir()
    (target / "manifest.json").write_text("old")
    (target / "old").write_text("old")
    with place.staging(target) as folder:
        (folder / "manifest.json").write_text("new")
        assert files_of(target) == {"manifest.json": b"old", "old": b"old"}
        place.put(folder, target)
    assert files_of(tmp_path) == {"a/manifest.json": b"new"}
    assert os.listdir(tmp_path) == ["a"]


def test_a_rename_that_fails_restores_the_old_artifact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "_exchange", _no_exchange)
    target = tmp_path / "a"
    target.mkdir()
    (target / "manifest.json").write_text("old")
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if self.name.endswith(".partial"):
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="Input/output"), place.staging(target) as folder:
        place.put(folder, target)
    assert files_of(tmp_path) == {"a/manifest.json": b"old"}
    assert os.listdir(tmp_path) == ["a"]


def test_the_exchange_is_atomic_where_the_system_can(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text(name)
    if place._exchange(tmp_path / "a", tmp_path / "b"):
        assert files_of(tmp_path) == {"a/b": b"b", "b/a": b"a"}
    else:
        assert files_of(tmp_path) == {"a/a": b"a", "b/b": b"b"}


def test_what_a_killed_export_left_is_removed_and_a_running_one_is_not(tmp_path: Path) -> None:
    dead, alive = tmp_path / ".a.00000000.partial", tmp_path / ".a.11111111.partial"
    dead.mkdir()
    alive.mkdir()
    (dead / "half").write_text("x")
    lock = os.open(alive, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with place.staging(tmp_path / "a"):
        assert not dead.exists()
        assert alive.exists()
    os.close(lock)
    assert os.listdir(tmp_path) == [alive.name]


def _aside(models: Path, name: str, content: str) -> Path:
    """What an export leaves that is killed between its two renames."""
    folder = models / f".{name}.0123abcd.old"
    folder.mkdir()
    (folder / "manifest.json").write_text(content)
    return folder


def test_an_artifact_that_a_killed_export_had_set_aside_is_restored(tmp_path: Path) -> None:
    _aside(tmp_path, "a", "old")
    half = tmp_path / ".a.89abcdef.partial"
    half.mkdir()
    with place.staging(tmp_path / "a"):
        assert files_of(tmp_path / "a") == {"manifest.json": b"old"}
    assert os.listdir(tmp_path) == ["a"]


def test_what_was_set_aside_is_removed_where_there_is_a_newer_one(tmp_path: Path) -> None:
    _aside(tmp_path, "a", "old")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "manifest.json").write_text("new")
    with place.staging(tmp_path / "a"):
        pass
    assert files_of(tmp_path) == {"a/manifest.json": b"new"}
    assert os.listdir(tmp_path) == ["a"]


def test_what_another_artifact_left_is_not_touched(tmp_path: Path) -> None:
    kept = {_aside(tmp_path, name, "theirs").name for name in ("a.b", "ab", "b")}
    with place.staging(tmp_path / "a"):
        pass
    assert set(os.listdir(tmp_path)) == kept


def test_a_rename_waits_while_another_export_tidies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the two renames there is no artifact, and another export must not restore the old one."""
    monkeypatch.setattr(place, "_exchange", _no_exchange)
    target = tmp_path / "a"
    target.mkdir()
    (target / "manifest.json").write_text("old")
    rename = Path.rename
    another: list[threading.Thread] = []

    def tidy() -> None:
        with place.staging(target):
            pass

    def start_another(self: Path, target: Path) -> Path:
        done = rename(self, target)
        if target.name.endswith(".old"):
            another.append(threading.Thread(target=tidy))
            another[0].start()
            another[0].join(0.2)
            assert another[0].is_alive()
        return done

    monkeypatch.setattr(Path, "rename", start_another)
    with place.staging(target) as folder:
        (folder / "manifest.json").write_text("new")
        place.put(folder, target)
    another[0].join()
    assert files_of(tmp_path) == {"a/manifest.json": b"new"}
    assert os.listdir(tmp_path) == ["a"]


def test_exports_of_one_name_at_once_leave_each_others_folders_alone(tmp_path: Path) -> None:
    target = tmp_path / "made" / "on" / "the" / "way" / "a"

    def stage(turn: int) -> None:
        with place.staging(target) as folder:
            (folder / "half").write_text(str(turn))
            assert (folder / "half").read_text() == str(turn)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(stage, range(400)))
    # Whoever made the folders on the way may have ended before the others; of the work itself nothing is left.
    assert not list(tmp_path.rglob(".*"))


def test_a_models_folder_that_leads_nowhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "models").symlink_to(tmp_path / "missing")
    with pytest.raises(ExportRefused, match="none can be made there"), place.staging(tmp_path / "models" / "a"):
        pass


def test_a_link_in_the_artifacts_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "manifest.json").write_text("{}")
    (tmp_path / "a").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ExportRefused, match="in the way"):
        place.destination(tmp_path, "a")
