"""How often the parent has started a child again: counted there, and read by the workers, which answer for the metrics.

Each is a file of the workers' folder that grows by a byte each time. So nothing is ever half written.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import Literal, get_args

from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

_log = logging.getLogger(__name__)

Child = Literal["worker", "postgres"]


class Restarts:
    """In the parent: counts, from any thread."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._early: list[Child] = []
        self._lock = Lock()

    def into(self, folder: Path) -> None:
        """Keep what is counted in this folder from now on, and with it what was counted before."""
        with self._lock:
            self._folder, early = folder, self._early
        for child in early:
            self.note(child)

    def note(self, child: Child) -> None:
        """A child was started again."""
        with self._lock:
            if self._folder is None:
                self._early.append(child)
                return
            try:
                with _file(self._folder, child).open("ab") as file:
                    file.write(b"+")
            except OSError:  # a full disk must not keep the child from being started
                _log.exception("That a child was started again could not be counted.")


class RestartsCollector(Collector):
    """In a worker: what the parent has counted, as a metric."""

    def __init__(self, folder: Path | None) -> None:
        """`folder`: None for a server without a parent, which starts nothing again."""
        self._folder = folder

    def collect(self) -> Iterator[CounterMetricFamily]:
        found = CounterMetricFamily(
            "twinlens_restarts",
            "Children that died and were started again, since the server's start.",
            labels=["child"],
        )
        for child in get_args(Child):
            found.add_metric([child], self._count(child))
        yield found

    def _count(self, child: Child) -> int:
        try:
            return _file(self._folder, child).stat().st_size if self._folder is not None else 0
        except FileNotFoundError:
            return 0


def _file(folder: Path, child: Child) -> Path:
    return folder / f"restarts-{child}"
