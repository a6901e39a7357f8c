"""Where log lines go, and which are left out: one event is one line."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable

_POOL = "psycopg.pool"

# These try again on their own, some every second, and say so each time.
_REPEATING = ("server.lifespan", "server.spaces", "server.catalogue", "server.database")
_REPEAT_EACH_SECONDS = 60.0


def log_to_stderr() -> None:
    """Plain lines on standard error, for the parent and for each worker."""
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
    for handler in logging.getLogger().handlers:
        handler.addFilter(OncePerMinute())
    watch_pool(logging.getLogger(_POOL))


class OncePerMinute(logging.Filter):
    """Leaves out a line of those who try again and again when it says the very same as one of the last minute."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._said: dict[tuple[str, str], float] = {}
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith(_REPEATING):
            return True
        said, now = (record.name, record.getMessage()), self._clock()
        with self._lock:
            self._said = {line: at for line, at in self._said.items() if now - at < _REPEAT_EACH_SECONDS}
            if said in self._said:
                return False
            self._said[said] = now
            return True


def watch_pool(pool: logging.Logger) -> None:
    """Of the lines of psycopg's pool, several for each connection and each attempt, keep those that say that the
    database cannot be reached and that it can be reached again, once each; errors are kept as they are."""
    pool.setLevel(logging.WARNING)
    pool.addFilter(_AwayAndBack(pool))


class _AwayAndBack(logging.Filter):
    """Knows from the pool's lines whether the database can be reached."""

    def __init__(self, pool: logging.Logger) -> None:
        super().__init__()
        self._pool = pool
        self._away = False

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno >= logging.ERROR:
            return True
        text = record.getMessage()
        if text.startswith("error connecting") and not self._away:
            self._away = True
            # Only here is the line about a new connection of interest; else it would cost each request some time.
            self._pool.setLevel(logging.INFO)
            record.msg, record.args = "The database cannot be reached: %s", (" ".join(text.partition(": ")[2].split()),)
            return True
        if text.startswith("adding new connection") and self._away:
            self._away = False
            self._pool.setLevel(logging.WARNING)
            record.msg, record.args = "The database can be reached again.", ()
            return True
        return False
