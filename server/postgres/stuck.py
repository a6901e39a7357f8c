"""A PostgreSQL that refuses every connection and will go on doing so, although its first process lives.

Seen with PostgreSQL 18.4 on a full disk: the process that replays the log after a crash ended, and the first process
went on waiting for it, minutes after there was room again. Only a new start helps.
"""

from __future__ import annotations

from pathlib import Path

from psycopg.pq import PGconn, Ping

_PROC = Path("/proc")
_CONNECT_SECONDS = 3


def refuses_for_ever(url: str, pid: int) -> bool:
    """Whether the postmaster with this pid refuses connections while nothing of it works towards accepting them.

    That holds for a moment also while it ends its processes, after a crash or for a stop: look again some seconds
    later. False where nobody can tell.
    """
    if PGconn.ping(f"{url}&connect_timeout={_CONNECT_SECONDS}".encode()) != Ping.REJECT:
        return False
    titles = _titles_of_children(pid)
    return titles is not None and not any("postgres: startup" in title for title in titles)


def _titles_of_children(pid: int) -> list[str] | None:
    """What the processes that a process has started call themselves; None where the system does not say."""
    try:
        children = (_PROC / str(pid) / "task" / str(pid) / "children").read_text().split()
    except OSError:
        return None
    titles = []
    for child in children:
        try:
            titles.append((_PROC / child / "cmdline").read_text(errors="replace"))
        except OSError:  # it has ended
            continue
    return titles
