"""Named statements: each stands in a file of `server/sql`, with a sentence above it, and Python uses it by its name."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from psycopg import sql

SQL = Path(__file__).parent.parent / "sql"

_HEAD = re.compile(r"^-- ([a-z_]+) --$", flags=re.MULTILINE)


class Queries:
    """The statements of one file.

    A statement begins with a line `-- name --`. A name in braces is a part that is put in later, such as `{space}`, the
    table of an embedding space's vectors; a brace that is to stay a brace is doubled.
    """

    def __init__(self, texts: dict[str, sql.SQL], parts: dict[str, sql.Composable]) -> None:
        self._texts = texts
        self._parts = parts
        self._complete: dict[str, bytes] = {}

    @staticmethod
    @cache
    def read(file: str | Path) -> Queries:
        """The statements of a file: its name in `server/sql`, or a path. Each file is read once in a process."""
        parts = _HEAD.split((SQL / file).read_text(encoding="utf-8"))
        return Queries({name: sql.SQL(text.strip()) for name, text in zip(parts[1::2], parts[2::2], strict=True)}, {})

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self._texts)

    def of(self, table: str) -> Queries:
        """The same statements for a space's table of vectors."""
        return Queries(self._texts, {**self._parts, "space": sql.Identifier(table)})

    def including(self, *names: str) -> Queries:
        """The same statements, where these are put in wherever another has their name in braces. Raises KeyError."""
        return Queries(self._texts, {**self._parts, **{name: self.composed(name) for name in names}})

    def borrowing(self, others: Queries, *names: str) -> Queries:
        """The same statements, where these of another file are put in in the same way. Raises KeyError."""
        return Queries(self._texts, {**self._parts, **{name: others.composed(name) for name in names}})

    def __getitem__(self, name: str) -> bytes:
        """The statement of this name, for psycopg. Raises KeyError for one that is not there, or that lacks a part."""
        if name not in self._complete:
            self._complete[name] = self.composed(name).as_bytes(None)
        return self._complete[name]

    def composed(self, name: str, /, **parts: sql.Composable) -> sql.Composed:
        """The statement of this name with these parts put in, to be run or to be a part itself. Raises KeyError."""
        return self._texts[name].format(**self._parts, **parts)
