"""Worker processes that share the port: how many, and which cores and which GPU are whose.

On a CPU host one process is best: worker processes would split batches, the cache of vectors and the merging of equal
requests, and the model's threads use all cores from one process as well. A GPU answers more than one Python process
can decode for and talk HTTP to; there several stand in front of each.

Each worker has a number, which is a file that it holds locked: a worker that is started in place of a dead one takes
the dead one's number, cores and GPU.
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

# Cores that a worker in front of a GPU keeps busy: one with Python, the others with decoding. Reckoned, not measured.
_CORES_BEFORE_A_GPU = 4


@dataclass(frozen=True, slots=True)
class Place:
    """A worker's number, from 0, of how many."""

    number: int = 0
    of: int = 1

    @property
    def first(self) -> bool:
        """Whether what one worker does for all is this one's to do."""
        return self.number == 0


def wanted(settings: Settings) -> int:
    """How many workers to start."""
    if settings.workers is not None:
        return settings.workers
    found = gpus.usable(settings.device)
    return max(1, found, len(os.sched_getaffinity(0)) // _CORES_BEFORE_A_GPU) if found else 1


def take_place(folder: Path, of: int) -> Place:
    """Take the lowest number that is free and keep it for as long as this process lives. Raises StartRefused."""
    for number in range(of):
        held = os.open(folder / f"worker-{number}", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(held)
        else:
            return Place(number, of)  # never closed: the lock is the number
    raise StartRefused(f"There are {of} workers already.")


def cores_of(place: Place, cores: Sequence[int]) -> list[int]:
    """The cores that are this worker's own: an even part of them, or all where there are fewer than workers."""
    if len(cores) < place.of:
        return list(cores)
    cut = [len(cores) * number // place.of for number in range(place.of + 1)]
    return list(cores[cut[place.number] : cut[place.number + 1]])


def settle(place: Place) -> None:
    """Keep this process and all its threads to its own cores."""
    os.sched_setaffinity(0, cores_of(place, sorted(os.sched_getaffinity(0))))


REFUSAL = "_TWINLENS_REFUSAL"
"""The variable that names the file in which a worker leaves the sentence why it cannot start."""


@contextlib.contextmanager
def refusing() -> Iterator[None]:
    """In a worker, when the start must be refused: tell the parent why, instead of being started again and again."""
    try:
        yield
    except StartRefused as exc:
        if (refusal := os.environ.get(REFUSAL)) is None:
            raise
        Path(refusal).write_text(exc.sentence)
        parent = multiprocessing.parent_process()
        if parent is not None and parent.pid == os.getppid():  # an orphan's parent is process 1
            os.kill(os.getppid(), signal.SIGTERM)
        # Raised further it would end in a page of traceback; the parent says the sentence.
        os._exit(2)


def belong_to_parent() -> None:
    """For a worker: nothing but its parent ends it, and it never outlives its parent."""
    # A terminal sends Ctrl-C to a whole process group. The parent passes its end on, once; Granian's worker hangs when
    # it is told a second time while it drains.
    os.setpgid(0, 0)
    # An orphan would hold the port with no database behind it, so there is nothing left for it to drain.
    pr_set_pdeathsig = 1
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL)
