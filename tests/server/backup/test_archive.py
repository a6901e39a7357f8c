"""The file of a backup: anybody's tar unpacks it, and whatever was damaged or cut off is noticed."""

from __future__ import annotations

import io
import random
import subprocess
import tarfile
from pathlib import Path

import pytest

from server.backup.archive import DUMP, MANIFEST, STORE, SUMS, Archive, ArchiveWriter
from server.errors import BackupRefused

LONG = STORE + "media/" + "c" * 128 + "/" + "0" * 32 + ".webp"
ODD = STORE + "media/back\\slash and\nline"


def write(path: Path, pictures: int = 5, *, end: bool = True) -> Path:
    with path.open("w+b") as file, io.BytesIO() as sums:
        writer = ArchiveWriter(file, sums, mtime=1_700_000_000)
        writer.add(MANIFEST, b"{}")
        with writer.growing(DUMP) as add:
            for piece in (b"PGDMP", b"", b"x" * 1000):
                add(piece)
        for number in range(pictures):
            writer.add(f"{STORE}media/acme/{number:032x}.png", bytes([number % 256]) * (number * 511))
        writer.add(LONG, b"long")
        with writer.growing(ODD) as add:
            add(b"odd")
        if end:
            writer.close()
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "backup.tar")


def check(path: Path) -> None:
    with Archive(path) as archive:
        archive.head()
        archive.check()


def test_tar_and_sha256sum_unpack_and_check_it(path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "unpacked"
    folder.mkdir()
    subprocess.run(["tar", "--extract", "--file", path, "--directory", folder], check=True)
    done = subprocess.run(["sha256sum", "--check", SUMS], cwd=folder, capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 9
    assert (folder / LONG).read_bytes() == b"long"
    assert (folder / ODD).read_bytes() == b"odd"
    assert (folder / DUMP).stat().st_mode & 0o777 == 0o600


def test_what_was_written_is_read(path: Path) -> None:
    with Archive(path) as archive:
        read = {member.name: archive.read(member) for member in archive.members()}
        assert set(archive.head()) == {MANIFEST, DUMP}
    assert read[DUMP] == b"PGDMP" + b"x" * 1000
    assert read[f"{STORE}media/acme/{3:032x}.png"] == b"\3" * 1533
    assert read[LONG] == b"long"
    assert list(read)[-1] == SUMS


def test_a_sound_one_passes_and_says_how_much_was_read(path: Path) -> None:
    seen: list[int] = []
    with Archive(path) as archive:
        archive.check(seen.append)
    assert sum(seen) == 2 + 1005 + sum(number * 511 for number in range(5)) + 4 + 3


@pytest.mark.parametrize("seed", range(4))
def test_a_changed_byte_is_noticed_wherever_it_counts(path: Path, seed: int) -> None:
    """But in the blocks' padding, and in what of a header says nothing, such as the version of the format."""
    chance = random.Random(seed)
    whole = path.read_bytes()
    with Archive(path) as archive:
        places = [at for one in archive.members() for at in range(one.offset, one.offset + one.bytes)]
        heads = [one.offset - tarfile.BLOCKSIZE + at for one in archive.members() for at in (0, 1, 5, 130, 150)]
    for at in (*chance.sample(places, 40), *chance.sample(heads, 20)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << chance.randrange(8)]) + whole[at + 1 :])
        with pytest.raises(BackupRefused, match="damaged"):
            check(path)


def test_the_damaged_member_is_named(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"long\0", b"lang\0"))
    with pytest.raises(BackupRefused, match=f"{LONG} is not what was written"):
        check(path)


@pytest.mark.parametrize("part", [0, 1, 511, 512, 0.1, 0.3, 0.5, 0.7, 0.9, -513, -512, -1, -10_240])
def test_one_that_was_cut_off_is_refused(path: Path, part: float) -> None:
    whole = path.read_bytes()
    keep = part if isinstance(part, int) else round(len(whole) * part)
    path.write_bytes(whole[:keep])
    if whole[keep:].strip(b"\0"):
        with pytest.raises(BackupRefused, match=r"cut off|no backup"):
            check(path)
    else:  # only the zeros that fill the last record
        check(path)


def test_one_that_never_got_its_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BackupRefused, match="cut off"):
        check(write(tmp_path / "backup.tar", end=False))


def test_what_hangs_on_behind_it_is_refused(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")
    with pytest.raises(BackupRefused, match="damaged"):
        check(path)


@pytest.mark.parametrize("other", [b"", b"PGDMP" * 500, b"\0" * 20_480, b"\x1f\x8b" + b"z" * 4000])
def test_another_file_is_no_backup(tmp_path: Path, other: bytes) -> None:
    path = tmp_path / "other"
    path.write_bytes(other)
    with pytest.raises(BackupRefused, match=r"no backup of Twinlens|no whole backup"):
        check(path)


def test_another_tar_is_no_backup(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    with tarfile.open(tmp_path / "other.tar", "w") as tar:
        tar.add(tmp_path / "link", arcname=MANIFEST)
    with pytest.raises(BackupRefused, match="no backup of Twinlens"):
        check(tmp_path / "other.tar")


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(BackupRefused, match="No such file"):
        Archive(tmp_path / "none")


def test_no_list_of_the_members_grows_while_they_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "backup.tar", pictures=300)
    longest = 0

    class Watched(tarfile.TarFile):
        def next(self) -> tarfile.TarInfo | None:
            nonlocal longest
            longest = max(longest, len(self.members))  # type: ignore[attr-defined]
            return super().next()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tarfile, "open", Watched.open)
        check(path)
    assert longest <= 1
