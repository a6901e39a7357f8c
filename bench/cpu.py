"""What processes cost in core-seconds, read from /proc: trees of processes, single processes, single threads.

A core-second is one core busy for one second, in user or kernel mode. The kernel counts in ticks, a hundredth of a
second as a rule: measure over seconds.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_TICK = 1.0 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class _Stat:
    name: str
    parent: int
    own: float
    """Core-seconds of its own, all threads (of a thread: its own)."""
    reaped: float
    """Core-seconds of children that have ended and were waited for, and of theirs."""


def tree(pid: int) -> list[int]:
    """The process and all that descend from it and are alive, parents first; empty when it has ended."""
    children: dict[int, list[int]] = {}
    for other in (int(one.name) for one in _PROC.iterdir() if one.name.isdecimal()):
        if (found := _stat(_PROC / str(other))) is not None:
            children.setdefault(found.parent, []).append(other)
    if _stat(_PROC / str(pid)) is None:
        return []
    pids = [pid]
    for one in pids:  # grows while it is walked
        pids.extend(children.get(one, []))
    return pids


def tree_seconds(pid: int) -> float:
    """Core-seconds since the start of a process and its descendants, those that have ended among them."""
    stats = (_stat(_PROC / str(one)) for one in tree(pid))
    return sum(one.own + one.reaped for one in stats if one is not None)


def process_seconds(pid: int) -> float:
    """Core-seconds of one process and of its children that have ended; 0 when it has ended itself."""
    found = _stat(_PROC / str(pid))
    return 0.0 if found is None else found.own + found.reaped


def thread_seconds(pid: int) -> dict[int, tuple[str, float]]:
    """The kernel's name of each living thread, and its core-seconds; by thread id, the main thread's is `pid`."""
    threads = {}
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in (_PROC / str(pid) / "task").iterdir():
            if (found := _stat(task)) is not None:
                threads[int(task.name)] = (found.name, found.own)
    return threads


def name(pid: int) -> str:
    """The kernel's name of a process, at most 15 characters; empty when it has ended."""
    found = _stat(_PROC / str(pid))
    return "" if found is None else found.name


def title(pid: int) -> str:
    """The command line of a process, as the process shows itself; empty when it has ended."""
    try:
        return (_PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _stat(folder: Path) -> _Stat | None:
    try:
        line = (folder / "stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # `pid (name) state ppid ...`: the name may hold blanks and brackets, so what counts begins after the last bracket.
    head, _, rest = line.rpartition(")")
    numbers = rest.split()
    user, system, reaped_user, reaped_system = (int(one) * _TICK for one in numbers[11:15])
    return _Stat(head.partition("(")[2], int(numbers[1]), user + system, reaped_user + reaped_system)
