"""A small disk of the run's own, which can be full: a tmpfs in a mount namespace that nobody else sees.

Root makes such a namespace by itself, others inside a user namespace, where the system allows that. Where neither is
allowed, the run goes on without the fault.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

BYTES = 768 << 20
"""What a new database, the write-ahead log at its bound, the pictures and the caches of two models fit into."""

_AS_ROOT = ("unshare", "--mount", "--propagation", "private")
_AS_USER = ("unshare", "--user", "--map-current-user", "--keep-caps", "--mount", "--propagation", "private")
_TRIES = 20


def namespace() -> Sequence[str] | None:
    """What to put before a command that shall be able to mount; None where this user may not."""
    before = _AS_ROOT if os.geteuid() == 0 else _AS_USER
    try:
        tried = subprocess.run(  # noqa: S603 - no input of others
            [*before, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return before if tried.returncode == 0 else None


class Disk:
    """A tmpfs over a folder. At the latest it goes with the namespace."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o755)
        self.folder = folder
        self._mount("-t", "tmpfs", "-o", f"size={BYTES},mode=755", "twinlens-crash")

    @property
    def used(self) -> int:
        """Bytes."""
        found = os.statvfs(self.folder)
        return (found.f_blocks - found.f_bfree) * found.f_frsize

    def fill(self, left: int) -> None:
        """Leave room for so many bytes more, and no others: the disk shrinks to what it holds."""
        for _ in range(_TRIES):
            try:
                self._mount("-o", f"remount,size={self.used + left}")
            except RuntimeError:  # more was written at this moment
                continue
            return
        raise RuntimeError("the disk could not be filled")

    def free(self) -> None:
        self._mount("-o", f"remount,size={BYTES}")

    def close(self) -> None:
        """Take it away; what still has a file open there does not hold that up."""
        _run("umount", "--lazy", str(self.folder))

    def _mount(self, *arguments: str) -> None:
        _run("mount", *arguments, str(self.folder))


def _run(*command: str) -> None:
    """Raises RuntimeError with what the command says."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - no input of others
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]}: {done.stderr.strip()}")


def within(before: Sequence[str], arguments: Sequence[str]) -> int:
    """Run this bench inside such a namespace; its exit code."""
    command = [*before, sys.executable, "-m", "bench.crash", *arguments, "--mounted"]
    return subprocess.call(command)  # noqa: S603 - our own
