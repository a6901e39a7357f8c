"""python -m server migrate --adopt: turn a legacy database into one of Twinlens, in place.

Products and media stay, with their ids and whatever columns they have beside ours. The legacy vectors become an archive
that no search reads. They are copied into the artifact's space only when they agree with a sample of their pictures,
embedded again. All of it is one transaction: whatever goes wrong, the database is as it was.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import psycopg
from psycopg import Connection, sql
from psycopg.rows import TupleRow, kwargs_row

from server.artifact.artifact import Artifact
from server.database import migrations
from server.database.migrations import Migration, load_migrations
from server.database.queries import Queries
from server.doctor.comparison import AGREES, Pictures, StoredVector, compare
from server.doctor.legacy import Tables, read_tables
from server.errors import DatabaseUnusable
from server.settings import Settings
from server.spaces import spaces
from server.spaces.spaces import SpaceDescription
from server.wording import counted

Row = TypeVar("Row")

SAMPLE = 64
LEAST_SAMPLE = 16
"""The least number of pictures that vectors are compared with before they move; all of them where there are fewer."""

# So many times more vectors are drawn than are needed: the bytes of some pictures may be missing.
_DRAWN = 4

_TEXT, _TIME = "text", "timestamp with time zone"

# The types of the columns that migration 1 makes. Other columns are the older system's own, and stay.
_TYPES: Mapping[str, Mapping[str, str]] = {
    "products": {
        **dict.fromkeys(("id", "clientId", "name", "sku"), _TEXT),
        "isActive": "boolean",
        **dict.fromkeys(("createdAt", "updatedAt"), _TIME),
    },
    "media": {
        **dict.fromkeys(
            ("id", "productId", "clientId", "kind", "status", "s3Key", "thumbnailKey", "contentType"), _TEXT
        ),
        "bytes": "bigint",
        "width": "integer",
        "height": "integer",
        "contentDigest": "bytea",
        "createdAt": _TIME,
    },
}

# Columns that later migrations add. A legacy column of the same name is renamed.
_LATER = {"products": ("attributes", "apiId"), "media": ("revision", "apiId")}

# Unique sets of columns that Twinlens' own constraints replace.
_REPLACED = ({"sku"}, {"id", "clientId"}, {"clientId", "sku"}, {"productId", "contentDigest"})


@dataclass(frozen=True)
class Verdict:
    """What became of the legacy vectors: how many moved, and why, as a sentence."""

    moved: int
    sentence: str


@dataclass(frozen=True)
class _ForeignKey:
    """`column` of the table `target` is what it refers to."""

    table: str
    name: str
    target: str
    column: str
    follows_deletions: bool


@dataclass(frozen=True)
class _Constraint:
    """`kind` is a letter of PostgreSQL's: c check, f foreign key, p primary key, u unique, x exclusion."""

    name: str
    kind: str
    columns: list[str]


@dataclass(frozen=True)
class _Totals:
    """How much was adopted; `images` are ready, `vectors` are archived."""

    products: int
    clients: int
    media: int
    images: int
    vectors: int


@dataclass(frozen=True)
class _Archived:
    """How many rows of a table were archived for a reason. `kept`: the rows are still there, changed."""

    table: str
    reason: str
    kept: bool
    count: int


def adopt(
    connection: Connection[TupleRow], settings: Settings, artifact: Artifact, pictures: Pictures, sample: int
) -> list[str]:
    """Adopt a legacy database in one transaction; a summary of what was done, line by line.

    `sample`: the number of pictures that the legacy vectors are compared with. Raises ArtifactInvalid, and
    DatabaseUnusable where the tables cannot be adopted as they are; then nothing was changed.
    """
    try:
        with connection.transaction():
            migrations.prepare(connection)
            adoption = Adoption(connection)
            adoption.convert()
            first, *others = load_migrations()
            migrations.apply(connection, first, rest_of(first))
            for migration in others:
                migrations.apply(connection, migration)
            verdict = adoption.judge(settings, artifact, pictures, sample)
            adoption.run("analyse")
            return adoption.summary(settings, verdict)
    except psycopg.errors.LockNotAvailable as exc:
        raise DatabaseUnusable(
            "Something else is using these tables. Stop the older application, and try again; nothing was changed."
        ) from exc
    except psycopg.OperationalError:
        raise
    except psycopg.Error as exc:
        detail = f" {exc.diag.message_detail}" if exc.diag.message_detail else ""
        raise DatabaseUnusable(
            f"The older tables cannot be adopted as they are, and nothing was changed: {exc.diag.message_primary}."
            f"{detail}"
        ) from exc


