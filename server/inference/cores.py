"""How the machine's cores are divided for the model: one wide runner, or several narrow ones side by side.

A picture that comes alone is answered soonest when all cores work on it. Under load the cores do more when each works
on pictures of its own: no thread waits for the slowest of many at the end of every operator. By how much, and with how
large a batch, differs between models and machines. So it is measured at the first start, and the result is kept in the
data folder for the next ones.
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

# A run must not take longer: a picture that comes a moment too late for it waits until it ends.
_LONGEST_RUN_SECONDS = 0.5

# The best of so many turns counts for each width and batch, because other work on the machine only ever slows one down.
_TURNS = 2
_TURN_SECONDS = 0.1

# A smaller batch is preferred when it encodes this share, or more, of what the best one does.
_AS_GOOD = 0.95

BATCHES = (1, 2, 4, 8, 16)

_log = logging.getLogger(__name__)


class Layout(msgspec.Struct, frozen=True):
    """`count` runners of `width` threads each, side by side, with batches of at most `batch`.

    Where there are several runners, another one of `alone` threads runs an entry that came alone.
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
    """The layout that is used without measuring: a runner for each thread."""
    return Layout(threads, 1, batch, threads)


def widths(threads: int) -> list[int]:
    """The widths to try, which leave no thread over: the powers of two that divide the threads, and all threads."""
    return sorted({width for power in range(10) if threads % (width := 2**power) == 0} | {threads})


def remembered(file: Path, find: Callable[[], Layout]) -> Layout:
    """The layout that an earlier start wrote to the file; where there is none, it is found and written.

    One process at a time: others that start at the same moment wait, and read what the first has written.
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
        _log.warning("The layout cannot be kept in %s, so each start measures it again: %s", file, exc.strerror)
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
    """Measure layouts; the one that encodes the most.

    `runners` makes runners, given their count, their width and their largest batch. `sample` is an entry. `batch`: try
    only this size.
    """
    rates: dict[tuple[int, int], float] = {}
    for width in widths(threads):
        # One width at a time: the memory of its sessions is freed before the next is tried.
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
    """Measure the runners with each size of batch, until a run takes too long or fails."""
    for _ in range(_TURNS):
        known = 0.0
        for size in sizes:
            known = rates.get((width, size), known)
            if known and size * len(ready) / known > _LONGEST_RUN_SECONDS:
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
    """Entries a second of all runners together, each in a thread of its own."""
    done = [0.0] * len(runners)
    failed: list[Exception] = []

    def run(at: int) -> None:
        started, runs = perf_counter(), 0
        try:
            while True:
                runners[at](entries)  # type: ignore[arg-type]
                runs += 1
                if (elapsed := perf_counter() - started) >= _TURN_SECONDS:
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
