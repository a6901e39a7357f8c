"""What libraries write to standard error beside the log, in processes of our own, becomes lines of the log.

ONNX Runtime does so when it fails, the C library when memory is damaged, Rust when it panics, Python when it cannot go
on: as bare text, and often as the last words of a process. So another process must hear them: here it is the parent.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import uuid
from collections.abc import Iterator
from typing import TextIO

_LOG_FILE = "_TWINLENS_LOG_FILE"
"""The variable with the number of the file that the log is written to, for a process whose standard error is heard."""

_STDOUT, _STDERR = 1, 2
_PATIENCE_SECONDS = 1.0

_log = logging.getLogger(__name__)


def log_stream() -> TextIO:
    """Where the log goes: to standard error, or to what was standard error before somebody began to hear it."""
    number = os.environ.get(_LOG_FILE)
    if number is None:
        return sys.stderr
    return open(int(number), "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)


def hear_prints() -> None:
    """For a process that was started while standard error is heard: what it prints is heard, too."""
    if (number := os.environ.get(_LOG_FILE)) is not None:
        os.environ[_LOG_FILE] = str(os.dup(int(number)))
        os.dup2(_STDERR, _STDOUT)


@contextlib.contextmanager
def heard() -> Iterator[None]:
    """Hear what this process and those that it starts in this block write to standard error.

    The log must be set up anew in this block and after it. It goes to where standard error went, as number 1, which
    every process inherits: a server prints nothing to standard output.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    stdout, stderr = os.dup(_STDOUT), os.dup(_STDERR)
    reading, writing = os.pipe()
    os.dup2(stderr, _STDOUT)
    os.dup2(writing, _STDERR)
    os.close(writing)
    os.environ[_LOG_FILE] = str(_STDOUT)
    end = uuid.uuid4().hex
    hearing = threading.Thread(target=_hear, args=(reading, end), name="bare output", daemon=True)
    hearing.start()
    try:
        yield
    finally:
        sys.stderr.flush()
        # Python's tracker of resources, which multiprocessing starts, keeps the file open for as long as we live.
        os.write(_STDERR, f"\n{end}\n".encode())
        os.dup2(stderr, _STDERR)
        hearing.join(_PATIENCE_SECONDS)
        os.dup2(stdout, _STDOUT)
        os.close(stdout)
        os.close(stderr)
        del os.environ[_LOG_FILE]


def _hear(file: int, end: str) -> None:
    with open(file, encoding="utf-8", errors="backslashreplace") as lines:
        for line in lines:
            if line.strip() == end:
                return
            if line.strip():
                _log.warning("%s", line.rstrip(), extra={"fields": {"event": "bare_output"}})
