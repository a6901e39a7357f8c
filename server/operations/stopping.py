"""Stopping a long piece of work: the first signal asks it to end in good order, the second one ends it at once."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_log = logging.getLogger(__name__)


class Stop(asyncio.Event):
    """Set by SIGINT or SIGTERM; `signal` says by which."""

    signal: signal.Signals = signal.SIGTERM


@asynccontextmanager
async def stop_on_signals() -> AsyncIterator[Stop]:
    """The first SIGINT or SIGTERM is a request to stop; the second one ends the task at once."""
    stop, loop, task = Stop(), asyncio.get_running_loop(), asyncio.current_task()

    def on_signal(number: signal.Signals) -> None:
        if stop.is_set() and task is not None:
            task.cancel()
        else:
            _log.info("%s: what was begun is brought to its end; a second signal ends it at once.", number.name)
        stop.signal = number
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal, number)
    try:
        yield stop
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
