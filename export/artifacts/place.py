"""Where an artifact goes: made in a hidden folder beside its place, and moved there in one step when it is complete."""

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

# How often a folder is made and locked before it is given up: a link that leads nowhere can be neither opened nor made.
_ATTEMPTS = 100


def destination(models: Path, name: str) -> Path:
    """Where the artifact will be. Raises ExportRefused for a name that is no folder's, or a place that is in use.

    An artifact of the same name may be there: the finished export replaces it.
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
    """A new hidden folder beside the place, removed at the end unless `put` has moved it.

    It is locked while in use, which distinguishes it from a folder that a killed export left behind.
    """
    with contextlib.ExitStack() as on_exit:
        made: list[Path] = []
        on_exit.callback(_remove_made, made)
        # Locked before another export, which tidies up, can see it.
        with _exclusively(place.parent, made):
            _tidy(place)
            folder = place.parent / f".{place.name}.{secrets.token_hex(4)}.partial"
            on_exit.callback(shutil.rmtree, folder, ignore_errors=True)
            folder.mkdir()
            lock = os.open(folder, os.O_RDONLY)
            on_exit.callback(os.close, lock)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield folder


@contextlib.contextmanager
def _exclusively(parent: Path, made: list[Path]) -> Iterator[None]:
    """Let one export at a time create, tidy or rename in this folder; `made` collects the folders it makes.

    The folder itself is the lock, so that no lock file stays behind. Where another export, refused, has removed it in
    the meantime, it is made again.
    """
    lock = _lock(parent, made)
    try:
        yield
    finally:
        os.close(lock)


def _lock(parent: Path, made: list[Path]) -> int:
    for _ in range(_ATTEMPTS):
        # Another export may have removed the folder between two steps, or replaced it before this one had the lock.
        with contextlib.suppress(FileNotFoundError):
            _make(parent, made)
            lock = os.open(parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if os.path.samestat(os.fstat(lock), parent.stat()):
                    return lock
            except BaseException:
                os.close(lock)
                raise
            os.close(lock)
    raise ExportRefused(f"There is no folder {parent}, and none can be made there.")


def _make(folder: Path, made: list[Path]) -> None:
    for one in [one for one in reversed([folder, *folder.parents]) if not one.exists()]:
        with contextlib.suppress(FileExistsError):  # another export has just made it
            one.mkdir()
            made.append(one)


def _remove_made(made: list[Path]) -> None:
    """Remove the folders that were made and are empty, the innermost first."""
    for folder in reversed(made):
        with contextlib.suppress(OSError):
            lock = os.open(folder, os.O_RDONLY)
            try:
                # The export that holds the lock is about to put something there.
                fcntl.flock(lock, fcntl.LOCK_EX)
                folder.rmdir()
            finally:
                os.close(lock)


def _tidy(place: Path) -> None:
    """Remove what killed exports of this name left behind, and restore the artifact that one of them had set aside."""
    left = re.compile(rf"\.{re.escape(place.name)}\.[0-9a-f]{{8}}\.(partial|old)")
    for path in sorted(place.parent.iterdir()):
        if not (match := left.fullmatch(path.name)):
            continue
        if match[1] == "partial":
            _remove_stale(path)
        elif not place.exists() and (path / "manifest.json").is_file():
            path.rename(place)
        else:
            shutil.rmtree(path, ignore_errors=True)


def _remove_stale(folder: Path) -> None:
    try:
        lock = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except OSError:
        pass  # a running export holds the lock
    finally:
        os.close(lock)


def put(folder: Path, place: Path) -> None:
    """Put the finished folder in its place in one step; the artifact that was there stays complete until then."""
    for path in [*folder.rglob("*"), folder]:
        _sync(path)
    with _exclusively(place.parent, []):
        if not place.exists():
            folder.rename(place)
        elif not _exchange(folder, place):
            # This file system cannot exchange folders atomically: for a moment there is no artifact. An error restores
            # the old one; after a kill the next export of this name does (`_tidy`).
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
