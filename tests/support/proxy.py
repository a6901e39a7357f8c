"""A proxy between a test and its database, which can go silent as a network does: no byte comes, nothing is closed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from psycopg import conninfo


class Proxy:
    """Passes connections on to the database of `url`; `proxy.url` leads through it."""

    def __init__(self, url: str, folder: Path) -> None:
        """`folder`: for the socket of the proxy; its path must be short."""
        self._to = conninfo.conninfo_to_dict(url)
        self._port = str(self._to.get("port") or 5432)
        self._folder = folder
        self._passing: set[asyncio.Task[Any]] = set()
        self._silenced: list[asyncio.StreamWriter] = []
        self._writers: list[asyncio.StreamWriter] = []
        self._open = asyncio.Event()
        self._open.set()
        self.url = conninfo.make_conninfo(url, host=str(folder), port=self._port)

    def silence(self) -> None:
        """From here on no connection that stands passes anything on, for ever; new ones do."""
        for task in self._passing:
            task.cancel()
        self._silenced += self._writers
        self._writers = []

    def break_off(self) -> None:
        """Close every connection, in the middle of whatever was said; those that are silent as well."""
        for writer in [*self._silenced, *self._writers]:
            writer.close()
        self._silenced, self._writers = [], []

    def hold(self) -> None:
        """Nor do new ones, until `release`."""
        self.silence()
        self._open.clear()

    def release(self) -> None:
        self._open.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Proxy]:
        server = await asyncio.start_unix_server(self._pass, self._folder / f".s.PGSQL.{self._port}")
        try:
            yield self
        finally:
            server.close()
            for task in self._passing:
                task.cancel()
            for writer in [*self._silenced, *self._writers]:
                writer.close()
            await asyncio.gather(*self._passing, return_exceptions=True)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        task = asyncio.current_task()
        assert task is not None
        self._passing.add(task)
        with contextlib.suppress(asyncio.CancelledError, OSError):
            await self._open.wait()
            host = str(self._to.get("host") or "127.0.0.1")
            opened = (
                asyncio.open_unix_connection(f"{host}/.s.PGSQL.{self._port}")
                if host.startswith("/")
                else asyncio.open_connection(host, int(self._port))
            )
            from_database, to_database = await opened
            self._writers.append(to_database)
            both_ways = (_copy(reader, to_database), _copy(from_database, writer))
            copies = [asyncio.create_task(one) for one in both_ways]
            try:
                await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
                writer.close()
                to_database.close()
            finally:
                for copy in copies:
                    copy.cancel()
        self._passing.discard(task)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
