"""python -m server migrate --adopt: make a database of the older system one of Twinlens', in place.

Products and media stay, with their ids and whatever columns they have beside ours. The older vectors become an archive
that no search reads; they move into the artifact's space only where a sample of pictures, embedded anew, agrees with
them. All of it is one transaction: whatever goes wrong, the database is as it was.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import psycopg
from psycopg import Connection, sql
from psycopg.rows import TupleRow

from server.artifact.artifact import Artifact
from server.database import migrations
from server.database.migrations import Migration, load_migrations
from server.database.queries import Queries
from server.doctor.comparison import AGREES, Kept, Pictures, compare
from server.doctor.legacy import Tables, read_tables
from server.errors import DatabaseUnusable
from server.settings import Settings
from server.spaces import spaces
from server.spaces.spaces import SpaceDescription

SAMPLE = 64
LEAST_SAMPLE = 16
"""So many pictures must be at hand, or all of them where there are fewer, before vectors are believed."""

# More are drawn than are needed: the bytes of some may not be at hand.
_DRAWN = 4

_TEXT, _TIME = "text", "timestamp with time zone"

# What the columns are that migration 1 makes. Those not named here are the older system's own, and stay.
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

# Columns that later migrations add: one of the same name is another thing, and gives way.
_LATER = {"products": ("attributes",), "media": ("revision",)}

# Unique sets of columns that ours replace.
_REPLACED = ({"sku"}, {"id", "clientId"}, {"clientId", "sku"}, {"productId", "contentDigest"})


@dataclass(frozen=True)
class Judged:
    """What became of the older vectors: how many moved, and why, as a sentence."""

    moved: int
    sentence: str


def adopt(
    connection: Connection[TupleRow], settings: Settings, artifact: Artifact, pictures: Pictures, sample: int
) -> list[str]:
    """All of it, in one transaction; what is to be said of it, by lines."""
    try:
        with connection.transaction():
            work = _Work(connection)
            work.convert()
            first, *others = load_migrations()
            migrations.apply(connection, first, rest_of(first))
            for migration in others:
                migrations.apply(connection, migration)
            judged = work.judge(settings, artifact, pictures, sample)
            work.ask("take_stock")
            return work.summary(settings, judged)
    except psycopg.errors.LockNotAvailable as exc:
        raise DatabaseUnusable(
            "Somebody is working with these tables. Stop the older application, and try again; nothing was changed."
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
    """Migration 1 without what makes the two tables that are there. Raises DatabaseUnusable when it has changed."""
    text = migration.text
    for table in ("products", "media"):
        text, count = re.subn(rf"^CREATE TABLE {table} \(\n.*?^\);\n", "", text, flags=re.MULTILINE | re.DOTALL)
        if count != 1:
            raise DatabaseUnusable(f"The migration {migration.name} no longer makes the table {table} as it did.")
    return text


class _Work:
    """The steps, and what is worth telling of them."""

    def __init__(self, connection: Connection[TupleRow]) -> None:
        self._connection = connection
        self._queries = Queries.read("adopt.sql")
        self._changes: list[str] = []

    def ask(self, name: str, **parameters: object) -> list[TupleRow]:
        cursor = self._connection.execute(self._queries[name], parameters)
        return cursor.fetchall() if cursor.description else []

    def alter(self, statement: str, **names: str) -> None:
        """Run a statement with names in it; `type` is one of PostgreSQL's own words."""
        parts = {key: sql.SQL(name) if key == "type" else sql.Identifier(name) for key, name in names.items()}
        self._connection.execute(self._queries.composed(statement, **parts))

    # --- the two tables ----------------------------------------------------------------------------------------------

    def convert(self) -> None:
        """Give products and media the form that migration 1 gives them, and take image_embeddings out of the way."""
        self.ask("be_patient")
        self.ask("lock_tables")
        tables = read_tables(self._connection)
        cascades = self._refuse_what_would_break(tables)
        self._loosen()
        self.ask("make_archive")
        for table, later in _LATER.items():
            for column in later:
                if tables.has(table, column):
                    wanted = f"older{column.capitalize()}"
                    self.alter("rename_column", table=table, column=column, wanted=wanted)
                    self._changes.append(f"{table}.{column} is called {wanted} now: Twinlens has another {column}.")
        self._change_types(tables)
        self.ask("add_columns")
        for table, statement in (("products", "move_products"), ("media", "move_media")):
            gone = self._connection.execute(self._queries[statement]).rowcount
            if gone and (here := [other for other, target in cascades if target == table]):
                raise DatabaseUnusable(
                    f"{gone:,} {table} cannot be kept (python -m server doctor says which), and rows of "
                    f"{', '.join(here)} would go or change with them: mend these first. Nothing was changed."
                )
        for statement in ("mend_skus", "mend_products", "note_kinds", "mend_media"):
            self.ask(statement)
        self._constrain()
        self.ask("archive_vectors")

    def _refuse_what_would_break(self, tables: Tables) -> list[tuple[str, str]]:
        """Raises DatabaseUnusable; gives the tables elsewhere that follow deletions: (table, what it refers to)."""
        if views := [name for (name,) in self.ask("views_of_vectors")]:
            raise DatabaseUnusable(
                f"Views read image_embeddings, and would go on reading the older vectors: {', '.join(views)}. Drop "
                "them first, and make them anew afterwards. Nothing was changed."
            )
        cascades = []
        for table, name, target, column, follows in self.ask("foreign_keys_from_elsewhere"):
            kind = tables.columns[target][column]
            if _TYPES[target].get(column, kind) != kind and not kind.startswith(("character", "text")):
                raise DatabaseUnusable(
                    f"The table {table} refers to {target}.{column} ({name}), which is of the type {kind} and becomes "
                    f"text. Drop that constraint first, make its column text, and add it again afterwards. Nothing was "
                    "changed."
                )
            if follows:
                cascades.append((str(table), str(target)))
        return cascades

    def _loosen(self) -> None:
        """Drop what would keep the tables from taking our form, and Twinlens from adding rows to them."""
        for table, types in _TYPES.items():
            for name, kind, columns in self.ask("constraints", table=table):
                ours = set(columns) <= set(types)
                if kind == "p" and columns == ["id"]:
                    continue
                if kind == "p" or (kind in "cf" and ours) or (kind in "ux" and set(columns) in _REPLACED):
                    self.alter("drop_constraint", table=table, name=name)
            for name, columns in self.ask("unique_indexes", table=table):
                if set(columns) in _REPLACED:
                    self.alter("drop_index", name=name)
        for name, kind, _ in self.ask("constraints", table="image_embeddings"):
            if kind == "f":
                self.alter("drop_constraint", table="image_embeddings", name=name)
        for (name,) in self.ask("vector_indexes"):
            self.alter("drop_index", name=name)

    def _change_types(self, tables: Tables) -> None:
        for table, types in _TYPES.items():
            for column, wanted in types.items():
                if not tables.has(table, column):
                    continue
                if column == "id":
                    self.alter("drop_identity", table=table, column=column)
                else:  # that of an id may be what the older application relies on
                    self.alter("drop_default", table=table, column=column)
                if tables.columns[table][column] == wanted:
                    continue
                if wanted == "bytea":
                    self.ask("note_digests")
                    self.ask("change_digest")
                else:
                    self.alter("change_type", table=table, column=column, type=wanted)

    def _constrain(self) -> None:
        for table in _TYPES:
            keys = [name for name, kind, _ in self.ask("constraints", table=table) if kind == "p"]
            wanted = f"{table}_pkey"
            if not keys:
                self.alter("add_primary_key", table=table, wanted=wanted)
            elif keys != [wanted]:
                self.alter("rename_constraint", table=table, name=keys[0], wanted=wanted)
            for (column,) in self.ask("strict_columns", table=table):
                if column == "id":
                    continue
                self.alter("drop_not_null", table=table, column=column)
                if column not in _TYPES[table]:
                    self._changes.append(f"{table}.{column} may be NULL now: Twinlens adds rows without it.")
        self.ask("constrain")

    # --- the vectors -------------------------------------------------------------------------------------------------

    def judge(self, settings: Settings, artifact: Artifact, pictures: Pictures, sample: int) -> Judged:
        """Move the older vectors into the artifact's space, if they are of it. Raises ArtifactInvalid."""
        space = artifact.space(settings.precision)
        self.ask("make_movable")
        movable = self._connection.execute(self._queries["find_movable"], {"dimensions": space.dimensions}).rowcount
        if not movable:
            return Judged(0, f"None of them can be of the artifact {artifact.manifest.name}.")
        drawn = [
            Kept(media_id, key, np.array(vector, np.float32))
            for media_id, key, vector in self.ask("sample", count=_DRAWN * sample)
        ]
        found = compare(settings, artifact, pictures, drawn, sample)
        compared, needed = len(found.cosines), min(LEAST_SAMPLE, movable)
        if compared < needed:
            return Judged(
                0,
                f"They were not compared with what {artifact.manifest.name} makes of the pictures: of "
                f"{min(len(drawn), sample):,}, {compared:,} are at hand and can be read, and {needed:,} are needed "
                "(--media DIR).",
            )
        told = f"{compared:,} pictures were embedded anew with {artifact.manifest.name}, and the lowest cosine"
        if wrong := found.disagreeing:
            return Judged(0, f"{told} is {found.lowest:.4f}: {len(wrong):,} of them disagree ({AGREES} is needed).")
        row = spaces.open_first(self._connection, SpaceDescription.of(artifact, settings.precision))
        moving = self._queries.of(row.table)["move_vectors"]
        moved = self._connection.execute(moving, {"number": row.number}).rowcount
        return Judged(moved, f"{told} is {found.lowest:.4f}: they are of its space {row.short_id}.")

    def summary(self, settings: Settings, judged: Judged) -> list[str]:
        ((products, clients, media, images, vectors),) = self.ask("count_all")
        missing = images - judged.moved
        lines = [
            f"Adopted: {products:,} products and {media:,} media of {clients:,} client{'' if clients == 1 else 's'}, "
            "with their ids.",
            *self._changes,
        ]
        if archived := self.ask("count_archived"):
            lines.append("Kept whole in twinlens_older_rows, with the reason:")
            lines += [
                f"- {table}, {'changed' if kept else 'moved there'}: {count:,}, because {reason}"
                for table, reason, kept, count in archived
            ]
        lines.append(
            f"Older vectors: {vectors:,}, archived in twinlens_older_embeddings, which no search reads. "
            f"{judged.sentence}"
        )
        if judged.moved:
            lines.append(f"Moved into that space, at unit length: {judged.moved:,}.")
        lines.append(f"To be embedded: {missing:,} images.")
        if missing:
            where = "TWINLENS_MEDIA_URL" if settings.media_url else f"{settings.data / 'media'} (TWINLENS_MEDIA_URL)"
            lines.append(
                f"Next: python -m server reembed --artifact {settings.model}, or start the server, which does it "
                f"beside its work. Both read the pictures from {where}, by their s3Key."
            )
        else:
            lines.append("Next: start the server.")
        return lines
