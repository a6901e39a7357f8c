"""What is committed together with a request's write: the answer that its idempotency key stands for from then on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

Keep = Callable[[AsyncConnection[TupleRow], object], Awaitable[None]]
"""Keeps the answer that is made of a write's result, on the connection and in the transaction of the write."""


class Once:
    """Of one request: how its answer is kept, and whether it was."""

    def __init__(self, keep: Keep) -> None:
        self.keep = keep
        self.kept = False
        """Whether a transaction was committed that keeps the answer."""


_once: ContextVar[Once | None] = ContextVar("once", default=None)


@contextmanager
def once(keep: Keep) -> Iterator[Once]:
    """Keep the answer with the write that makes it, of all that is run in this block, also by tasks begun in it."""
    one = Once(keep)
    token = _once.set(one)
    try:
        yield one
    finally:
        _once.reset(token)


def current() -> Once | None:
    """How the answer to the request at hand is kept; None where nobody asked for it."""
    return _once.get()
