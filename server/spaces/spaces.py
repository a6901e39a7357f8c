"""Embedding spaces as the database holds them: one row and one table of vectors each, and one of them live.

A space is registered, and is filled while another one is live; it is switched to, in one transaction that verifies that
nothing is missing; once another has taken its place it is kept as the way back, until it is dropped. A media is missing
in a space when it is a ready image without a vector there.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from psycopg import Connection
from psycopg.rows import TupleRow, class_row

from server.artifact.artifact import Artifact
from server.catalogue.rows import SpaceRow
from server.database.connections import connect
from server.database.locks import LOCK_PATIENCE, LOCK_SPACES, LOCKS, SECOND_LOCK_WAIT, briefly, wait_at_most
from server.database.queries import Queries
from server.errors import (
    ArtifactInvalid,
    SpaceIncomplete,
    SpaceNotLive,
    SpaceRefused,
)

State = Literal["live", "retired", "filling"]

MOST_DIMENSIONS = 4000  # of a halfvec in an HNSW index

ALL_TIME = ("0", str(2**64 - 1))
"""As a horizon: everything there is."""

_STANDSTILL = LOCK_PATIENCE - 0.3
_LONGEST_CATCHING_UP = 3600.0
# Backfilled while writers wait, where they would otherwise always be ahead.
_FEW = 16
_SHORT = 12
_LEAST_PREFIX = 4
_EXAMPLES = 3


Fill = Callable[[Sequence[str], float | None], None]
"""Tries to embed these media and records those that cannot be, within so many seconds where it says so."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Listed:
    """A space with what has become of it; `artifact_path` is where its artifact was last seen."""

    number: int
    id: str
    dimensions: int
    model: str
    live: bool
    was_live: bool
    artifact_path: str

    @property
    def row(self) -> SpaceRow:
        return SpaceRow(self.number, self.id, self.dimensions, self.model, self.live)

    @property
    def state(self) -> State:
        return "live" if self.live else "retired" if self.was_live else "filling"


@dataclass(frozen=True)
class Missing:
    """What a space lacks. `untried`: media that nobody has tried to embed in it; `lost`: that could not be embedded,
    but have a vector in the live space; `unreadable`: that have none there either; examples of the first two."""

    untried: int
    lost: int
    unreadable: int
    examples: tuple[str, ...]


def queries_of(space: SpaceRow) -> Queries:
    """The statements of spaces.sql for this space's table."""
    return Queries.read("spaces.sql").of(space.table)


# --- the start of a server -------------------------------------------------------------------------------------------


def open_space(
    url: str,
    *,
    space_id: str,
    dimensions: int,
    model: str,
    manifest: Mapping[str, Any],
    artifact_path: str,
    or_retired: bool = False,
) -> SpaceRow:
    """The row of an artifact's space, which must be the live one; a database without a live space takes it as such.

    `space_id`: 64 hex digits. `or_retired`: one that was live will do, as for the worker of a server that was started
    when it was. Safe to call from many processes at once; needs a migrated database. Raises SpaceNotLive
    when another space is live, ArtifactInvalid when the database cannot hold such vectors, DatabaseUnusable when the
    database cannot be reached.
    """
    parameters = _parameters(space_id, dimensions, model, manifest, artifact_path)
    queries = Queries.read("spaces.sql")
    with connect(url) as connection, connection.transaction():
        _lock_spaces(connection)
        live = connection.execute(queries["find_live_space"]).fetchone()
        if live is not None and live[0] != space_id:
            row = _find(connection, queries, space_id)
            if row is not None and or_retired:
                retired = connection.execute(queries["was_live"], {"number": row.number}).fetchone()
                if retired is not None and retired[0]:
                    return row
            raise SpaceNotLive(space_id, live[0], artifact_path)
        row = _register(connection, queries, parameters)
        if live is None:
            connection.execute(queries["make_live"], {"number": row.number})
            row = SpaceRow(row.number, row.id, row.dimensions, row.model, live=True)
    return row


def open_first(
    connection: Connection[TupleRow],
    *,
    space_id: str,
    dimensions: int,
    model: str,
    manifest: Mapping[str, Any],
    artifact_path: str,
) -> SpaceRow:
    """As `open_space`, for a database that has no space yet, within a transaction of the caller's."""
    queries = Queries.read("spaces.sql")
    _lock_spaces(connection)
    row = _register(connection, queries, _parameters(space_id, dimensions, model, manifest, artifact_path))
    connection.execute(queries["make_live"], {"number": row.number})
    return SpaceRow(row.number, row.id, row.dimensions, row.model, live=True)


def register(
    url: str, *, space_id: str, dimensions: int, model: str, manifest: Mapping[str, Any], artifact_path: str
) -> SpaceRow:
    """The row of an artifact's space, made where there is none; whichever is live stays so. As `open_space` otherwise.

    Raises SpaceRefused when the tables are held by somebody else for so long that it cannot be made.
    """
    parameters = _parameters(space_id, dimensions, model, manifest, artifact_path)
    queries = Queries.read("spaces.sql")

    def work(connection: Connection[TupleRow]) -> SpaceRow:
        _lock_spaces(connection)
        return _register(connection, queries, parameters)

    with connect(url) as connection:
        return briefly(connection, work)


