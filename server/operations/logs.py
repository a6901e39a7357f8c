"""Where log lines go, and which are left out: one event is one line on standard error."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from server.operations.bare_output import heard, log_stream
from server.operations.lines import FIELDS, OneLine
from server.settings import LogForm

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

# These try again on their own, some every second, and say so each time.
_REPEATING = ("server.lifespan", "server.spaces", "server.catalogue", "server.database", "opentelemetry")
# Of these, some say only what has changed: the last such line is how it is now.
_OF_CHANGES = ("server.database.connector", "server.database.replica")
_REPEAT_EACH_SECONDS = 60.0

_log = logging.getLogger("server")


def log_to_stderr(redact: Callable[[str], str] = str, form: LogForm = "text", *, process: str = "") -> None:
    """Lines on standard error, for the parent and for each worker; each text in them passes through `redact` first.

    `process`: what JSON calls this process.
    """
    stream = log_stream()
    handler = _Handler(stream)
    handler.setFormatter(OneLine(redact, form, process=process, folded=not stream.isatty()))
    handler.addFilter(OncePerMinute())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    sys.excepthook = _log_of_process
    threading.excepthook = _log_of_thread
    # Every connection that is lost and replaced would be a line; what matters reaches the caller as an error.
    # So would every statement whose caller did not wait for it.
    logging.getLogger("psycopg").setLevel(logging.ERROR)


def log_the_unforeseen() -> None:
    """For a server's processes: warnings, and errors that nobody can be told of, become lines as well."""
    logging.captureWarnings(True)
    sys.unraisablehook = _log_of_nobody


@contextlib.contextmanager
def log_of_server(redact: Callable[[str], str], form: LogForm) -> Iterator[None]:
    """For the parent of a server: while this lasts, all that its processes write to standard error is lines.

    In text what libraries write stays as it is: a person reads it as well as any line.
    """
    log_the_unforeseen()
    try:
        with heard() if form == "json" else contextlib.nullcontext():
            log_to_stderr(redact, form, process="serve")
            yield
    finally:
        log_to_stderr(redact, form, process="serve")


def say_refused(sentence: str, form: LogForm) -> None:
    """Say on standard error why a command cannot be carried out. `sentence`: without secrets."""
    if form == "json":
        _log.critical("%s", sentence, extra={FIELDS: {"event": "command_refused"}})
    else:
        print(f"twinlens: {sentence}", file=sys.stderr)


class _Handler(logging.StreamHandler[TextIO]):
    """Writes each line with one call, so that those of several processes do not mix."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """What cannot be written is lost: there is no other place for it, and a bare traceback would be no line."""


def _log_of_process(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    _log.critical("The process ends with an error that nobody expected.", exc_info=(kind, error, trace))


def _log_of_thread(failed: threading.ExceptHookArgs) -> None:
    if failed.exc_value is not None and failed.exc_type is not SystemExit:
        name = failed.thread.name if failed.thread is not None else "without a name"
        trace = (failed.exc_type, failed.exc_value, failed.exc_traceback)
        _log.error("The thread %s ended with an error that nobody expected.", name, exc_info=trace)


def _log_of_nobody(failed: UnraisableHookArgs) -> None:
    if failed.exc_value is not None:
        trace = (failed.exc_type, failed.exc_value, failed.exc_traceback)
        _log.error("%s: %.200r", failed.err_msg or "An error could not be passed on", failed.object, exc_info=trace)


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
