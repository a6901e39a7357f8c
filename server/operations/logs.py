"""Where log lines go, and which are left out: one event is one line."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable

# These try again on their own, some every second, and say so each time.
_REPEATING = ("server.lifespan", "server.spaces", "server.catalogue", "server.database")
_REPEAT_EACH_SECONDS = 60.0


def log_to_stderr() -> None:
    """Plain lines on standard error, for the parent and for each worker."""
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
    # Every connection that is lost and replaced would be a line; what matters reaches the caller as an error.
    # So would every statement whose caller did not wait for it.
    logging.getLogger("psycopg").setLevel(logging.ERROR)
    for handler in logging.getLogger().handlers:
        handler.addFilter(OncePerMinute())


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
