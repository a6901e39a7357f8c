"""A line per step: its name, what it did, and how long it took."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from tqdm import tqdm


@contextlib.contextmanager
def step(name: str) -> Iterator[Callable[[str], None]]:
    """Time a step and print its line when it has succeeded; what it did is told through the function it is handed."""
    told: list[str] = []
    start = time.perf_counter()
    yield told.append
    print(f"{name:<8} {'; '.join(told)}  ({time.perf_counter() - start:.1f} s)", flush=True)


@contextlib.contextmanager
def counted(what: str) -> Iterator[Callable[[int, int], None]]:
    """As `watched`, for what counts by itself: the function takes how much is done, and of how much."""
    with tqdm(desc=f"  {what}", leave=False, disable=None, delay=0.5, unit="", ncols=80) as bar:

        def tell(done: int, of: int) -> None:
            bar.total = of
            bar.update(done - bar.n)

        yield tell


def watched(things: Sequence[Any], what: str) -> Iterable[Any]:
    """The things, one after the other, with a bar on the terminal of how far it has come; none where it is no terminal.

    The bar goes when they are done: the step's own line says what became of them.
    """
    bar: Iterable[Any] = tqdm(things, desc=f"  {what}", leave=False, disable=None, delay=0.5, unit="", ncols=80)
    return bar
