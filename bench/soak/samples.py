"""What a server holds at a moment, and whether a series of such figures stays flat."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import cpu

_PROC = Path("/proc")
_TASKS = re.compile(rb"^twinlens_tasks (\S+)", re.MULTILINE)

WARM_UP = 0.25
"""The share of the time at the beginning that is not judged: caches fill, and threads are made as they are needed."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """One series: what it is, and by how much it may grow and still counts as flat: a share, or so much at least."""

    title: str
    unit: str
    share: float
    least: float


QUANTITIES: Mapping[str, Quantity] = {
    "memory": Quantity("memory of the worker and the parent", "MB", 0.03, 8),
    "postgres": Quantity("memory of PostgreSQL", "MB", 0.10, 32),
    "handles": Quantity("open files and sockets of the worker and the parent", "", 0, 3),
    "threads": Quantity("threads of the worker and the parent", "", 0, 2),
    "connections": Quantity("connections to PostgreSQL", "", 0, 2),
    "tasks": Quantity("tasks of the event loop", "", 0, 4),
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the second quarter and the last one of a series hold in nine moments of ten, and whether that is flat."""

    early: float
    late: float
    flat: bool


def sample(server: int, metrics: bytes) -> dict[str, float]:
    """What the server whose parent process this is holds now. `metrics`: the text of its /metrics."""
    pids = cpu.tree(server)
    postgres = {pid for pid in pids if cpu.name(pid) == "postgres"}
    own = [pid for pid in pids if pid not in postgres]
    found = _TASKS.search(metrics)
    return {
        "memory": sum(_memory(pid) for pid in own),
        "postgres": sum(_memory(pid) for pid in postgres),
        "handles": float(sum(_entries(pid, "fd") for pid in own)),
        "threads": float(sum(_entries(pid, "task") for pid in own)),
        "connections": float(sum("[local]" in cpu.title(pid) for pid in postgres)),
        "tasks": float(found[1]) if found else 0.0,
    }


def judge(name: str, values: Sequence[float]) -> Verdict:
    """Whether a series is flat after the warm-up: the last quarter holds no more than the second one.

    What is compared is what is held in nine moments of ten: requests under way come on top of it, and more of them
    where something slows the machine for a while; what is never given back is held at every moment.
    """
    quarter = max(1, int(len(values) * WARM_UP))
    early, late = _floor(values[quarter : 2 * quarter] or values), _floor(values[-quarter:])
    quantity = QUANTITIES[name]
    return Verdict(early, late, late <= early + max(quantity.least, early * quantity.share))


def _floor(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 10]


def _memory(pid: int) -> float:
    """Megabytes: what several processes share counts for each in part."""
    with contextlib.suppress(OSError):
        for line in (_PROC / str(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return 0.0


def _entries(pid: int, what: str) -> int:
    try:
        return len(list((_PROC / str(pid) / what).iterdir()))
    except OSError:
        return 0
