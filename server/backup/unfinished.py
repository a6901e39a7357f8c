"""A file that has its name only when it is whole and on the disk; until then it is another one beside it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from server.errors import BackupRefused

SUFFIX = ".part"


@contextmanager
def unfinished(path: Path) -> Iterator[IO[bytes]]:
    """A new file, for this user alone, that gets its name where the block ends well, and is removed where it does not.

    What a killed process has left beside it is written over. Raises BackupRefused where there is a file of that name,
    where another process is writing it, and for whatever the system refuses.
    """
    part = path.with_name(path.name + SUFFIX)
    try:
        if os.path.lexists(path):
            raise BackupRefused(f"{path} is there already, and is not written over: give another name.")
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "r+b") as file:
            _take(file, part, path)
            try:
                yield file
                file.flush()
                os.fsync(descriptor)
                _name(part, path)
            finally:
                part.unlink(missing_ok=True)
    except OSError as exc:
        raise BackupRefused(f"{path} could not be written: {exc.strerror or exc}. Nothing is left of it.") from exc


def _take(file: IO[bytes], part: Path, path: Path) -> None:
    """Have the unfinished file to oneself, empty."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Whoever had it before may have given it its name since it was opened here.
        mine = os.path.samestat(os.fstat(file.fileno()), part.lstat())
    except (BlockingIOError, FileNotFoundError):
        mine = False
    if not mine:
        raise BackupRefused(f"Another process is writing {path} at this moment.")
    os.fchmod(file.fileno(), 0o600)
    file.truncate(0)


def _name(part: Path, path: Path) -> None:
    try:
        os.link(part, path)  # unlike a renaming, it writes over nothing
    except FileExistsError:
        raise BackupRefused(f"{path} has been made by somebody else meanwhile, and is not written over.") from None
    except OSError:  # a file system without links
        part.rename(path)
    folder = os.open(path.absolute().parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
