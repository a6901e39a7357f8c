"""Which advisory locks there are, how long a lock is waited for, and how to wait for one without being in the way.

Writers wait for a lock for LOCK_PATIENCE and then refuse. Whoever needs a table to itself must be gone before that.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import psycopg
from psycopg import Connection
from psycopg.rows import TupleRow

from server.errors import SpaceRefused

T = TypeVar("T")

LOCK_PATIENCE = 2.0
"""Seconds a statement waits for a lock. Our own transactions take milliseconds; a forgotten one of somebody else's must
not hold every connection of the pool."""
# Advisory locks are pairs of integers: ours begin with "twin" in ASCII.
LOCKS = 0x7477696E
LOCK_MIGRATIONS = 1
LOCK_SPACES = 2
LOCK_INDEXES = 3
# With these the second integer is the number of a space: who re-embeds for it, and which server mends it.
LOCKS_OF_REEMBEDDING = LOCKS + 1
LOCKS_OF_MAINTENANCE = LOCKS + 2

SECOND_LOCK_WAIT = 0.3
"""Seconds. With one lock in hand, another is waited for so briefly that in a deadlock it is this process that gives
up."""

# Longer than deadlock_timeout, since it is then that a vacuum gives way; shorter than LOCK_PATIENCE.
_LOCK_WAIT = 1.4
_PATIENCE = 60.0
_PAUSE = 0.2


def briefly(connection: Connection[TupleRow], work: Callable[[Connection[TupleRow]], T]) -> T:
    """Run a transaction that needs the tables to itself: its locks are waited for only so long that those who queue up
    behind are not refused; then they go first, and it tries again. Raises SpaceRefused when that goes on."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            with connection.transaction():
                wait_at_most(connection, _LOCK_WAIT)
                return work(connection)
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as exc:
            if time.monotonic() > deadline:
                raise SpaceRefused(
                    "Another transaction has held the catalogue's tables for a minute, so nothing was changed: end it "
                    "(pg_stat_activity shows it), then run this again."
                ) from exc
            time.sleep(_PAUSE)


def wait_at_most(connection: Connection[TupleRow], seconds: float) -> None:
    connection.execute(f"SET LOCAL lock_timeout = {round(seconds * 1000)}".encode())