def _parameters(
    space_id: str, dimensions: int, model: str, manifest: Mapping[str, Any], artifact_path: str
) -> dict[str, Any]:
    if not 1 <= dimensions <= MOST_DIMENSIONS:
        raise ArtifactInvalid(
            f"The model makes vectors of {dimensions:,} dimensions; the database can index at most {MOST_DIMENSIONS:,}."
        )
    return {
        "id": space_id,
        "dimensions": dimensions,
        "model": model,
        "manifest": json.dumps(manifest),
        "path": artifact_path,
    }


def _lock_spaces(connection: Connection[TupleRow]) -> None:
    connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", (LOCKS, LOCK_SPACES))


def _find(connection: Connection[TupleRow], queries: Queries, space_id: str) -> SpaceRow | None:
    with connection.cursor(row_factory=class_row(SpaceRow)) as cursor:
        return cursor.execute(queries["find_space"], {"id": space_id}).fetchone()


def _register(connection: Connection[TupleRow], queries: Queries, parameters: Mapping[str, Any]) -> SpaceRow:
    if _find(connection, queries, parameters["id"]) is None:
        connection.execute(queries["register_space"], parameters)
    row = _find(connection, queries, parameters["id"])
    if row is None or row.dimensions != parameters["dimensions"]:
        raise ArtifactInvalid(
            f"The artifact has {parameters['dimensions']:,} dimensions, but the database knows its space with "
            f"{row.dimensions if row else 0:,}."
        )
    connection.execute(queries["note_artifact"], {**parameters, "number": row.number})
    return row


# --- what there is ---------------------------------------------------------------------------------------------------


def list_spaces(url: str) -> list[Listed]:
    """All spaces, in the order they came. Raises DatabaseUnusable."""
    with connect(url) as connection, connection.cursor(row_factory=class_row(Listed)) as cursor:
        return cursor.execute(Queries.read("spaces.sql")["list_spaces"]).fetchall()


def choose(url: str, prefix: str) -> Listed:
    """The one space whose id begins so, with at least four digits. Raises SpaceRefused."""
    spaces = list_spaces(url)
    found = [one for one in spaces if one.id.startswith(prefix.lower())] if len(prefix) >= _LEAST_PREFIX else []
    if len(found) == 1:
        return found[0]
    there = ", ".join(f"{one.id[:_SHORT]} ({one.state})" for one in spaces) or "none"
    what = "More than one space's id begins" if found else "No space's id begins"
    raise SpaceRefused(f"{what} with {prefix!r} (at least {_LEAST_PREFIX} digits are needed). There are: {there}.")


def count_vectors(url: str, space: SpaceRow) -> int:
    """How many vectors the space holds. Raises DatabaseUnusable."""
    with connect(url) as connection:
        row = connection.execute(queries_of(space)["count_vectors"]).fetchone()
    return int(row[0]) if row else 0


def missing(url: str, space: SpaceRow) -> Missing:
    """What the space lacks, by looking at every media. Raises DatabaseUnusable."""
    with connect(url) as connection:
        return _missing(connection, space)


def _missing(connection: Connection[TupleRow], space: SpaceRow) -> Missing:
    row = connection.execute(queries_of(space)["count_missing"], {"number": space.number}).fetchone()
    untried, lost, unreadable, examples = row or (0, 0, 0, None)
    return Missing(untried, lost, unreadable, tuple(examples or ()))


# --- the switch ------------------------------------------------------------------------------------------------------


