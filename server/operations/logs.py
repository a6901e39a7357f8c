"""Where log lines go."""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from collections.abc import Callable
from types import TracebackType


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
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)

    def print_redacted(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        sys.stderr.write(redact("".join(traceback.format_exception(kind, error, trace))))

    def print_of_thread(failed: threading.ExceptHookArgs) -> None:
        if failed.exc_value is not None and failed.exc_type is not SystemExit:
            print_redacted(failed.exc_type, failed.exc_value, failed.exc_traceback)

    sys.excepthook = print_redacted
    threading.excepthook = print_of_thread
    # Every connection that is lost and replaced would be a line; what matters reaches the caller as an error.
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
