"""The file of a backup: an uncompressed tar, whose last member has the SHA-256 of all others.

`tar` unpacks it, and `sha256sum --check SHA256SUMS` then checks it. What is read and written here takes the same memory
for any number of members.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from server.errors import BackupRefused

README = "README.txt"
MANIFEST = "twinlens-backup.json"
DUMP = "database.dump"
PROBLEMS = "PROBLEMS.txt"
SUMS = "SHA256SUMS"
STORE = "store/"
"""The prefix of the members that are objects of the store; what follows is the key."""

PIECE = 1024 * 1024
_LARGEST_SUMS_LINE = 64 * 1024
_END = tarfile.BLOCKSIZE * 2
_ORDINARY = (tarfile.REGTYPE, tarfile.AREGTYPE)


# --- writing ---------------------------------------------------------------------------------------------------------


class ArchiveWriter:
    """Writes members one after the other into a file that can be sought in; `sums` keeps their digests meanwhile."""

    def __init__(self, file: IO[bytes], sums: IO[bytes], mtime: int) -> None:
        """`mtime`: of all members, in seconds since 1970."""
        self._file = file
        self._sums = sums
        self._mtime = mtime
        self.members = 0

    def add(self, name: str, data: bytes) -> None:
        """Write a member."""
        self._file.write(self._header(name, len(data)))
        self._file.write(data)
        self._end(name, len(data), hashlib.sha256(data).hexdigest())

    @contextmanager
    def growing(self, name: str) -> Iterator[Callable[[bytes], None]]:
        """Write a member whose size shows at its end; each call of what is given adds a piece."""
        at = self._file.tell()
        self._file.write(self._header(name, 0))
        digest, size = hashlib.sha256(), 0

        def add(piece: bytes) -> None:
            nonlocal size
            self._file.write(piece)
            digest.update(piece)
            size += len(piece)

        yield add
        self._file.seek(at)
        self._file.write(self._header(name, size))
        self._file.seek(0, 2)
        self._end(name, size, digest.hexdigest())

    def close(self) -> None:
        """Write the digests, and the end."""
        self._sums.flush()
        self._sums.seek(0)
        with self.growing(SUMS) as add:
            while piece := self._sums.read(PIECE):
                add(piece)
        self._file.write(bytes(_END))
        self._file.write(bytes(-self._file.tell() % tarfile.RECORDSIZE))

    def _header(self, name: str, size: int) -> bytes:
        info = tarfile.TarInfo(name)
        info.size, info.mtime, info.mode = size, self._mtime, 0o600
        return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")  # its length does not depend on the size

    def _end(self, name: str, size: int, digest: str) -> None:
        self._file.write(bytes(-size % tarfile.BLOCKSIZE))
        if name != SUMS:
            self._sums.write(_line(digest, name))
        self.members += 1


def _line(digest: str, name: str) -> bytes:
    """A line as `sha256sum` writes it."""
    escaped = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    return f"{'' if escaped == name else chr(92)}{digest}  {escaped}\n".encode()


# --- reading ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a backup: where its bytes lie in the file, and how many there are."""

    name: str
    offset: int
    bytes: int


class Archive:
    """A backup's file, open for reading. Everything raises BackupRefused where the file is not what it should be."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = path.open("rb")
            self.bytes = self._file.seek(0, 2)
        except OSError as exc:
            raise BackupRefused(f"{path} cannot be read: {exc.strerror or exc}.") from exc

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def check(self, on_piece: Callable[[int], None] = lambda _: None) -> None:
        """Read all of it, and compare each member with its digest. `on_piece`: told of the bytes that were read."""
        last = None
        for member in self.members():
            last = member
        if last is None or last.name != SUMS:
            raise self._cut()
        try:
            with self.path.open("rb") as sums:
                sums.seek(last.offset)
                self._compare(sums, last, on_piece)
        except OSError as exc:
            raise BackupRefused(f"{self.path} cannot be read: {exc.strerror or exc}.") from exc

    def _compare(self, sums: IO[bytes], last: Member, on_piece: Callable[[int], None]) -> None:
        end = last.offset + last.bytes
        for member in self.members():
            if member.name == SUMS:
                continue
            digest = hashlib.sha256()
            for piece in self.pieces(member):
                digest.update(piece)
                on_piece(len(piece))
            line = sums.readline(min(_LARGEST_SUMS_LINE, end - sums.tell()))
            if line != _line(digest.hexdigest(), member.name):
                raise BackupRefused(
                    f"{self.path} is damaged: {member.name} is not what was written there. Take another "
                    "copy of the backup."
                )
        if sums.tell() != end:
            raise self._cut()
        sums.seek(-last.bytes % tarfile.BLOCKSIZE, 1)
        rest = sums.read(_END + tarfile.RECORDSIZE + 1)
        if not _END <= len(rest) <= _END + tarfile.RECORDSIZE or any(rest):
            raise self._cut()

    def members(self) -> Iterator[Member]:
        """All members in their order, as far as the file goes."""
        try:
            self._file.seek(0)
            with tarfile.open(fileobj=self._file, mode="r:", encoding="utf-8", errors="surrogateescape") as tar:
                while (info := tar.next()) is not None:
                    tar.members.clear()  # type: ignore[attr-defined]  # else it remembers them all
                    if info.type not in _ORDINARY:
                        raise BackupRefused(f"{self.path} is no backup of Twinlens: it holds {info.name}, no file.")
                    yield Member(info.name, info.offset_data, info.size)
        except (tarfile.TarError, EOFError, ValueError) as exc:
            raise self._cut() from exc
        except OSError as exc:
            raise BackupRefused(f"{self.path} cannot be read: {exc.strerror or exc}.") from exc

    def pieces(self, member: Member) -> Iterator[bytes]:
        """The bytes of a member."""
        at, end = member.offset, member.offset + member.bytes
        while at < end:
            self._file.seek(at)
            piece = self._file.read(min(PIECE, end - at))
            if not piece:
                raise self._cut()
            at += len(piece)
            yield piece

    def read(self, member: Member) -> bytes:
        """All bytes of a member."""
        return b"".join(self.pieces(member))

    def head(self) -> dict[str, Member]:
        """The members before the pictures, by name."""
        found = {}
        for member in self.members():
            if member.name.startswith(STORE) or member.name == SUMS:
                break
            found[member.name] = member
        if MANIFEST not in found or DUMP not in found:
            raise BackupRefused(f"{self.path} is no backup of Twinlens, or it is damaged at its beginning.")
        return found

    def _cut(self) -> BackupRefused:
        return BackupRefused(
            f"{self.path} is no whole backup: it was cut off, or is damaged. Take another copy of the backup."
        )