def rest_of(migration: Migration) -> str:
    """The text of migration 1 without the statements that make the tables products and media.

    Raises DatabaseUnusable when the migration no longer has these statements.
    """
    text = migration.text
    for table in ("products", "media"):
        text, count = re.subn(rf"^CREATE TABLE {table} \(\n.*?^\);\n", "", text, flags=re.MULTILINE | re.DOTALL)
        if count != 1:
            raise DatabaseUnusable(f"The migration {migration.name} no longer makes the table {table} as it did.")
    return text


class Adoption:
    """The steps that turn the tables of a legacy database into Twinlens' own, and the changes that they report."""

    def __init__(self, connection: Connection[TupleRow]) -> None:
        self._connection = connection
        self._queries = Queries.read("adopt.sql")
        self._changes: list[str] = []

    def run(self, name: str, **parameters: object) -> int:
        """Run a statement; the number of rows that it changed."""
        return self._connection.execute(self._queries[name], parameters).rowcount

    def _rows(self, record: Callable[..., Row], name: str, **parameters: object) -> list[Row]:
        """What the statement gives: of each row the record that `record` makes of its columns, by name."""
        with self._connection.cursor(row_factory=kwargs_row(record)) as cursor:
            return cursor.execute(self._queries[name], parameters).fetchall()

    def _values(self, name: str, **parameters: object) -> list[str]:
        """What a statement of one column gives."""
        return [value for (value,) in self._connection.execute(self._queries[name], parameters)]

    def _alter(self, statement: str, **names: str) -> None:
        """Run a statement with names in it; `type` is one of PostgreSQL's own words."""
        parts = {key: sql.SQL(name) if key == "type" else sql.Identifier(name) for key, name in names.items()}
        self._connection.execute(self._queries.composed(statement, **parts))

    # --- the two tables ----------------------------------------------------------------------------------------------

    def convert(self) -> None:
        """Give products and media the form that migration 1 gives them, and archive image_embeddings.

        Raises DatabaseUnusable.
        """
        self.run("prepare")
        self.run("lock_tables")
        tables = read_tables(self._connection)
        cascades = self._refuse_what_would_break(tables)
        self._drop_obstacles()
        self.run("make_archive")
        for table, later in _LATER.items():
            for column in later:
                if tables.has(table, column):
                    wanted = f"older{column[0].upper()}{column[1:]}"
                    self._alter("rename_column", table=table, column=column, wanted=wanted)
                    self._changes.append(f"{table}.{column} is called {wanted} now: Twinlens has another {column}.")
        self._change_types(tables)
        self.run("add_columns")
        for table, statement in (("products", "move_products"), ("media", "move_media")):
            moved = self.run(statement)
            if moved and (followers := [key.table for key in cascades if key.target == table]):
                raise DatabaseUnusable(
                    f"{moved:,} {table} cannot be kept (python -m server doctor says which), and rows of "
                    f"{', '.join(followers)} would go or change with them: repair these rows first. Nothing was "
                    "changed."
                )
        for statement in ("clear_skus", "complete_products", "archive_unknown_values", "correct_media"):
            self.run(statement)
        self._constrain()
        self.run("archive_vectors")

    def _refuse_what_would_break(self, tables: Tables) -> list[_ForeignKey]:
        """The foreign keys of other tables that follow deletions.

        Raises DatabaseUnusable where views or foreign keys of other tables would break.
        """
        if views := self._values("views_of_vectors"):
            raise DatabaseUnusable(
                f"Views read image_embeddings, and would go on reading the older vectors: {', '.join(views)}. Drop "
                "them first, and create them again afterwards. Nothing was changed."
            )
        keys = self._rows(_ForeignKey, "foreign_keys_from_elsewhere")
        for key in keys:
            kind = tables.columns[key.target][key.column]
            if _TYPES[key.target].get(key.column, kind) != kind and not kind.startswith(("character", "text")):
                raise DatabaseUnusable(
                    f"The table {key.table} refers to {key.target}.{key.column} ({key.name}), which is of the type "
                    f"{kind} and becomes text. Drop that constraint first, make its column text, and add it again "
                    "afterwards. Nothing was changed."
                )
        return [key for key in keys if key.follows_deletions]

    def _drop_obstacles(self) -> None:
        """Drop what keeps the tables from being given Twinlens' form, and Twinlens from adding rows to them."""
        for table, types in _TYPES.items():
            for one in self._rows(_Constraint, "constraints", table=table):
                columns = set(one.columns)
                if one.kind == "p" and columns == {"id"}:
                    continue
                if (
                    one.kind == "p"
                    or (one.kind in "cf" and columns <= set(types))
                    or (one.kind in "ux" and columns in _REPLACED)
                ):
                    self._alter("drop_constraint", table=table, name=one.name)
            for name, unique in self._connection.execute(self._queries["unique_indexes"], {"table": table}).fetchall():
                if set(unique) in _REPLACED:
                    self._alter("drop_index", name=name)
        for one in self._rows(_Constraint, "constraints", table="image_embeddings"):
            if one.kind == "f":
                self._alter("drop_constraint", table="image_embeddings", name=one.name)
        for name in self._values("vector_indexes"):
            self._alter("drop_index", name=name)

    def _change_types(self, tables: Tables) -> None:
        for table, types in _TYPES.items():
            for column, wanted in types.items():
                if not tables.has(table, column):
                    continue
                if column == "id":
                    self._alter("drop_identity", table=table, column=column)
                else:  # the older application may rely on the default of an id
                    self._alter("drop_default", table=table, column=column)
                if tables.columns[table][column] == wanted:
                    continue
                if wanted == "bytea":
                    self.run("archive_digests")
                    self.run("change_digest")
                else:
                    self._alter("change_type", table=table, column=column, type=wanted)

    def _constrain(self) -> None:
        for table in _TYPES:
            keys = [one.name for one in self._rows(_Constraint, "constraints", table=table) if one.kind == "p"]
            wanted = f"{table}_pkey"
            if not keys:
                self._alter("add_primary_key", table=table, wanted=wanted)
            elif keys != [wanted]:
                self._alter("rename_constraint", table=table, name=keys[0], wanted=wanted)
            for column in self._values("strict_columns", table=table):
                if column == "id":
                    continue
                self._alter("drop_not_null", table=table, column=column)
                if column not in _TYPES[table]:
                    self._changes.append(f"{table}.{column} may be NULL now: Twinlens adds rows without it.")
        self.run("constrain")

    # --- the vectors -------------------------------------------------------------------------------------------------

    def judge(self, settings: Settings, artifact: Artifact, pictures: Pictures, sample: int) -> Verdict:
        """Copy the legacy vectors into the artifact's space, if they agree with it. Raises ArtifactInvalid."""
        space = artifact.space(settings.precision)
        self.run("make_movable")
        movable = self.run("find_movable", dimensions=space.dimensions)
        if not movable:
            return Verdict(0, f"None of them can be of the artifact {artifact.manifest.name}.")
        drawn = self._rows(StoredVector.of_row, "sample", count=_DRAWN * sample)
        found = compare(settings, artifact, pictures, drawn, sample)
        compared, needed = len(found.cosines), min(LEAST_SAMPLE, movable)
        if compared < needed:
            return Verdict(
                0,
                f"They were not compared with what {artifact.manifest.name} makes of the pictures: of "
                f"{min(len(drawn), sample):,}, {compared:,} are at hand and can be read, and {needed:,} are needed "
                "(--media DIR).",
            )
        lowest = (
            f"{compared:,} pictures were embedded again with {artifact.manifest.name}, and the lowest cosine is "
            f"{found.lowest:.4f}"
        )
        if wrong := found.disagreeing:
            return Verdict(0, f"{lowest}: {len(wrong):,} of them disagree ({AGREES} is needed).")
        row = spaces.open_first(self._connection, SpaceDescription.of(artifact, settings.precision))
        moving = self._queries.of(row.table)["move_vectors"]
        moved = self._connection.execute(moving, {"number": row.number}).rowcount
        return Verdict(moved, f"{lowest}: the vectors are of its space {row.short_id}.")

    def summary(self, settings: Settings, verdict: Verdict) -> list[str]:
        """What was adopted, what was archived, and what to do next, line by line."""
        (totals,) = self._rows(_Totals, "count_all")
        missing = totals.images - verdict.moved
        lines = [
            f"Adopted: {totals.products:,} products and {totals.media:,} media of "
            f"{counted(totals.clients, 'client')}, with their ids.",
            *self._changes,
        ]
        if archived := self._rows(_Archived, "count_archived"):
            lines.append("Kept in full in twinlens_older_rows, with the reason:")
            lines += [
                f"- {one.table}, {'changed' if one.kept else 'moved there'}: {one.count:,}, because {one.reason}"
                for one in archived
            ]
        lines.append(
            f"Older vectors: {totals.vectors:,}, archived in twinlens_older_embeddings, which no search reads. "
            f"{verdict.sentence}"
        )
        if verdict.moved:
            lines.append(f"Moved into that space, at unit length: {verdict.moved:,}.")
        lines.append(f"To be embedded: {missing:,} images.")
        if missing:
            where = "TWINLENS_MEDIA_URL" if settings.media_url else f"{settings.data / 'media'} (TWINLENS_MEDIA_URL)"
            lines.append(
                f"Next: python -m server reembed --artifact {shlex.quote(str(settings.model))}, or start the server, "
                f"which does it beside its work. Both read the pictures from {where}, by their s3Key."
            )
        else:
            lines.append("Next: start the server.")
        return lines
