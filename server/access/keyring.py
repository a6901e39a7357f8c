"""What a server knows of the database's keys: asked for again and again, and trusted for a while without an answer."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import TupleRow, class_row, dict_row

from server.access.keys import StoredKey, id_of
from server.access.scopes import Principal
from server.access.search_keys import PREFIX as SEARCH_PREFIX
from server.access.search_keys import read_search_key
from server.database.queries import Queries
from server.database.runner import Runner
from server.errors import KeyInvalid, KeysUnknown, TwinlensError

LOOK_SECONDS = 2.0
"""Between two looks at whether anything has changed."""

TRUSTED_SECONDS = 60.0
"""For so long, what is known counts although the database does not answer."""

_log = logging.getLogger(__name__)


class Keyring:
    """The keys of a database. Nothing is known until the first `refresh`."""

    def __init__(self, runner: Runner, *, always: bool = False) -> None:
        """`always`: a key is needed even while the database has keys turned off, since others than this machine reach
        the server."""
        self._runner = runner
        self._always = always
        self._queries = Queries.read("access.sql").including("key_columns")
        self._version: int | None = None
        self._known_at = float("-inf")
        self._keys_on = False
        self._keys: Mapping[str, StoredKey] = {}
        self.client_limits: Mapping[str, Mapping[str, Any]] = {}
        """The limits of clients that have some of their own."""
        self.url_secret = b""
        """What signs addresses of pictures."""

    @property
    def needed(self) -> bool:
        """Whether callers need a key. Raises KeysUnknown."""
        if time.monotonic() - self._known_at > TRUSTED_SECONDS:
            raise KeysUnknown
        return self._keys_on or self._always

    def principal(self, presented: str) -> Principal:
        """Who calls with this key, or with this search key. Raises KeyInvalid."""
        if presented.startswith(SEARCH_PREFIX):
            return read_search_key(presented, self._keys.get, datetime.now(UTC))
        stored = self._keys.get(id_of(presented) or "")
        if stored is None or not stored.is_of(presented) or not stored.good_at(datetime.now(UTC)):
            raise KeyInvalid
        return stored.principal

    async def refresh(self) -> None:
        """Ask the database, if only whether anything has changed. Raises CatalogueUnavailable's kinds."""
        asked_at = time.monotonic()

        async def look(connection: AsyncConnection[TupleRow]) -> None:
            cursor = connection.cursor(row_factory=dict_row)
            state = await (await cursor.execute(self._queries["state"])).fetchone() or {}
            if state["version"] != self._version:
                of_keys = connection.cursor(row_factory=class_row(StoredKey))
                keys = await (await of_keys.execute(self._queries["usable_keys"])).fetchall()
                limits = await (await cursor.execute(self._queries["client_limits"])).fetchall()
                self._keys = {key.id: key for key in keys}
                self.client_limits = {one["client_id"]: one["limits"] for one in limits}
                self._version = state["version"]
            self._keys_on, self.url_secret = state["keys_on"], state["url_secret"]

        await self._runner.read(look)
        self._known_at = asked_at

    async def run(self) -> None:
        """Refresh for as long as the server runs."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.refresh()
            except TwinlensError as exc:
                _log.warning("The keys could not be looked at; another try follows: %s", exc.line)
