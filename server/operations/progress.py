"""How far a long piece of work is: a bar that redraws on a terminal, a line every some seconds in a log."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import TextIO

# The rate is that of the last so many seconds: it follows when live traffic comes and goes.
_WINDOW = 30.0
_BAR = 24


class Progress:
    """Counts what is done of how much, and shows it on a stream. `clock` gives seconds."""

    def __init__(
        self,
        stream: TextIO | None,
        total: int,
        noun: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        every: float = 10.0,
    ) -> None:
        """`stream`: None where nobody looks; `every`: seconds between two lines where the stream is no terminal."""
        self.total = total
        self.done = 0
        self.failed = 0
        """How many of those that are done have failed; shown once there is one."""
        self._stream = stream
        self._noun = noun
        self._clock = clock
        self._terminal = stream is not None and stream.isatty()
        self._every = 0.2 if self._terminal else every
        self._shown_at = clock()
        self._drawn = 0
        self._marks: deque[tuple[float, int]] = deque([(clock(), 0)])

    def add(self, done: int) -> None:
        """So many more are done; shows it when the last time was long enough ago."""
        self.done += done
        now = self._clock()
        if now - self._shown_at >= self._every:
            self._mark(now)
            self._shown_at = now
            self._show()

    def close(self) -> None:
        """Show where it stands, for good."""
        self._mark(self._clock())
        self._show()
        if self._stream is not None and self._terminal and self._drawn:
            self._stream.write("\n")
            self._stream.flush()

    def clear(self) -> None:
        """Take the bar from the terminal: the work is done, and its result comes next."""
        if self._stream is not None and self._drawn:
            self._stream.write("\r" + " " * self._drawn + "\r")
            self._stream.flush()
            self._drawn = 0

    def rate(self) -> float:
        """How many a second, of late; 0 when nothing is known."""
        (first, before), (last, after) = self._marks[0], self._marks[-1]
        return (after - before) / (last - first) if last > first else 0.0

    def line(self) -> str:
        """How many of how many, the rate, and how long the rest takes at that rate."""
        part = self.done / self.total if self.total else 1.0
        line = f"{self.done:,} of {self.total:,} {self._noun} ({part:.1%})"
        if (rate := self.rate()) > 0:
            line += f", {rate:,.1f}/s"
            if self.done < self.total:
                line += f", {duration((self.total - self.done) / rate)} to go"
        if self.failed:
            line += f", {self.failed:,} failed"
        return line

    def _mark(self, now: float) -> None:
        self._marks.append((now, self.done))
        while len(self._marks) > 2 and now - self._marks[0][0] > _WINDOW:
            self._marks.popleft()

    def _show(self) -> None:
        if self._stream is None:
            return
        line = self.line()
        if not self._terminal:
            self._stream.write(line + "\n")
        else:
            filled = round(_BAR * (min(1.0, self.done / self.total) if self.total else 1.0))
            line = f"[{'#' * filled}{'.' * (_BAR - filled)}] {line}"
            self._stream.write("\r" + line.ljust(self._drawn))
            self._drawn = len(line)
        self._stream.flush()


ShowProgress = Callable[[int, str], Progress]
"""Begins to show a piece of work; it is handed the total and the noun."""


def unseen(total: int, noun: str) -> Progress:
    """Progress that nobody looks at."""
    return Progress(None, total, noun)


def duration(seconds: float) -> str:
    """`45 s`, `3 min 10 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
