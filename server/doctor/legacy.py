"""What kind of database this is: a legacy one (that of the older system), one of Twinlens, or neither."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from psycopg import Connection
from psycopg.rows import TupleRow, class_row

from server.database.queries import Queries
from server.errors import DatabaseUnusable

Kind = Literal["legacy", "twinlens", "empty"]

NEEDED: Mapping[str, tuple[str, ...]] = {
    "products": ("id", "clientId", "name"),
    "media": ("id", "productId", "s3Key"),
    "image_embeddings": ("mediaId", "embedding"),
}
"""The legacy tables, and the columns that the older search reads."""


@dataclass(frozen=True)
class Tables:
    """The three legacy tables as they are: by table, the type of each column as PostgreSQL writes it."""

    columns: Mapping[str, Mapping[str, str]]

    def has(self, table: str, column: str) -> bool:
        """Whether the table has a column of this name."""
        return column in self.columns[table]


@dataclass(frozen=True)
class _Column:
    table: str
    name: str
    type: str


def kind_of(connection: Connection[TupleRow]) -> Kind:
    """Whose tables these are. Raises DatabaseUnusable where they are neither a legacy system's nor Twinlens' own."""
    queries = Queries.read("legacy.sql")
    # The table twinlens_migrations proves nothing: in older versions a `migrate` that was refused left it behind.
    if connection.execute(queries["find_spaces"]).fetchone() != (None,):
        return "twinlens"
    kinds: dict[str, str] = dict(connection.execute(queries["list_tables"], {"names": list(NEEDED)}).fetchall())
    if not kinds:
        return "empty"
    missing = [name for name in NEEDED if name not in kinds]
    if missing:
        raise DatabaseUnusable(
            f"This is no database of the older system: it has {_listed(sorted(kinds))}, and no "
            f"{_listed(missing, 'or')}."
        )
    others = [name for name, kind in kinds.items() if kind != "r"]
    if others:
        raise DatabaseUnusable(
            f"This is no database of the older system that can be read: {_listed(others)} should be a plain table, and "
            "is a view, a partitioned table or the like."
        )
    return "legacy"


def read_tables(connection: Connection[TupleRow]) -> Tables:
    """The tables of a legacy database. Raises DatabaseUnusable, which names each needed column that is missing."""
    columns: dict[str, dict[str, str]] = {name: {} for name in NEEDED}
    with connection.cursor(row_factory=class_row(_Column)) as cursor:
        for one in cursor.execute(Queries.read("legacy.sql")["list_columns"], {"names": list(NEEDED)}):
            columns[one.table][one.name] = one.type
    missing = [f'{table}."{one}"' for table, needed in NEEDED.items() for one in needed if one not in columns[table]]
    if missing:
        raise DatabaseUnusable(
            f"The older system's tables lack {_listed(missing)}; its search cannot have run on them."
        )
    kind = columns["image_embeddings"]["embedding"]
    if not kind.startswith(("vector", "halfvec")):
        raise DatabaseUnusable(f"The column image_embeddings.embedding is of the type {kind}, not pgvector's vector.")
    return Tables(columns)


def _listed(names: list[str], word: str = "and") -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {word} {names[-1]}"
