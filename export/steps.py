"""A line per step: its name, what it did, and how long it took."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from tqdm import tqdm


@contextlib.contextmanager
def step(name: str) -> Iterator[Callable[[str], None]]:
    """Time a step, and print its line once it has succeeded: the notes made with the function that is yielded."""
    notes: list[str] = []
    start = time.perf_counter()
    yield notes.append
    print(f"{name:<8} {'; '.join(notes)}  ({time.perf_counter() - start:.1f} s)", flush=True)


@contextlib.contextmanager
def counted(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar as that of `watched`; the function that is yielded takes how much is done, and of how much."""
    with tqdm(desc=f"  {what}", leave=False, disable=None, delay=0.5, unit="", ncols=80) as bar:

        def report(done: int, of: int) -> None:
            bar.total = of
            bar.update(done - bar.n)

        yield report


def watched(things: Sequence[Any], what: str) -> Iterable[Any]:
    """The things, one after the other, with a progress bar where the output is a terminal.

    The bar disappears at the end: the step's own line gives the result.
    """
    bar: Iterable[Any] = tqdm(things, desc=f"  {what}", leave=False, disable=None, delay=0.5, unit="", ncols=80)
    return bar
