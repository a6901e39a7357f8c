"""A real disk of a few megabytes, for tests that fill it; only root may mount one, and not everywhere."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A disk of so many megabytes, mounted on this folder; skips the test where none can be had."""
    folder.mkdir(exist_ok=True)
    options = f"size={megabytes}m,mode=0755"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "twinlens-test", folder], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"no disk of the test's own can be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder: Path) -> Path:
    """A file that takes all the room that is left."""
    path = folder / "filling"
    with path.open("wb", buffering=0) as file:
        found = os.statvfs(folder)
        os.posix_fallocate(file.fileno(), 0, found.f_bavail * found.f_frsize)
    return path
