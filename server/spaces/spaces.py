"""Embedding spaces as the database holds them: one row and one table of vectors each, and one of them live.

A space is registered, and is filled while another one is live. Then it takes the live one's place (see switch.py), and
the space that was live before is kept as the way back, until it is dropped. A media is missing in a space when it is a
ready image without a vector there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from psycopg import Connection
from psycopg.rows import TupleRow, class_row, dict_row, scalar_row

from server.artifact.artifact import Artifact
from server.catalogue.rows import SpaceRow
from server.database.connections import connect
from server.database.locks import LOCK_SPACES, LOCKS, with_brief_locks
from server.database.queries import Queries
from server.errors import ArtifactInvalid, SpaceNotLive, SpaceRefused

State = Literal["live", "retired", "filling"]

MOST_DIMENSIONS = 4000
"""Of a halfvec in an HNSW index."""

EARLIEST = "0"
LATEST = str(2**64 - 1)
"""Transaction ids: no transaction has a smaller one, or a larger one."""

_LEAST_PREFIX = 4


@dataclass(frozen=True)
class SpaceDescription:
    """What the database records of an artifact's space. Raises ArtifactInvalid when it cannot hold such vectors."""

    id: str
    """64 hex digits."""
    dimensions: int
    model: str
    manifest: Mapping[str, Any]
    artifact_path: str

    def __post_init__(self) -> None:
        if not 1 <= self.dimensions <= MOST_DIMENSIONS:
            raise ArtifactInvalid(
                f"The model makes vectors of {self.dimensions:,} dimensions; the database can index at most "
                f"{MOST_DIMENSIONS:,}."
            )

    @classmethod
    def of(cls, artifact: Artifact, precision: str) -> SpaceDescription:
        """The space of an artifact in one precision. Raises ArtifactInvalid when it lacks the precision."""
        space = artifact.space(precision)
        return cls(
            id=space.id,
            dimensions=space.dimensions,
            model=artifact.manifest.model,
            manifest=artifact.manifest.as_written(),
            artifact_path=str(artifact.folder.resolve()),
        )


@dataclass(frozen=True)
class ListedSpace(SpaceRow):
    """A space with what has become of it. `artifact_path`: where a server last saw its artifact."""

    was_live: bool
    artifact_path: str

    @property
    def state(self) -> State:
        return "live" if self.live else "retired" if self.was_live else "filling"


@dataclass(frozen=True)
class Missing:
    """How many media a space lacks, and some of their ids."""

    untried: int = 0
    """Nobody has tried to embed these in this space."""
    lost: int = 0
    """These could not be embedded, but have a vector in the live space: searches would no longer find them."""
    unreadable: int = 0
    """These could not be embedded, and have no vector in the live space either."""
    examples: tuple[str, ...] = ()
    """Some of the untried and the lost."""

    @property
    def total(self) -> int:
        return self.untried + self.lost + self.unreadable


@dataclass(frozen=True)
class Horizon:
    """The bounds of what is visible at a moment, as transaction ids: PostgreSQL's `xmin` and `xmax` of a snapshot."""

    complete_below: str
    """Every transaction below this one has ended: what it added is visible, or was rolled back."""
    unseen_from: str
    """Nothing that this transaction, or a later one, added is visible."""


def queries_of(space: SpaceRow) -> Queries:
    """The statements of spaces.sql for this space's table."""
    return Queries.read("spaces.sql").of(space.table)


# --- registering -----------------------------------------------------------------------------------------------------


def open_space(url: str, described: SpaceDescription, *, or_retired: bool = False) -> SpaceRow:
    """The row of an artifact's space, which must be the live one; a database without a live space accepts it as such.

    `or_retired`: a space that was live before is accepted too, for the workers of a server that was started when it
    was. Safe to call from many processes at once; needs a migrated database. Raises SpaceNotLive when another space is
    live, ArtifactInvalid when the space is known with other dimensions, DatabaseUnusable.
    """
    queries = Queries.read("spaces.sql")
    with connect(url) as connection, connection.transaction():
        lock_spaces(connection)
        live = find_live_space(connection)
        if live is None:
            return _register_as_live(connection, described)
        if live == described.id:
            return _register(connection, described)
        row = _find(connection, described.id)
        if row is not None and or_retired:
            with connection.cursor(row_factory=scalar_row) as cursor:
                if cursor.execute(queries["was_live"], {"number": row.number}).fetchone():
                    return row
        raise SpaceNotLive(described.id, live, described.artifact_path)


def require_live(connection: Connection[TupleRow], described: SpaceDescription) -> None:
    """That `open_space` would accept the artifact's space. Changes nothing, and reads databases of every older version.

    Raises SpaceNotLive, ArtifactInvalid.
    """
    queries = Queries.read("spaces.sql")
    with connection.cursor(row_factory=scalar_row) as cursor:
        if not cursor.execute(queries["there_are_spaces"]).fetchone():
            return
    live = find_live_space(connection)
    if live not in (None, described.id):
        raise SpaceNotLive(described.id, str(live), described.artifact_path)
    row = _find(connection, described.id)
    if row is not None:
        _require_dimensions(row, described)


