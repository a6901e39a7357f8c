"""The parent of the workers: granian's server, which starts a worker again as often as it dies.

Granian itself ends the whole server when a worker dies twice within some seconds. Here the second death, and each one
after it, makes the next start wait a little longer, as the embedded PostgreSQL does. Only a start in which no worker
has become ready yet ends with a worker's death: whatever it is that ended the worker would end the next one.
"""

from __future__ import annotations

import logging
import math
import multiprocessing.connection
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from granian.server import MPServer

from server.errors import WorkerEnded

_log = logging.getLogger(__name__)

# What granian logs goes where everything else goes, in the parent and in its workers.
_LOGGING: Mapping[str, Any] = {"loggers": {"_granian": {"propagate": True}}}

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0
_CALM_SECONDS = 10.0
"""A worker that has lived so long is started again at once when it dies."""


@dataclass(slots=True)
class _Deaths:
    """Of one worker: when it is due to be started again, and how long the next pause will be."""

    due: float | None = None
    pause: float = _FIRST_PAUSE_SECONDS


class Supervisor(MPServer):
    """A granian server that outlives its workers.

    `is_ready`: whether a worker has become ready; `on_restart` is called for each that is started again. `failure` is
    set when one ended before any was ready.
    """

    def __init__(
        self,
        target: str,
        *,
        is_ready: Callable[[], bool],
        on_restart: Callable[[], None] = lambda: None,
        **options: Any,
    ) -> None:
        super().__init__(target, log_dictconfig=dict(_LOGGING), **options)
        # Said here with the pause, in one line.
        logging.getLogger("_granian").addFilter(lambda line: not line.getMessage().startswith("Unexpected exit from"))
        self._is_ready = is_ready
        self._on_restart = on_restart
        self._deaths = [_Deaths() for _ in range(self.workers)]
        self.failure: WorkerEnded | None = None
        self._signal = ""

    def signal_handler_interrupt(self, number: int, *_: Any) -> None:
        self._signal = signal.Signals(number).name
        self.interrupt_signal = True
        self.main_loop_interrupt.set()

    def signal_handler_reload(self, number: int, *_: Any) -> None:
        """SIGHUP ends the server as SIGTERM does: a worker beside one that still serves would find its place taken."""
        self.signal_handler_interrupt(number)

    def _spawn_workers(self, spawn_target: Any, target_loader: Any) -> None:
        super()._spawn_workers(spawn_target, target_loader)  # type: ignore[no-untyped-call]
        for number in range(self.workers):
            self._log_started(number, "started")

    def _log_started(self, number: int, how: str) -> None:
        fields = {"event": "worker_started", "worker": number + 1, "workerPid": self.wrks[number].inner.pid}
        _log.info("Worker %d %s, as process %d.", number + 1, how, fields["workerPid"], extra={"fields": fields})

    def _serve_loop(self, spawn_target: Any, target_loader: Any) -> None:
        """Until a signal: wait for deaths, and start again whichever worker is due."""
        while True:
            self.main_loop_interrupt.wait(self._seconds_until_due())
            self.main_loop_interrupt.clear()  # before the looks below: what comes during them ends the next wait
            if self.interrupt_signal:
                # Not in the handler of the signal: that may have come while a line was being written.
                _log.info(
                    "%s came: no more connections are accepted, and requests in flight are answered.",
                    self._signal,
                    extra={"fields": {"event": "stopping", "signal": self._signal}},
                )
                return
            while self.interrupt_children:
                number = self.interrupt_children.pop(0)
                if not self._is_ready():
                    self.failure = WorkerEnded(
                        f"A worker ended before it was ready ({_how_it_ended(self.wrks[number].inner.exitcode)})."
                    )
                    return
                self._note_death(number)
            for number, deaths in enumerate(self._deaths):
                if deaths.due is not None and deaths.due <= time.monotonic():
                    deaths.due = None
                    self._on_restart()
                    self._respawn_workers([number], spawn_target, target_loader)
                    self._log_started(number, "is started again")

    def _stop_workers(self) -> None:
        """Have the workers end, and wait for it as long as they may take; granian kills whichever is left then.

        Each worker's end is collected by a thread of granian's. A join at that very moment returns early and takes the
        worker for alive, so that granian would report that it killed one which had ended well.
        """
        for worker in self.wrks:
            worker.terminate()  # type: ignore[no-untyped-call]
        deadline = time.monotonic() + (self.workers_kill_timeout or 0)
        for worker in self.wrks:
            multiprocessing.connection.wait([worker.inner.sentinel], max(0.0, deadline - time.monotonic()))
            while worker.inner.exitcode is None and time.monotonic() < deadline:
                time.sleep(0.001)
        self.workers_kill_timeout = max(1, math.ceil(deadline - time.monotonic()))
        super()._stop_workers()  # type: ignore[no-untyped-call]

    def _note_death(self, number: int) -> None:
        worker, deaths = self.wrks[number], self._deaths[number]
        now = time.monotonic()
        if now - worker.birth > _CALM_SECONDS:
            deaths.pause = _FIRST_PAUSE_SECONDS
        deaths.due = now + deaths.pause
        how = _how_it_ended(worker.inner.exitcode)
        fields = {"event": "worker_ended", "worker": number + 1, "workerPid": worker.inner.pid, "how": how}
        _log.error(
            "Worker %d ended (%s); starting it again in %.1f s", number + 1, how, deaths.pause, extra={"fields": fields}
        )
        deaths.pause = min(deaths.pause * 2, _LONGEST_PAUSE_SECONDS)

    def _seconds_until_due(self) -> float | None:
        due = [deaths.due for deaths in self._deaths if deaths.due is not None]
        return max(0.0, min(due) - time.monotonic()) if due else None


def _how_it_ended(exit_code: int | None) -> str:
    return f"signal {-exit_code}" if exit_code is not None and exit_code < 0 else f"exit code {exit_code}"
