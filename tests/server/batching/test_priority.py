"""Bulk work gives way to searches."""

from __future__ import annotations

import os
import threading

import pytest

from server.batching.priority import BULK_NICENESS, give_way


@pytest.mark.parametrize("niceness", [BULK_NICENESS - 3, BULK_NICENESS, BULK_NICENESS + 5])
def test_a_thread_is_never_raised(niceness: int) -> None:
    """Root may raise priorities: a command that runs at the lowest one would then come before itself."""
    found: list[tuple[int, int]] = []

    def run() -> None:
        thread = threading.get_native_id()
        before = max(niceness, os.getpriority(os.PRIO_PROCESS, thread))
        os.setpriority(os.PRIO_PROCESS, thread, before)
        give_way()
        found.append((before, os.getpriority(os.PRIO_PROCESS, thread)))

    working = threading.Thread(target=run)
    working.start()
    working.join()
    ((before, after),) = found
    assert after == max(before, BULK_NICENESS)
