"""Which advisory locks there are, how long statements wait for a lock, and transactions that block nobody for long.

Writers wait for a lock for LOCK_TIMEOUT_SECONDS and are refused then. A transaction that needs a table to itself must
be over before that.
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

LOCK_TIMEOUT_SECONDS = 2.0
"""How long a statement waits for a lock. Our own transactions take milliseconds; a forgotten transaction of another
program must not hold every connection of the pool."""

# Advisory locks are pairs of integers: ours begin with "twin" in ASCII.
LOCKS = 0x7477696E
LOCK_MIGRATIONS = 1
LOCK_SPACES = 2
LOCK_INDEXES = 3
LOCK_STORE = 4
LOCK_BACKUP = 5  # shared by the backups that run: while there is one, no bytes are removed from the store
# With these the second integer is the number of a space: which process re-embeds for it, and which server maintains it.
LOCKS_OF_REEMBEDDING = LOCKS + 1
LOCKS_OF_MAINTENANCE = LOCKS + 2
# With these it is a hash of the digits after which an upload's objects are named, held to the end of a transaction: an
# upload shares the lock while it adds the row, and a sweep of the store has it alone while it takes the objects for
# orphans.
LOCKS_OF_MEDIA = LOCKS + 3
# With these it is a hash of the name of a feed: which process brings it in.
LOCKS_OF_FEEDS = LOCKS + 12
# With these it is a number that an embedding worker has drawn, and marks the pictures with that it is embedding.
LOCKS_OF_EMBEDDING = LOCKS + 4
# With these it is the second in which a transaction began that writes products, counted from the year 2020: the
# triggers of 0013_products_in_step.sql take the lock, and whoever lists what has changed looks which ones there are.
LOCKS_OF_PRODUCTS = LOCKS + 13
# With these it is a hash of the client whose products are written, and of whom nobody then changes which attributes are
# searched: the triggers of 0019_words.sql take the lock.
LOCKS_OF_WORDS = LOCKS + 14
# With these it is a hash of the client whose batch of products has the lock to itself.
LOCKS_OF_BATCHES = LOCKS + 5

SECOND_LOCK_TIMEOUT_SECONDS = 0.3
"""A transaction that holds one lock waits for another one so briefly that in a deadlock it is the one that gives up."""

# Longer than deadlock_timeout, after which a vacuum gives way; shorter than LOCK_TIMEOUT_SECONDS.
_FIRST_LOCK_TIMEOUT_SECONDS = 1.4
_LONGEST_TRYING_SECONDS = 60.0
_PAUSE_SECONDS = 0.2


def with_brief_locks(connection: Connection[TupleRow], work: Callable[[Connection[TupleRow]], T]) -> T:
    """Run a transaction that needs tables to itself, without having others refused.

    It waits for a lock only so long that the writers that queue up behind it are not refused. Then they go first, and
    the transaction is tried again. Raises SpaceRefused when it had no success for a minute.
    """
    deadline = time.monotonic() + _LONGEST_TRYING_SECONDS
    while True:
        try:
            with connection.transaction():
                set_lock_timeout(connection, _FIRST_LOCK_TIMEOUT_SECONDS)
                return work(connection)
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as exc:
            if time.monotonic() > deadline:
                raise SpaceRefused(
                    "Another transaction has held the catalogue's tables for a minute, so nothing was changed: end it "
                    "(pg_stat_activity shows it), then run this again."
                ) from exc
            time.sleep(_PAUSE_SECONDS)


def set_lock_timeout(connection: Connection[TupleRow], seconds: float) -> None:
    """Have the rest of the transaction wait for each lock for so long at most."""
    connection.execute(f"SET LOCAL lock_timeout = {round(seconds * 1000)}".encode())
