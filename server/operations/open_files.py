"""How many connections a worker may have: each is an open file, and the system limits those of a process."""

from __future__ import annotations

import contextlib
import logging
import resource

_log = logging.getLogger(__name__)

MOST_CONNECTIONS = 16_384
"""Connections of one worker, idle ones among them. An idle one costs a few kilobytes; the next ones wait their turn."""

# Files that a worker needs beside its callers' connections: libraries, the database's connections, pictures.
_OTHER_FILES = 512
_FEW_CONNECTIONS = 4_096


def most_connections() -> int:
    """How many connections a worker may have; raises this process's limit of open files, which its workers inherit."""
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit != most:
        with contextlib.suppress(ValueError, OSError):  # more than the kernel allows: then it stays as it is
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
            limit = most
    if limit == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    connections = max(1, min(MOST_CONNECTIONS, max(limit // 2, limit - _OTHER_FILES)))
    if connections < _FEW_CONNECTIONS:
        _log.warning(
            "A process of this user may have %s open files, so that each worker serves %s connections at a time, idle "
            "ones included. For more, raise the limit: ulimit -n, or LimitNOFILE= of a systemd unit.",
            f"{limit:,}",
            f"{connections:,}",
        )
    return connections