def open_first(connection: Connection[TupleRow], described: SpaceDescription) -> SpaceRow:
    """As `open_space`, for a database that has no space yet, within a transaction of the caller's."""
    lock_spaces(connection)
    return _register_as_live(connection, described)


def register(url: str, described: SpaceDescription) -> SpaceRow:
    """The row of an artifact's space, made where there is none; the live space stays live.

    Raises SpaceRefused when other transactions hold the tables for so long that the space cannot be made,
    ArtifactInvalid when the space is known with other dimensions, DatabaseUnusable.
    """

    def work(connection: Connection[TupleRow]) -> SpaceRow:
        lock_spaces(connection)
        return _register(connection, described)

    with connect(url) as connection:
        return with_brief_locks(connection, work)


def lock_spaces(connection: Connection[TupleRow]) -> None:
    """Until the end of the transaction, nobody else registers, switches or drops a space."""
    connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", (LOCKS, LOCK_SPACES))


def find_live_space(connection: Connection[TupleRow]) -> str | None:
    """The id of the live space, if there is one."""
    with connection.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute(Queries.read("spaces.sql")["find_live_space"]).fetchone()


def _find(connection: Connection[TupleRow], space_id: str) -> SpaceRow | None:
    with connection.cursor(row_factory=class_row(SpaceRow)) as cursor:
        return cursor.execute(Queries.read("spaces.sql")["find_space"], {"id": space_id}).fetchone()


def _register(connection: Connection[TupleRow], described: SpaceDescription) -> SpaceRow:
    queries = Queries.read("spaces.sql")
    parameters: dict[str, Any] = {
        "id": described.id,
        "dimensions": described.dimensions,
        "model": described.model,
        "manifest": json.dumps(described.manifest),
        "path": described.artifact_path,
    }
    if _find(connection, described.id) is None:
        connection.execute(queries["register_space"], parameters)
    row = _find(connection, described.id)
    if row is None:
        raise SpaceRefused("The database did not register the space: somebody else's trigger or rule is in the way.")
    _require_dimensions(row, described)
    connection.execute(queries["note_artifact"], {**parameters, "number": row.number})
    return row


def _require_dimensions(row: SpaceRow, described: SpaceDescription) -> None:
    if row.dimensions != described.dimensions:
        raise ArtifactInvalid(
            f"The artifact has {described.dimensions:,} dimensions, but the database knows its space with "
            f"{row.dimensions:,}."
        )


def _register_as_live(connection: Connection[TupleRow], described: SpaceDescription) -> SpaceRow:
    row = _register(connection, described)
    connection.execute(Queries.read("spaces.sql")["make_live"], {"number": row.number})
    return replace(row, live=True)


# --- what there is ---------------------------------------------------------------------------------------------------


def list_spaces(url: str) -> list[ListedSpace]:
    """All spaces, in the order in which they were registered. Raises DatabaseUnusable."""
    with connect(url) as connection, connection.cursor(row_factory=class_row(ListedSpace)) as cursor:
        return cursor.execute(Queries.read("spaces.sql")["list_spaces"]).fetchall()


def choose(url: str, prefix: str) -> ListedSpace:
    """The one space whose id begins with these digits, at least four. Raises SpaceRefused, DatabaseUnusable."""
    spaces = list_spaces(url)
    found = [one for one in spaces if one.id.startswith(prefix.lower())] if len(prefix) >= _LEAST_PREFIX else []
    if len(found) == 1:
        return found[0]
    there = ", ".join(f"{one.short_id} ({one.state})" for one in spaces) or "none"
    what = "More than one space's id begins" if found else "No space's id begins"
    raise SpaceRefused(f"{what} with {prefix!r} (at least {_LEAST_PREFIX} digits are needed). There are: {there}.")


def count_vectors(url: str, space: SpaceRow) -> int:
    """How many vectors the space holds. Raises DatabaseUnusable."""
    with connect(url) as connection, connection.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute(queries_of(space)["count_vectors"]).fetchone() or 0


def missing(url: str, space: SpaceRow) -> Missing:
    """What the space lacks, by looking at every media. Raises DatabaseUnusable."""
    with connect(url) as connection:
        return count_missing(connection, space)


def count_missing(connection: Connection[TupleRow], space: SpaceRow) -> Missing:
    """As `missing`, on a connection of the caller's."""
    with connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(queries_of(space)["count_missing"], {"number": space.number}).fetchone()
    if row is None:
        return Missing()
    return Missing(row["untried"], row["lost"], row["unreadable"], tuple(row["examples"] or ()))
