"""Single connections to the database, for commands and for the start of a server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import psycopg
from pgvector.psycopg import register_vector_async

from server.database import session
from server.database.connecting import connected
from server.database.parameters import AS_ALWAYS, Url, parameters_of
from server.database.session import AsyncSessionConnection, SessionConnection
from server.errors import DatabaseUnfit, DatabaseUnusable
from server.secrets import redacted, secrets_of
from server.settings import Pooling, Settings

_CONNECTED_WITHIN_SECONDS = 10


@dataclass(frozen=True)
class Direct:
    """Where to go with work that one session of PostgreSQL must do throughout; `pooling`: as in `open_pool`."""

    source: Url
    """The URL, or where to ask for it before each connection: a password may change meanwhile."""
    pooling: Pooling = "auto"

    @property
    def url(self) -> str:
        return self.source if isinstance(self.source, str) else self.source()


def direct_of(settings: Settings, url: str) -> Direct:
    """The direct URL that the settings give beside the owner's, `url`; that one where they give none."""
    if settings.direct_database_url is not None:
        return Direct(lambda: settings.current("direct_database_url") or "")
    return Direct(lambda: settings.owners_url or url, settings.pooling)


@asynccontextmanager
async def connection_of_its_own(
    url: str,
    *,
    pooling: Pooling = "auto",
    wait: int = _CONNECTED_WITHIN_SECONDS,
    longest: float | None = None,
    role: str | None = None,
) -> AsyncIterator[AsyncSessionConnection]:
    """One autocommit connection beside those of the pool. Raises psycopg's errors.

    `wait`: seconds within which PostgreSQL must have answered; `longest`: seconds that a statement may run, None: as
    long as it needs. `pooling`, `role`: as in `open_pool`.
    """
    parameters = {**parameters_of(url, connect_timeout=wait), **AS_ALWAYS}
    opened = await connected(AsyncSessionConnection, **parameters, prepare_threshold=None)
    async with opened as connection:
        await session.configure(connection, longest=longest, pooling=pooling, role=role)
        yield connection


async def try_connection(
    url: str, *, patience: float, longest: float, pooling: Pooling = "auto", role: str | None = None
) -> None:
    """Open a connection as the pool does, within so many seconds, and close it.

    Raises DatabaseUnfit when the connection is there and cannot be set up, which another try would not change, and
    DatabaseUnusable when the database cannot be reached at the moment.
    """
    try:
        wait = max(2, round(patience))
        async with connection_of_its_own(url, pooling=pooling, wait=wait, longest=longest, role=role) as connection:
            await register_vector_async(connection)
    except psycopg.OperationalError as exc:
        raise DatabaseUnusable(f"The database cannot be used: {_reason(exc, url)}") from exc
    except psycopg.Error as exc:
        raise DatabaseUnfit(f"Connections to the database cannot be set up for searches: {_reason(exc, url)}") from exc


@contextmanager
def connect(url: str, *, lasting: bool = False, pooling: Pooling = "auto") -> Iterator[SessionConnection]:
    """One plain autocommit connection, for commands and for the start of a server.

    `lasting`: for work that does not work with another session for each transaction; whether it has one for all of
    them, `per_transaction` says then. `pooling`: as in `open_pool`.

    Raises DatabaseUnusable, in a sentence that never holds the password, when the database cannot be reached or a
    statement fails; DatabaseUnfit where waiting would not change that.
    """
    try:
        parameters = parameters_of(url, connect_timeout=_CONNECTED_WITHIN_SECONDS)
    except psycopg.ProgrammingError:
        # The message repeats the URL, so it is left out together with its traceback.
        raise DatabaseUnusable(
            "The database URL cannot be read; it should look like postgresql://user:password@host:5432/name."
        ) from None
    try:
        with SessionConnection.connect(**{**parameters, **AS_ALWAYS}, prepare_threshold=None) as connection:
            session.configure_single(connection, lasting=lasting, pooling=pooling)
            yield connection
    except psycopg.ProgrammingError as exc:  # a right or a table is missing, say: the same statement would fail again
        raise DatabaseUnfit(f"The database cannot be used: {exc.diag.message_primary or _reason(exc, url)}") from exc
    except psycopg.Error as exc:
        raise DatabaseUnusable(f"The database cannot be used: {_reason(exc, url)}") from exc


def _reason(error: psycopg.Error, url: str) -> str:
    """What went wrong, without anything secret."""
    return redacted(str(error).strip(), secrets_of(url))
