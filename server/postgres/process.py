"""What the process of PostgreSQL needs: its lock, its settings, its environment, and its end when this process ends."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from server.errors import StartRefused
from server.postgres.sockets import PORT, socket_folder

_MEMORY_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def acquire_lock(path: Path, *, wait: float) -> int | None:
    """Lock a file, made where there is none; None when another process still holds it after `wait` seconds.

    The lock is held as long as the file descriptor that is returned, or a copy of it in a child, is open.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                os.close(descriptor)
                return None
            time.sleep(0.05)
        except BaseException:
            os.close(descriptor)
            raise
        else:
            return descriptor


def discard_stale_pid_files(cluster: Path) -> None:
    """Remove pid files that name a process which is not a postmaster of this cluster.

    After a crash or in a new container the number may belong to any process. PostgreSQL then believes that this process
    is a running server, and does not start. (A number that belongs to no process is no obstacle: PostgreSQL sees that
    itself, and checks further.) Remove those that name no process as well: a full disk or a power cut has left them
    unfinished, and PostgreSQL starts beside none of them. Raises StartRefused when a postmaster of this cluster runs.
    """
    for path in _pid_files(cluster):
        try:
            named = _named_in(path)
        except FileNotFoundError:
            continue
        if named is not None and _works_in(named, cluster):
            raise StartRefused(f"A PostgreSQL that Twinlens did not start, process {named}, is running on {cluster}.")
        if named is None or Path("/proc", str(named)).exists():
            path.unlink(missing_ok=True)


def postmaster_of(cluster: Path) -> int | None:
    """The pid of the postmaster that runs on this cluster, whoever started it; None where there is none."""
    for path in _pid_files(cluster):
        with contextlib.suppress(FileNotFoundError):
            if (named := _named_in(path)) is not None and _works_in(named, cluster):
                return named
    return None


def _pid_files(cluster: Path) -> tuple[Path, Path]:
    return cluster / "postmaster.pid", socket_folder(cluster) / f".s.PGSQL.{PORT}.lock"


def _named_in(path: Path) -> int | None:
    """The process that a pid file names, whether or not it lives; None where the file was left unfinished.

    Raises FileNotFoundError where there is no such file, or none that may be read.
    """
    try:
        return int(path.read_text(encoding="utf-8", errors="replace").splitlines()[0])
    except (ValueError, IndexError):
        return None
    except OSError as exc:
        raise FileNotFoundError(path) from exc


def _works_in(pid: int, cluster: Path) -> bool:
    """Whether a process works in the cluster's folder, as a postmaster does."""
    try:
        return os.readlink(Path("/proc", str(pid), "cwd")) == str(cluster)
    except OSError:  # it has ended, is of another user, or dead and not yet collected by its parent
        return False


def stop_with_parent() -> Callable[[], None] | None:
    """What the child does before it becomes the postmaster: request a SIGINT, a fast stop, for when its parent dies.

    Everything is looked up before the fork; between fork and exec there are two system calls. The request is made
    after the change of user, which would clear it. None where the system knows no such request.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent, set_death_signal, interrupt = os.getpid(), 1, int(signal.SIGINT)

    def request() -> None:
        prctl(set_death_signal, interrupt, 0, 0, 0)
        if os.getppid() != parent:  # the parent died before the request was made
            os._exit(1)

    return request


def environment() -> dict[str, str]:
    """The environment of this process without what would change PostgreSQL's defaults or messages."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    return {**kept, "LC_ALL": "C"}


def settings() -> list[str]:
    """PostgreSQL's settings, as `name=value`. They are modest: the machine's memory is the model's first."""
    megabytes = _memory() // 2**20
    return [
        "listen_addresses=",
        f"port={PORT}",
        "unix_socket_permissions=0700",
        "max_connections=100",
        # Occupied as it is used. A search in an index reads hundreds of pages; what is not here is copied here first.
        f"shared_buffers={min(4096, max(128, megabytes // 8))}MB",
        f"maintenance_work_mem={min(1024, max(64, megabytes // 32))}MB",  # an HNSW graph wants to fit while it is built
        "fsync=on",
        # Workers gained nothing on small machines, and they need a shared memory that containers keep small.
        "max_parallel_workers_per_gather=0",
        "max_parallel_maintenance_workers=0",
        "logging_collector=off",
        "log_destination=stderr",
        "log_line_prefix=%m [%p] ",
        "log_checkpoints=off",
        "log_timezone=UTC",
        "timezone=UTC",
    ]


def tail(log: Path, begin: int, lines: int = 15) -> str:
    """The last lines of what was written to a log after its first `begin` bytes."""
    try:
        with log.open("rb") as file:
            file.seek(begin)
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:]) or "(empty)"
    except OSError:
        return "(no log)"


def _memory() -> int:
    """Bytes that this machine has, or that this container may use."""
    least = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for limit in _MEMORY_LIMITS:
        with contextlib.suppress(OSError, ValueError):  # "max" where there is none
            least = min(least, int(limit.read_text()))
    return least
