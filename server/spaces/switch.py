"""Make another space the live one, with nothing missing in it; and drop a space that is not live."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import Connection
from psycopg.rows import TupleRow, class_row

from server.database.connections import connect
from server.database.locks import LOCK_TIMEOUT_SECONDS, SECOND_LOCK_TIMEOUT_SECONDS, set_lock_timeout, with_brief_locks
from server.database.queries import Queries
from server.errors import SpaceIncomplete, SpaceRefused
from server.spaces.spaces import (
    EARLIEST,
    Horizon,
    ListedSpace,
    Missing,
    count_missing,
    find_live_space,
    lock_spaces,
    queries_of,
)

Fill = Callable[[Sequence[str], float | None], None]
"""Tries to embed these media and records those that cannot be embedded, within that many seconds where it says so."""

MOST_FILLED_WHILE_LOCKED = 16
"""No more missing media than this are embedded while writers wait. Without that, steady writers would always be ahead
of the switch."""

# Writers wait for LOCK_TIMEOUT_SECONDS and are refused then; the switch is over before that.
_LONGEST_LOCKED_SECONDS = LOCK_TIMEOUT_SECONDS - 0.3
_LONGEST_CATCHING_UP_SECONDS = 3600.0
_EXAMPLES = 3


def switch(url: str, space: ListedSpace, *, leave_out_unreadable: bool = False, fill: Fill | None = None) -> None:
    """Make a space the live one, in a transaction that verifies that nothing is missing in it.

    Every media is looked at once while searches and writes go on. What was added since then is looked at again with
    the table of media locked against writers, for milliseconds. `fill` embeds what is missing; without it, anything
    missing is a reason to refuse. `leave_out_unreadable`: media that could not be embedded are no longer found, instead
    of being a reason to refuse.

    Raises SpaceIncomplete, and SpaceRefused when other transactions hold the table all the time.
    """
    with connect(url) as connection:
        _Switch(connection, space, leave_out_unreadable, fill).run()


@dataclass(frozen=True)
class _MissingMedia:
    """A media without a vector in the space. `tried`: in vain; `shown`: it has a vector in the live space."""

    id: str
    tried: bool
    shown: bool


class _StillMissing(Exception):
    """The cut-over found media without a vector, and was rolled back."""

    def __init__(self, media: list[str]) -> None:
        super().__init__(f"{len(media)} media")
        self.media = media


class _Switch:
    """The steps of one switch, on one connection.

    Invariant: each media that was added below the transaction `_since` has a vector in the space, or may be left out,
    or is among the media that are still to be embedded.
    """

    def __init__(
        self, connection: Connection[TupleRow], space: ListedSpace, leave_out_unreadable: bool, fill: Fill | None
    ) -> None:
        self._connection = connection
        self._space = space
        self._leave_out_unreadable = leave_out_unreadable
        self._fill = fill
        self._queries = queries_of(space)
        self._since = EARLIEST

    def run(self) -> None:
        """All steps. Raises as `switch`."""
        pending = self._look_at_all()
        deadline = time.monotonic() + _LONGEST_CATCHING_UP_SECONDS
        while True:
            pending = self._catch_up(pending, deadline)
            if pending:
                continue
            try:
                with_brief_locks(self._connection, self._cut_over)
            except _StillMissing as exc:
                pending = exc.media
            else:
                return

    def _look_at_all(self) -> list[str]:
        """Look at every media; the ids of those that are still to be embedded."""
        since = self._horizon().complete_below
        found = count_missing(self._connection, self._space)
        if (found.untried and self._fill is None) or (found.lost and not self._leave_out_unreadable):
            raise _incomplete(self._space, found)
        pending = self._untried_since(EARLIEST) if found.untried else []
        self._since = since
        return pending

    def _catch_up(self, pending: list[str], deadline: float) -> list[str]:
        """Embed what is pending; the ids of what is pending after that, with what was added meanwhile."""
        if pending:
            if self._fill is None or time.monotonic() > deadline:
                raise _incomplete(self._space, Missing(untried=len(pending), examples=tuple(pending[:_EXAMPLES])))
            self._fill(pending, None)
        latest = self._horizon().complete_below
        pending = self._untried_of(pending) + self._untried_since(self._since)
        self._since = latest
        return pending

    def _cut_over(self, connection: Connection[TupleRow]) -> None:
        """The one transaction: lock out writers, verify that nothing is missing, make the space the live one.

        `connection` is the switch's own, in a transaction. Raises _StillMissing when something is missing that cannot
        be embedded while writers wait.
        """
        asked = time.monotonic()
        lock_spaces(connection)
        connection.execute("LOCK TABLE media IN SHARE MODE")
        set_lock_timeout(connection, SECOND_LOCK_TIMEOUT_SECONDS)
        # With statistics that lag behind, these would be chosen, and look at every media while writers wait.
        connection.execute("SET LOCAL enable_seqscan = off")
        connection.execute("SET LOCAL enable_hashjoin = off")
        connection.execute("SET LOCAL enable_mergejoin = off")
        untried = self._untried_since(self._since)
        if untried and self._fill is not None and len(untried) <= MOST_FILLED_WHILE_LOCKED:
            self._fill(untried, _LONGEST_LOCKED_SECONDS - (time.monotonic() - asked))
            untried = self._untried_since(self._since)
        if untried:
            raise _StillMissing(untried)
        connection.execute(self._queries["make_live"], {"number": self._space.number})

    def _untried_since(self, since: str) -> list[str]:
        """The media added since this transaction that are still to be embedded."""
        return self._untried("missing_since", since=since, until=self._horizon().unseen_from)

    def _untried_of(self, media: list[str]) -> list[str]:
        """Those of these media that are still to be embedded."""
        return self._untried("missing_of_these", ids=media) if media else []

    def _untried(self, query: str, **parameters: Any) -> list[str]:
        """What is still to be embedded. Raises SpaceIncomplete for what was tried in vain and would be lost."""
        with self._connection.cursor(row_factory=class_row(_MissingMedia)) as cursor:
            rows = cursor.execute(self._queries[query], {"number": self._space.number, **parameters}).fetchall()
        lost = [media.id for media in rows if media.tried and media.shown]
        if lost and not self._leave_out_unreadable:
            raise _incomplete(self._space, Missing(lost=len(lost), examples=tuple(lost[:_EXAMPLES])))
        return [media.id for media in rows if not media.tried]

    def _horizon(self) -> Horizon:
        with self._connection.cursor(row_factory=class_row(Horizon)) as cursor:
            (horizon,) = cursor.execute(self._queries["horizon"]).fetchall()
        return horizon


def _incomplete(space: ListedSpace, found: Missing) -> SpaceIncomplete:
    more = "..." if found.untried + found.lost > len(found.examples) else ""
    examples = ", ".join(found.examples) + more
    if found.lost:
        return SpaceIncomplete(
            f"Nothing was switched: of the pictures that are found now, {found.lost:,} could not be embedded in the "
            f"space {space.short_id} and would be lost to every search ({examples}). The table twinlens_unreadable "
            "says why. Mend or delete them and run this again, or give --leave-out-unreadable to switch without them."
        )
    return SpaceIncomplete(
        f"Nothing was switched: {found.untried:,} pictures are not embedded in the space {space.short_id} yet and "
        f"would be lost to every search ({examples}). This embeds them and then switches: python -m server reembed "
        f"--artifact {shlex.quote(space.artifact_path)}"
    )


def drop(url: str, space: ListedSpace) -> None:
    """Remove a space from the database: its vectors, its indexes, its records. Servers in it are no longer ready.

    Raises SpaceRefused for the live space.
    """

    def work(connection: Connection[TupleRow]) -> None:
        # A change of a product walks through the tables of all spaces, and must not find one gone on its way. And a
        # table that refers to media can be dropped only while nobody reads media.
        connection.execute("LOCK TABLE products IN SHARE MODE")
        set_lock_timeout(connection, SECOND_LOCK_TIMEOUT_SECONDS)
        connection.execute("LOCK TABLE media IN ACCESS EXCLUSIVE MODE")
        lock_spaces(connection)
        if find_live_space(connection) == space.id:
            raise SpaceRefused(
                f"The space {space.short_id} is the live one: every search needs it. Switch to another one first: "
                "python -m server spaces switch SPACE"
            )
        connection.execute(Queries.read("spaces.sql")["drop_space"], {"number": space.number})

    with connect(url) as connection:
        with_brief_locks(connection, work)
