"""The parameters that every connection is made with: those of the URL, and ours where it has none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from psycopg import conninfo

Url = str | Callable[[], str]
"""The URL of a database, or where to ask for it before each connection: a password may change meanwhile."""

AS_ALWAYS: Mapping[str, Any] = {"autocommit": True, "client_encoding": "UTF8"}
"""What no URL changes. Poolers know the encoding as well, so it can be said at once."""

_DEFAULTS: Mapping[str, Any] = {
    # A peer that has vanished without a word is noticed after 10 + 3 x 5 seconds of silence,
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    # and after 10 seconds where something was sent to it. In milliseconds; sockets of Unix have no use for it.
    "tcp_user_timeout": 10_000,
}


def parameters_of(url: str, *, connect_timeout: int, turn: int = 0) -> dict[str, Any]:
    """The parameters for psycopg's `connect`. Whatever the URL says wins.

    `connect_timeout`: seconds. `turn`: where the URL names several servers, begin with the one that is so many places
    further on, so that one that does not answer is not waited for each time. Raises psycopg.ProgrammingError for a URL
    that cannot be read; its message repeats the URL.
    """
    parameters = {**_DEFAULTS, "connect_timeout": connect_timeout, **conninfo.conninfo_to_dict(url)}
    for name in ("host", "hostaddr", "port"):
        places = str(parameters.get(name) or "").split(",")
        if len(places) > 1:
            first = turn % len(places)
            parameters[name] = ",".join([*places[first:], *places[:first]])
    return parameters
