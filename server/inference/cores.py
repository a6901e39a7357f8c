"""How the cores of the machine are given to the model: one wide run, or several narrow ones side by side.

A picture that comes alone is answered soonest when all cores work on it. Under load they do more when each works on
pictures of its own: nobody waits for the slowest of many threads at the end of every operator. By how much, and with
how large a batch, differs between models and machines, so it is measured at the start; what was found is kept in the
data folder, so that the next start need not measure again.
"""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Thread
from time import perf_counter

import msgspec

from server.inference.runner import Runner
from server.wording import counted

# A run must not take longer than this: whoever comes a moment too late waits for the end of it.
_LONGEST_RUN = 0.5

# Of each cell, the better of so many turns of so many seconds: other work on the machine only ever slows one down.
_TURNS = 2
_TURN = 0.1

# A smaller batch is preferred to one that does so little more.
_AS_GOOD = 0.95

BATCHES = (1, 2, 4, 8, 16)

_log = logging.getLogger(__name__)


class Layout(msgspec.Struct, frozen=True):
    """`count` runners of `width` threads each, side by side, with batches of at most `batch`.

    Where the runners are several, one of `alone` threads beside them runs an entry that came alone.
    """

    count: int
    width: int
    batch: int
    alone: int

    def __str__(self) -> str:
        runs = f"{self.count} runs of {_threads(self.width)} side by side" if self.count > 1 else _threads(self.width)
        alone = f", {_threads(self.alone)} for one that comes alone" if self.count > 1 else ""
        return f"{runs}, batches of up to {self.batch}{alone}"


def _threads(count: int) -> str:
    return counted(count, "thread")


def plain(threads: int, batch: int) -> Layout:
    """What is taken without measuring: a run for each thread."""
    return Layout(threads, 1, batch, threads)


def widths(threads: int) -> list[int]:
    """The widths to try, so that no thread is left over: 1, 2, 4... that divide the threads, and all of them."""
    return sorted({width for power in range(10) if threads % (width := 2**power) == 0} | {threads})


def remembered(file: Path, find: Callable[[], Layout]) -> Layout:
    """What the file holds from an earlier start; found, and written there, where it holds nothing.

    One process at a time: others that start beside it wait, and take what it has found.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if (layout := _read(file)) is None:
                layout = find()
                partial = file.with_suffix(".partial")
                partial.write_bytes(msgspec.json.encode(layout))
                partial.replace(file)
            return layout
    except OSError as exc:
        _log.warning("The layout cannot be kept in %s, so each start measures it anew: %s", file, exc.strerror)
        return find()


def _read(file: Path) -> Layout | None:
    with suppress(OSError, msgspec.DecodeError):
        layout = msgspec.json.decode(file.read_bytes(), type=Layout)
        if min(layout.count, layout.width, layout.batch, layout.alone) >= 1:
            return layout
    return None


def find(
    runners: Callable[[int, int, int], Sequence[Runner]], sample: object, threads: int, batch: int | None = None
) -> Layout:
    """The layout that encodes the most, by trying.

    `runners` gives so many, of that width, for batches of at most that; `sample` is an entry; `batch`: where it is
    given, no other is tried.
    """
    rates: dict[tuple[int, int], float] = {}
    for width in widths(threads):
        # One width at a time: what its sessions hold is given back before the next is tried.
        ready = runners(threads // width, width, batch or BATCHES[-1])
        _try(ready, width, [batch] if batch else BATCHES, sample, rates)
        del ready
    best = max(rates.values())
    width, size = min((cell for cell in rates if rates[cell] >= _AS_GOOD * best), key=lambda cell: (cell[1], cell[0]))
    smallest = batch or BATCHES[0]
    alone = max(widths(threads), key=lambda one: (rates[one, smallest] * one, one))
    layout = Layout(threads // width, width, size, alone)
    _log.info("Measured: %s, at %.0f a second; the best of all did %.0f.", layout, rates[width, size], best)
    return layout


def _try(
    ready: Sequence[Runner], width: int, sizes: Sequence[int], sample: object, rates: dict[tuple[int, int], float]
) -> None:
    """Measure the runners with each size of batch, as far as a run does not take too long and does not fail."""
    for _ in range(_TURNS):
        known = 0.0
        for size in sizes:
            known = rates.get((width, size), known)
            if known and size * len(ready) / known > _LONGEST_RUN:
                break
            try:
                known = _rate(ready, [sample] * size)
            except Exception as exc:
                if size == sizes[0]:
                    raise
                _log.warning("Batches of %d do not run here, and are not used: %s", size, exc)
                sizes = sizes[: sizes.index(size)]
                break
            rates[width, size] = max(rates.get((width, size), 0.0), known)


def _rate(runners: Sequence[Runner], entries: Sequence[object]) -> float:
    """Entries a second of all runners at once, each busy for a moment in a thread of its own."""
    done = [0.0] * len(runners)
    failed: list[Exception] = []

    def run(at: int) -> None:
        started, runs = perf_counter(), 0
        try:
            while True:
                runners[at](entries)  # type: ignore[arg-type]
                runs += 1
                if (elapsed := perf_counter() - started) >= _TURN:
                    break
        except Exception as exc:
            failed.append(exc)
            return
        done[at] = runs * len(entries) / elapsed

    threads = [Thread(target=run, args=(at,), daemon=True) for at in range(len(runners))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return sum(done)
