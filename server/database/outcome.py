"""What is known of a request's writes, for those who must answer while one of them is still under way."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from server.errors import OutcomeUnknown


class Writes:
    """The writes of one request that were made, or that may still be made."""

    def __init__(self) -> None:
        self._count = 0

    @property
    def possible(self) -> bool:
        """Whether anything may have been written, or may still be."""
        return self._count > 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """A write: it counts from here on, unless it ends in an error that leaves no doubt."""
        self._count += 1
        try:
            yield
        except (OutcomeUnknown, asyncio.CancelledError):
            raise
        except Exception:
            self._count -= 1
            raise


_writes: ContextVar[Writes | None] = ContextVar("writes", default=None)


@contextmanager
def watched() -> Iterator[Writes]:
    """The writes of all that is run in this block, also by tasks that are begun in it."""
    writes = Writes()
    token = _writes.set(writes)
    try:
        yield writes
    finally:
        _writes.reset(token)


@contextmanager
def writing() -> Iterator[None]:
    """A write begins. It is counted where somebody watches."""
    writes = _writes.get()
    if writes is None:
        yield
        return
    with writes.one():
        yield


@contextmanager
def unwatched() -> Iterator[None]:
    """What is written in this block is none of the request's changes, and nobody need be told that it may be made."""
    token = _writes.set(None)
    try:
        yield
    finally:
        _writes.reset(token)


def possible() -> bool:
    """Whether the request at hand may have written anything, as far as somebody watches."""
    writes = _writes.get()
    return writes is None or writes.possible
