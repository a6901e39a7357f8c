"""Where an artifact goes: worked on in a folder beside its place, and put there whole, in one step."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from export.errors import ExportRefused

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def destination(models: Path, name: str) -> Path:
    """Where the artifact will be. Raises ExportRefused for a name that is no folder's, or a place that is taken.

    An artifact of the same name is no hindrance: it is replaced, whole, at the very end.
    """
    if not _NAME.fullmatch(name):
        raise ExportRefused(
            f"{name!r} cannot be an artifact's name: at most 100 letters, digits, dots, dashes and underscores, "
            "beginning with a letter or digit."
        )
    place = models / name
    if place.is_symlink() or (place.exists() and not (place / "manifest.json").is_file()):
        raise ExportRefused(f"{place} is in the way and is not an artifact; move it, or choose another --name.")
    return place


@contextlib.contextmanager
def staging(place: Path) -> Iterator[Path]:
    """A new folder beside the place, hidden, removed on the way out unless `put` has taken it.

    It is locked while in use, so that what a killed export left behind can be told from one that is running.
    """
    made = not place.parent.exists()
    place.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(place)
    folder = place.parent / f".{place.name}.{secrets.token_hex(4)}.partial"
    try:
        folder.mkdir()
        lock = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield folder
        finally:
            os.close(lock)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if made and not place.exists():
            with contextlib.suppress(OSError):  # someone else has put something there meanwhile
                place.parent.rmdir()


def _remove_stale(place: Path) -> None:
    for folder in place.parent.glob(f".{place.name}.*.partial"):
        try:
            lock = os.open(folder, os.O_RDONLY)
        except OSError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            pass  # another export is at work there
        finally:
            os.close(lock)


def put(folder: Path, place: Path) -> None:
    """Put the finished folder in its place in one step; the artifact that was there stays whole until then."""
    for path in [*folder.rglob("*"), folder]:
        _sync(path)
    if not place.exists():
        folder.rename(place)
    elif not _exchange(folder, place):
        # No atomic exchange on this file system: for a moment there is none, and an error brings the old one back.
        aside = folder.with_suffix(".old")
        place.rename(aside)
        try:
            folder.rename(place)
        except BaseException:
            aside.rename(place)
            raise
        shutil.rmtree(aside, ignore_errors=True)
    _sync(place.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two folders' names atomically (Linux renameat2); False where the system cannot."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    here, swap = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return renameat2 is not None and renameat2(here, os.fsencode(one), here, os.fsencode(other), swap) == 0
