"""Single connections to the database, for commands and for the start of a server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import Connection
from psycopg.rows import TupleRow

from server.database.parameters import parameters_of
from server.errors import DatabaseUnusable

_CONNECT_TIMEOUT_SECONDS = 10


@contextmanager
def connect(url: str) -> Iterator[Connection[TupleRow]]:
    """One plain autocommit connection, for commands and for the start of a server.

    Raises DatabaseUnusable, in a sentence that never holds the password, when the database cannot be reached or a
    statement fails.
    """
    try:
        parameters = parameters_of(url, connect_timeout=_CONNECT_TIMEOUT_SECONDS)
    except psycopg.ProgrammingError:
        # The message repeats the URL, so it is left out together with its traceback.
        raise DatabaseUnusable(
            "The database URL cannot be read; it should look like postgresql://user:password@host:5432/name."
        ) from None
    try:
        with psycopg.connect(**parameters, autocommit=True) as connection:
            yield connection
    except psycopg.Error as exc:
        reason = str(exc).strip()
        if password := parameters.get("password"):
            reason = reason.replace(str(password), "***")
        raise DatabaseUnusable(f"The database cannot be used: {reason}") from exc
