"""Threads that give way: bulk work runs at a lower priority, and so takes what searches leave of the cores."""

from __future__ import annotations

import logging
import os
import threading

BULK_NICENESS = 10
"""Of ten parts of a core that both want, bulk work gets one: it makes progress all day, and searches hardly notice."""

_log = logging.getLogger(__name__)


def give_way() -> None:
    """Lower the priority of the calling thread, for good; one that is lower already stays so, also for root.

    Only Linux has priorities of threads.
    """
    thread = threading.get_native_id()
    try:
        niceness = max(BULK_NICENESS, os.getpriority(os.PRIO_PROCESS, thread))
        os.setpriority(os.PRIO_PROCESS, thread, niceness)
    except OSError as exc:
        _log.debug("Bulk work runs at the same priority as searches: %s", exc)