def switch(url: str, space: Listed, *, leave_out_unreadable: bool = False, fill: Fill | None = None) -> None:
    """Make a space the live one, in a transaction that verifies that nothing is missing in it.

    Every media is looked at once while all goes on; what was added since then is looked at again with the table of
    media locked against writers, for milliseconds. `fill`: embeds what has come in between; without it that is a reason
    to refuse, as is everything else that is missing. `leave_out_unreadable`: media that could not be embedded are no
    longer found, instead of being a reason to refuse.

    Raises SpaceIncomplete, and SpaceRefused when the table is held by somebody else all the time.
    """
    row, queries = space.row, queries_of(space.row)

    def sort_out(rows: Sequence[tuple[str, bool, bool]]) -> list[str]:
        """What is still to be tried. Raises SpaceIncomplete for what was tried in vain and would be lost."""
        lost = [] if leave_out_unreadable else [media for media, tried, shown in rows if tried and shown]
        if lost:
            raise _incomplete(space, Missing(0, len(lost), 0, tuple(lost[:_EXAMPLES])))
        return [media for media, tried, _ in rows if not tried]

    def added_since(connection: Connection[TupleRow], since: str) -> list[str]:
        _, until = _horizon(connection, queries)
        parameters = {"number": row.number, "since": since, "until": until}
        return sort_out(connection.execute(queries["missing_since"], parameters).fetchall())

    def of_these(connection: Connection[TupleRow], media: list[str]) -> list[str]:
        parameters = {"number": row.number, "ids": media}
        return sort_out(connection.execute(queries["missing_of_these"], parameters).fetchall()) if media else []

    def cut_over(connection: Connection[TupleRow]) -> None:
        asked = time.monotonic()
        _lock_spaces(connection)
        connection.execute("LOCK TABLE media IN SHARE MODE")
        wait_at_most(connection, SECOND_LOCK_WAIT)
        # With statistics that lag behind, these would be chosen, and look at every media while writers wait.
        connection.execute("SET LOCAL enable_seqscan = off")
        connection.execute("SET LOCAL enable_hashjoin = off")
        connection.execute("SET LOCAL enable_mergejoin = off")
        untried = added_since(connection, since)
        if untried and fill is not None and len(untried) <= _FEW:
            fill(untried, _STANDSTILL - (time.monotonic() - asked))
            untried = added_since(connection, since)
        if untried:
            raise _StillMissing(untried)
        connection.execute(queries["make_live"], {"number": row.number})

    with connect(url) as connection:
        # Whatever was added below `since` is in the space, or excused, or in `pending`.
        since, _ = _horizon(connection, queries)
        found = _missing(connection, row)
        if (found.untried and fill is None) or (found.lost and not leave_out_unreadable):
            raise _incomplete(space, found)
        pending = added_since(connection, ALL_TIME[0]) if found.untried else []
        deadline = time.monotonic() + _LONGEST_CATCHING_UP
        while True:
            if pending:
                if fill is None or time.monotonic() > deadline:
                    raise _incomplete(space, Missing(len(pending), 0, 0, tuple(pending[:_EXAMPLES])))
                fill(pending, None)
            latest, _ = _horizon(connection, queries)
            pending = of_these(connection, pending) + added_since(connection, since)
            since = latest
            if not pending:
                try:
                    briefly(connection, cut_over)
                except _StillMissing as exc:
                    pending = exc.media
                else:
                    return


class _StillMissing(Exception):
    def __init__(self, media: list[str]) -> None:
        super().__init__(f"{len(media)} media")
        self.media = media


def _incomplete(space: Listed, found: Missing) -> SpaceIncomplete:
    more = "..." if found.untried + found.lost > len(found.examples) else ""
    examples, short = ", ".join(found.examples) + more, space.id[:_SHORT]
    if found.lost:
        return SpaceIncomplete(
            f"Nothing was switched: of the pictures that are found now, {found.lost:,} could not be embedded in the "
            f"space {short} and would be lost to every search ({examples}). The table twinlens_unreadable says why. "
            "Mend or delete them and run this again, or give --leave-out-unreadable to switch without them."
        )
    return SpaceIncomplete(
        f"Nothing was switched: {found.untried:,} pictures are not embedded in the space {short} yet and would be lost "
        f"to every search ({examples}). This embeds them and then switches: python -m server reembed --artifact "
        f"{space.artifact_path}"
    )


def _horizon(connection: Connection[TupleRow], queries: Queries) -> tuple[str, str]:
    row = connection.execute(queries["horizon"]).fetchone()
    return (row[0], row[1]) if row else ALL_TIME


# --- the end of a space ----------------------------------------------------------------------------------------------


def drop(url: str, space: Listed) -> None:
    """Take a space out of the database: its vectors, its indexes, its records. Servers in it are no longer ready.

    Raises SpaceRefused for the live one.
    """
    queries = Queries.read("spaces.sql")

    def work(connection: Connection[TupleRow]) -> None:
        # A change of a product walks through the tables of all spaces, and must not find one gone on its way. And a
        # table that refers to media goes only when nobody reads media.
        connection.execute("LOCK TABLE products IN SHARE MODE")
        wait_at_most(connection, SECOND_LOCK_WAIT)
        connection.execute("LOCK TABLE media IN ACCESS EXCLUSIVE MODE")
        _lock_spaces(connection)
        live = connection.execute(queries["find_live_space"]).fetchone()
        if live is not None and live[0] == space.id:
            raise SpaceRefused(
                f"The space {space.id[:_SHORT]} is the live one: every search needs it. Switch to another one first: "
                "python -m server spaces switch SPACE"
            )
        connection.execute(queries["drop_space"], {"number": space.number})

    with connect(url) as connection:
        briefly(connection, work)


# --- the command -----------------------------------------------------------------------------------------------------


def claim_space(url: str, artifact: Artifact, precision: str, *, or_retired: bool = False) -> SpaceRow:
    """The database's row of the artifact's space; an empty database takes the space as its live one.

    `or_retired`: one that was live will do. Raises SpaceNotLive, naming both, when the database holds another.
    """
    return open_space(url, **about_space(artifact, precision), or_retired=or_retired)


def about_space(artifact: Artifact, precision: str) -> dict[str, Any]:
    """What the database is told of an artifact's space."""
    space = artifact.space(precision)
    return {
        "space_id": space.id,
        "dimensions": space.dimensions,
        "model": artifact.manifest.model,
        "manifest": msgspec.to_builtins(artifact.manifest),
        "artifact_path": str(artifact.folder.resolve()),
    }
