"""Where log lines go, and which are left out: one event is one line."""

from __future__ import annotations

import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import TracebackType

# These try again on their own, some every second, and say so each time.
_REPEATING = ("server.lifespan", "server.spaces", "server.catalogue", "server.database", "opentelemetry")
# Of these, some say only what has changed: the last such line is how it is now.
_OF_CHANGES = ("server.database.connector", "server.database.replica")
_REPEAT_EACH_SECONDS = 60.0


class _Formatter(logging.Formatter):
    """Of lines, tracebacks included, from which secrets are removed."""

    def __init__(self, redact: Callable[[str], str]) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        return self._redact(super().format(record))


def log_to_stderr(redact: Callable[[str], str] = str) -> None:
    """Plain lines on standard error, for the parent and for each worker; each passes through `redact` first."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(redact))
    handler.addFilter(OncePerMinute())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)

    def print_redacted(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        sys.stderr.write(redact("".join(traceback.format_exception(kind, error, trace))))

    def print_of_thread(failed: threading.ExceptHookArgs) -> None:
        if failed.exc_value is not None and failed.exc_type is not SystemExit:
            print_redacted(failed.exc_type, failed.exc_value, failed.exc_traceback)

    sys.excepthook = print_redacted
    threading.excepthook = print_of_thread
    # Every connection that is lost and replaced would be a line; what matters reaches the caller as an error.
    # So would every statement whose caller did not wait for it.
    logging.getLogger("psycopg").setLevel(logging.ERROR)


class OncePerMinute(logging.Filter):
    """Leaves out a line of those who try again and again when it says the very same as one of the last minute."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._said: dict[tuple[str, str], float] = {}
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith(_REPEATING) or record.name in _OF_CHANGES:
            return True
        said, now = (record.name, record.getMessage()), self._clock()
        with self._lock:
            self._said = {line: at for line, at in self._said.items() if now - at < _REPEAT_EACH_SECONDS}
            if said in self._said:
                return False
            self._said[said] = now
            return True
