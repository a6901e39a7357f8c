"""The files of a table: written one after the other, each of bounded size, and read again batch by batch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from server.backup.unfinished import SUFFIX
from server.dump.manifest import File, Table, sha256_of
from server.dump.tables import EMBEDDING, batch_of
from server.errors import DumpRefused

BATCH = 1000
"""Rows that are read, or loaded, at a time."""


@dataclass(frozen=True)
class Bounds:
    """How much there is in a row group, which a reader holds in memory as a whole, and in a file."""

    group_rows: int = 20_000
    group_bytes: int = 16 * 1024 * 1024
    file_rows: int = 1_000_000
    file_bytes: int = 256 * 1024 * 1024


class Parts:
    """Writes the rows of one table. Every method may raise OSError."""

    def __init__(
        self,
        root: Path,
        table: Table,
        schema: pa.Schema,
        bounds: Bounds,
        *,
        space: str | None = None,
        below: str | None = None,
    ) -> None:
        """`root`: the dump's folder; `below`: the table's folder in it, which is named like the table without it."""
        self._root = root
        self._table: Table = table
        self._schema = schema
        self._bounds = bounds
        self._space = space
        self._folder = root / (below or table)
        self._files: list[File] = []
        self._waiting: list[pa.RecordBatch] = []
        self._writer: pq.ParquetWriter | None = None
        self._path = self._folder
        self._rows = 0

    def add(self, rows: Sequence[Sequence[Any]]) -> None:
        """Write these rows, or keep them until a row group is full."""
        self._waiting.append(batch_of(self._schema, rows))
        if (
            sum(one.num_rows for one in self._waiting) >= self._bounds.group_rows
            or sum(one.nbytes for one in self._waiting) >= self._bounds.group_bytes
        ):
            self._write()

    def close(self) -> list[File]:
        """Write the rest; all files of the table. There is one at least, so that an empty table has its columns."""
        if self._waiting or (self._writer is None and not self._files):
            self._write()
        self._finish()
        return self._files

    def _write(self) -> None:
        group = pa.Table.from_batches(self._waiting, self._schema)
        self._waiting = []
        if self._writer is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._path = self._folder / f"part-{len(self._files):05}.parquet"
            self._writer = pq.ParquetWriter(
                _unfinished(self._path),
                self._schema,
                compression="zstd",
                # Vectors have no two values alike to speak of, and DuckDB reads no other encoding of halves.
                use_dictionary=[field.name for field in self._schema if field.name != EMBEDDING],
            )
        self._writer.write_table(group, row_group_size=max(1, group.num_rows))
        self._rows += group.num_rows
        if self._rows >= self._bounds.file_rows or _unfinished(self._path).stat().st_size >= self._bounds.file_bytes:
            self._finish()

    def _finish(self) -> None:
        """Give the file its name, once it is whole and on the disk."""
        if self._writer is None:
            return
        self._writer.close()
        self._writer = None
        part = _unfinished(self._path)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        name = self._path.relative_to(self._root).as_posix()
        self._files.append(File(name, self._table, self._rows, part.stat().st_size, sha256_of(part).hex(), self._space))
        self._rows = 0
        part.rename(self._path)


def _unfinished(path: Path) -> Path:
    return path.with_name(path.name + SUFFIX)


def require_columns(root: Path, file: File, schema: pa.Schema) -> None:
    """That a file has the rows and the columns that it should have. Raises DumpRefused."""
    try:
        with pq.ParquetFile(root / file.path) as found:
            rows, columns = found.metadata.num_rows, found.schema_arrow
    except (pa.ArrowException, OSError) as exc:
        raise DumpRefused(f"{root / file.path} cannot be read: {exc}.") from exc
    if rows != file.rows:
        raise DumpRefused(f"{root / file.path} has {rows:,} rows, and should have {file.rows:,}.")
    for field in schema:
        at = columns.get_field_index(field.name)
        if at < 0 or columns.field(at).type != field.type:
            there = f"is {columns.field(at).type}" if at >= 0 else "is missing"
            raise DumpRefused(f"{root / file.path}: the column {field.name} should be {field.type}, and {there}.")


def batches(root: Path, file: File, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The rows of a file in the order of the schema's columns. Raises DumpRefused."""
    try:
        with pq.ParquetFile(root / file.path, pre_buffer=False) as found:
            yield from found.iter_batches(BATCH, columns=schema.names, use_threads=False)
    except (pa.ArrowException, OSError) as exc:
        raise DumpRefused(f"{root / file.path} cannot be read: {exc}.") from exc
