"""A line per step: its name, what it did, and how long it took."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def step(name: str) -> Iterator[Callable[[str], None]]:
    """Time a step and print its line when it has succeeded; what it did is told through the function it is handed."""
    told: list[str] = []
    start = time.perf_counter()
    yield told.append
    print(f"{name:<8} {'; '.join(told)}  ({time.perf_counter() - start:.1f} s)", flush=True)
