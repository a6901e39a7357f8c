"""A server's pool of connections: after any break it is back as soon as the database is.

psycopg_pool waits 1, 2, 4 seconds between attempts to connect, and between looks at connections that turn out to be
broken. Callers would wait with it, long after the database is back. So its attempts never fail here: each goes on,
several times a second, until there is a connection. And connections are examined here, where they are lent.
"""

from __future__ import annotations

from time import monotonic
from typing import cast

from psycopg import conninfo
from psycopg_pool import AsyncConnectionPool

from server.database.connector import Connector
from server.database.lent import Lent
from server.database.parameters import Url, parameters_of
from server.database.pooling import forget
from server.settings import Pooling

MOST_WAITING = 256
"""Callers that wait for a connection; more are refused at once."""

_RESTED_SECONDS = 1.0
"""A connection that rested longer is asked for a sign of life before it is lent."""

# Connections are renewed because of one of them; those that others find right after that are of the same kind.
_RENEWED_SECONDS = 1.0

_OWN_CONNECT_TIMEOUT_SECONDS = 10


class Pool(AsyncConnectionPool[Lent]):
    """A pool of autocommit connections that know pgvector's types; closed until entered with `async with`."""

    def __init__(
        self,
        url: Url,
        *,
        min_size: int,
        max_size: int,
        timeout: float,
        longest: float = 30.0,
        pooling: Pooling = "auto",
        role: str | None = None,
        name: str = "database",
    ) -> None:
        """`timeout`: seconds that a caller waits for a connection; `longest`: seconds that a statement may run;
        `pooling`: what a pooler between us and PostgreSQL gives a connection (see session.py); `role`: the role that
        statements run as, which is under row-level security, and None for that of the URL; `name`: of what it leads
        to."""
        self.role = role
        self._connector = Connector(
            url, connect_timeout=max(2, round(timeout)), longest=longest, pooling=pooling, role=role, name=name
        )
        self._renewed_at = float("-inf")
        super().__init__(
            open=False,
            # Of the class of its connections, psycopg_pool uses nothing but `connect`.
            connection_class=cast("type[Lent]", self._connector),
            min_size=min_size,
            max_size=max_size,
            timeout=timeout,
            max_waiting=MOST_WAITING,
            name=name,
        )

    @property
    def url(self) -> str:
        """What a connection of its own is made with, beside those of the pool: the URL, and our parameters.

        Such a connection has the rights of the URL's role.
        """
        parameters = parameters_of(self._connector.url, connect_timeout=_OWN_CONNECT_TIMEOUT_SECONDS)
        return conninfo.make_conninfo("", **parameters)

    @property
    def away(self) -> bool:
        """Whether what it leads to is known to be away; asks nobody."""
        return self._connector.away

    async def getconn(self, timeout: float | None = None) -> Lent:  # noqa: ASYNC109 - psycopg_pool's
        """A connection that works, as far as anyone can know. Raises PoolTimeout, TooManyRequests, PoolClosed."""
        deadline = monotonic() + (self.timeout if timeout is None else timeout)
        while True:
            connection = await super().getconn(deadline - monotonic())
            try:
                if await self._works(connection):
                    return connection
            except BaseException:
                await self.putconn(connection)
                raise
            # It is replaced as it is given back. The next one is examined at once.
            await self.putconn(connection)

    async def putconn(self, conn: Lent) -> None:
        """Give a connection back."""
        conn.rested_since = monotonic()
        if conn.closed:  # whatever closed it may come back as something else: another server, a pooler's other mode
            forget()
        await super().putconn(conn)

    async def renew(self, than: Lent) -> None:
        """Replace this connection and all others that may be like it: they belong to a server that has changed."""
        if max(than.made_at, monotonic() - _RENEWED_SECONDS) > self._renewed_at:
            self._renewed_at = monotonic()
            forget()
            await self.drain()

    async def close(self, timeout: float = 5.0) -> None:  # noqa: ASYNC109 - psycopg_pool's
        """Close all connections, and end all attempts to make one."""
        await self._connector.close()
        await super().close(timeout)

    async def _works(self, connection: Lent) -> bool:
        if connection.closed:
            return False
        if connection.has_news():
            return await connection.answers()
        if monotonic() - connection.rested_since < _RESTED_SECONDS or await connection.answers():
            return True
        # What silenced this one has most likely silenced the others that rest; asking each would take as long again.
        await self.renew(connection)
        return False


open_pool = Pool
"""Makes a pool; entering it with `async with` opens it."""
