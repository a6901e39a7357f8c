"""What a server knows of the database's keys: asked for again and again, and trusted for a while without an answer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import TupleRow, class_row, dict_row

from server.access.keys import StoredKey, id_of
from server.access.scopes import Principal
from server.access.search_keys import PREFIX as SEARCH_PREFIX
from server.access.search_keys import read_search_key
from server.database.connections import Direct, connection_of_its_own
from server.database.queries import Queries
from server.database.runner import Runner
from server.errors import KeyInvalid, KeysUnknown, TwinlensError

EFFECTIVE_SECONDS = 5
"""Within which a change counts on each server that reaches the database."""

LOOK_SECONDS = 2.0
"""Between two looks at whether anything has changed, where no notice of a change comes before."""

TRUSTED_SECONDS = 60.0
"""For so long, what is known counts although the database does not answer."""

_CONNECTED_WITHIN_SECONDS = 5
_AGAIN_SECONDS = 5.0

_log = logging.getLogger(__name__)

Clock = Callable[[], float]


class Keyring:
    """The keys of a database. Nothing is known until the first `refresh`."""

    def __init__(
        self,
        runner: Runner,
        *,
        direct: Direct | None = None,
        always: bool = False,
        trusted: float = TRUSTED_SECONDS,
        clock: Clock = time.monotonic,
        today: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`direct`: where notices of changes come from; without it, the keys are looked at every two seconds alone.

        `always`: a key is needed even while the database has keys turned off, since others than this machine reach the
        server. `trusted`: seconds for which what is known counts, on `clock`; `today`: the time that keys expire by.
        """
        self._runner = runner
        self._direct = direct
        self._always = always
        self._trusted = trusted
        self._clock = clock
        self._today = today
        self._queries = Queries.read("access.sql").including("key_columns")
        self._version: UUID | None = None
        self._known_at = float("-inf")
        self._read_at = float("-inf")
        self._keys_on = False
        self._keys: Mapping[str, StoredKey] = {}
        self._news = asyncio.Event()
        self._state = "known"
        self.client_limits: Mapping[str, Mapping[str, Any]] = {}
        """The limits of clients that have some of their own."""
        self.url_secret = b""
        """What signs addresses of pictures."""

    @property
    def on(self) -> bool:
        """Whether callers needed a key when that was last known, however long ago."""
        return self._keys_on or self._always

    @property
    def needed(self) -> bool:
        """Whether callers need a key. Raises KeysUnknown where that was last known too long ago."""
        if self._clock() - self._known_at > self._trusted:
            raise KeysUnknown
        return self.on

    def principal(self, presented: str) -> Principal:
        """Who calls with this key, or with this search key. Raises KeyInvalid.

        A key expires by this server's clock, also while the database is away.
        """
        if presented.startswith(SEARCH_PREFIX):
            return read_search_key(presented, self._keys.get, self._today())
        stored = self._keys.get(id_of(presented) or "")
        if stored is None or not stored.is_of(presented) or not stored.good_at(self._today()):
            raise KeyInvalid
        return stored.principal

    async def refresh(self) -> None:
        """Ask the database, if only whether anything has changed. Raises CatalogueUnavailable's kinds."""
        asked_at = self._clock()
        await self._runner.read(self._look)
        self._known_at = asked_at

    async def _look(self, connection: AsyncConnection[TupleRow]) -> None:
        """Read what has changed.

        The version is read before the keys, and each statement sees what is committed when it begins. So keys may be
        newer than the version beside which they are kept, and then they are read once more at the next look; they are
        never older. Now and then they are read although the version is the same: it does not show what was changed
        where triggers do not run, as by logical replication.
        """
        cursor = connection.cursor(row_factory=dict_row)
        state = await (await cursor.execute(self._queries["state"])).fetchone()
        if state is None:
            raise KeysUnknown
        if state["version"] != self._version or self._clock() - self._read_at > self._trusted:
            read_at = self._clock()
            of_keys = connection.cursor(row_factory=class_row(StoredKey))
            keys = await (await of_keys.execute(self._queries["usable_keys"])).fetchall()
            limits = await (await cursor.execute(self._queries["client_limits"])).fetchall()
            self._keys = {key.id: key for key in keys}
            self.client_limits = {one["client_id"]: one["limits"] for one in limits}
            self._version, self._read_at = state["version"], read_at
        self._keys_on, self.url_secret = state["keys_on"], state["url_secret"]

    # --- for as long as the server runs ------------------------------------------------------------------------------

    async def run(self) -> None:
        """Refresh at each notice of a change, and every two seconds where none comes."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._news.wait()
            self._news.clear()
            try:
                await self.refresh()
            except TwinlensError as exc:
                self._note("old", exc.line)
            except Exception:
                _log.exception("The keys could not be looked at; another try follows.")
            else:
                self._note("known")

    async def listen(self) -> None:
        """Hear of changes as they are made, on a connection of its own.

        Behind a pooler of transactions nothing would be heard. Whatever breaks, `run` goes on without notices.
        """
        while self._direct is not None:
            try:
                async with connection_of_its_own(
                    self._direct.url, pooling=self._direct.pooling, wait=_CONNECTED_WITHIN_SECONDS
                ) as connection:
                    if connection.per_transaction is not None:
                        return
                    await connection.execute(self._queries["listen"])
                    self._news.set()  # something may have changed before
                    async for _ in connection.notifies():
                        self._news.set()
            except (psycopg.Error, OSError) as exc:
                _log.debug("No notices of changed keys for now: %s", type(exc).__name__)
            except Exception:
                _log.exception("Notices of changed keys could not be heard; another try follows.")
            await asyncio.sleep(_AGAIN_SECONDS)

    def _note(self, state: str, why: str = "") -> None:
        """Log a change of state, and nothing while it stays the same."""
        if state == "old" and self._clock() - self._known_at > self._trusted:
            state = "unknown"
        if state == self._state:
            return
        self._state = state
        if state == "known":
            _log.info("The keys are looked at again.")
        elif state == "old":
            _log.warning("The keys cannot be looked at. What is known counts for %g s: %s", self._trusted, why)
        else:
            _log.error("The keys have not been looked at for %g s, so callers are refused: %s", self._trusted, why)
