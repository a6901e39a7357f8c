"""An event of the log as one line, JSON or text, whatever is in it: what callers chose looks like no other line."""

from __future__ import annotations

import json
import logging
import os
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import partial
from typing import Any

from server.settings import LogForm

Fields = Mapping[str, Any]
"""What programs look for in an event beside its message: by name, what JSON knows, and mappings of that."""

FIELDS = "fields"
"""The attribute of a record that has its own fields: `log.info("...", extra={"fields": {...}})`."""

MOST_BYTES = 16_000
"""Of one line. Docker's log files and others cut lines at 16 KiB, and half a line is no JSON."""

# Where a line is too long, so many characters stay of each text in it: as many as fit.
_SHORTENED = (12_000, 6_000, 2_000, 500, 100)

_BETWEEN = "\x00"

_about: ContextVar[Callable[[], Fields] | None] = ContextVar("about", default=None)


@contextmanager
def about(fields: Callable[[], Fields]) -> Iterator[None]:
    """Give these to each event of this block and of the tasks that are begun in it; asked anew for each of them.

    The first one tells blocks apart: a message that has it says itself what it is about.
    """
    token = _about.set(fields)
    try:
        yield
    finally:
        # A coroutine that nobody finished is closed in another context, where nothing is to be put back.
        with suppress(ValueError):
            _about.reset(token)


class OneLine(logging.Formatter):
    """Writes each record as one line, in which nothing is secret, and of at most `MOST_BYTES`."""

    def __init__(
        self, redact: Callable[[str], str] = str, form: LogForm = "text", *, process: str = "", folded: bool = True
    ) -> None:
        """`process`: what JSON calls this one; `folded`: in text, whether a traceback stands in the line of its event.

        Where it does not, as on a terminal, its lines follow, each of them indented.
        """
        super().__init__()
        self._redact = redact
        self._write = self._as_json if form == "json" else self._as_text
        self._process: Fields = {"process": process, "pid": os.getpid()} if process else {"pid": os.getpid()}
        self._folded = folded

    def format(self, record: logging.LogRecord) -> str:
        asked = _about.get()
        event = {
            "message": _message(record),
            "about": {name: value for name, value in asked().items() if value is not None} if asked else {},
            "fields": getattr(record, FIELDS, {}),
            "traceback": _traceback(record),
        }
        event = self._redacted(event)
        line = self._write(record, event)
        for most in _SHORTENED:
            if len(line.encode(errors="backslashreplace")) <= MOST_BYTES:
                break
            line = self._write(record, _turned(event, partial(_shortened, most=most)))
        return line

    def _redacted(self, event: Fields) -> Any:
        """The event without secrets. To find out what is secret takes longest, so all texts are looked at in one."""
        texts: list[str] = []

        def collect(text: str) -> str:
            texts.append(text.replace(_BETWEEN, r"\x00"))
            return text

        _turned(event, collect)
        # The message comes last: what a sentence for operators gets at its end must stand there.
        before = _BETWEEN.join(reversed(texts))
        if (after := self._redact(before)) == before:
            return event
        redacted = iter(reversed(after.split(_BETWEEN)))
        return _turned(event, lambda _: next(redacted))

    def _as_json(self, record: logging.LogRecord, event: Fields) -> str:
        whole = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": event["message"],
            **self._process,
            **event["about"],
            **event["fields"],
        }
        if record.exc_info and record.exc_info[0]:
            whole["exception"] = record.exc_info[0].__name__
        if event["traceback"]:
            whole["traceback"] = event["traceback"]
        return json.dumps(whole, default=str)

    def _as_text(self, record: logging.LogRecord, event: Fields) -> str:
        line = f"{_time(record)} {record.levelname} {record.name}: {escaped(event['message'])}"
        told = event["about"]
        if told and str(next(iter(told.values()))) not in event["message"]:
            line += " [" + " ".join(f"{name}={escaped(str(value))}" for name, value in told.items()) + "]"
        if not event["traceback"]:
            return line
        if self._folded:
            return f"{line} | {escaped(event['traceback'])}"
        return "\n    ".join([line, *map(escaped, event["traceback"].splitlines())])


def escaped(text: str) -> str:
    """The text on one line: what cannot be printed, line ends among it, is written as Python writes it in a string."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def _turned(value: Any, turn: Callable[[str], str]) -> Any:
    """The same with each text in it replaced, in a fixed order."""
    if isinstance(value, str):
        return turn(value)
    if isinstance(value, Mapping):
        return {name: _turned(one, turn) for name, one in value.items()}
    return value


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # such as one value too few: the event is worth more than its form
        return f"{record.msg} {record.args!r}"


def _traceback(record: logging.LogRecord) -> str:
    parts = [record.stack_info or ""]
    if record.exc_info and record.exc_info[1]:
        parts.insert(0, "".join(traceback.format_exception(*record.exc_info)))
    return "\n".join(part.rstrip("\n") for part in parts if part)


def _shortened(text: str, most: int) -> str:
    """Its beginning, and more of its end, which in a traceback says what went wrong."""
    if len(text) <= most:
        return text
    return f"{text[: most // 4]} ... ({len(text) - most:,} characters) ... {text[most // 4 - most :]}"


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
