"""Worker processes that share the port: how many, and which cores and which GPU are whose.

On a CPU host one process is best: several processes would split batches, the cache of vectors and the merging of equal
requests, and the model's threads can use all cores from one process. A GPU encodes more pictures than one Python
process can decode and send over HTTP, so several workers share each GPU.

Each worker has a number, which is a file that it keeps locked. A worker that is started in place of a dead one gets the
dead one's number, cores and GPU.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from server.errors import StartRefused
from server.inference import gpus
from server.settings import Settings

PLACES = "_TWINLENS_PLACES"
"""The variable that names the folder of the workers' numbers, for the workers of one parent."""

REFUSAL_FILE = "_TWINLENS_REFUSAL"
"""The variable that names the file in which a worker leaves the sentence why it cannot start."""

_READY = "ready"

# Cores that a worker in front of a GPU keeps busy: one with Python, the others with decoding. Estimated, not measured.
_CORES_BEFORE_A_GPU = 4


@dataclass(frozen=True, slots=True)
class Place:
    """A worker's number, counted from 0, and how many workers there are."""

    number: int = 0
    of: int = 1

    @property
    def first(self) -> bool:
        """Whether this worker does what only one of them should do: maintenance, the demo catalogue."""
        return self.number == 0


def wanted(settings: Settings) -> int:
    """How many workers to start."""
    if settings.workers is not None:
        return settings.workers
    found = gpus.usable(settings.device)
    return max(1, found, len(os.sched_getaffinity(0)) // _CORES_BEFORE_A_GPU) if found else 1


def take_place(folder: Path, of: int) -> Place:
    """Take the lowest free number, and keep it for as long as this process lives. Raises StartRefused."""
    for number in range(of):
        held = os.open(folder / f"worker-{number}", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(held)
        else:
            return Place(number, of)  # the file stays open: its lock holds the number
    raise StartRefused(f"There are {of} workers already.")


def report_ready() -> None:
    """In a worker: let the parent know that workers can become ready, so that it starts one that dies again."""
    if (folder := os.environ.get(PLACES)) is not None:
        (Path(folder) / _READY).touch()


def was_ready(folder: Path) -> bool:
    """In the parent: whether a worker has become ready. `folder`: that of the workers' numbers."""
    return (folder / _READY).exists()


def cores_of(place: Place, cores: Sequence[int]) -> list[int]:
    """This worker's own cores: an even part of them, or all of them where there are fewer cores than workers."""
    if len(cores) < place.of:
        return list(cores)
    cut = [len(cores) * number // place.of for number in range(place.of + 1)]
    return list(cores[cut[place.number] : cut[place.number + 1]])


def settle(place: Place) -> None:
    """Keep this process and all its threads to its own cores."""
    os.sched_setaffinity(0, cores_of(place, sorted(os.sched_getaffinity(0))))


@contextlib.contextmanager
def reporting_refusal() -> Iterator[None]:
    """In a worker whose start is refused: leave the reason to the parent, instead of being started again and again."""
    try:
        yield
    except StartRefused as exc:
        if (refusal := os.environ.get(REFUSAL_FILE)) is None:
            raise
        Path(refusal).write_text(exc.sentence)
        parent = multiprocessing.parent_process()
        if parent is not None and parent.pid == os.getppid():  # an orphan's parent is process 1
            os.kill(os.getppid(), signal.SIGTERM)
        # Raised further it would end in a page of traceback; the parent prints the sentence.
        os._exit(2)


def belong_to_parent() -> None:
    """For a worker: only its parent ends it, and it never outlives its parent."""
    # A terminal sends Ctrl-C to the entire process group. The parent passes the signal on once; Granian's worker hangs
    # when a second one comes while it drains.
    os.setpgid(0, 0)
    # An orphan would keep the port with no database behind it, so it has nothing left to drain.
    pr_set_pdeathsig = 1
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL)
    # A worker takes seconds until it is here. The system says nothing of a parent that died before it was asked to.
    parent = multiprocessing.parent_process()
    if parent is not None and os.getppid() != parent.pid:
        os._exit(1)
