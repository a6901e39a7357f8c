"""The tables of a dump as Arrow has them: their columns, rows that become batches, and batches that become columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pgvector import HalfVector

from server.dump.manifest import FORMAT, Table
from server.errors import DumpRefused

_TIME = pa.timestamp("us", tz="UTC")
_DIGEST = pa.binary(32)
_HEAD = 4
"""Bytes before the halves in PostgreSQL's binary form of a halfvec: its dimensions, and two zeros."""


def _always(name: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, kind, nullable=False)


_ATTRIBUTES = (
    _always("clientId", pa.string()),
    _always("name", pa.string()),
    _always("type", pa.string()),
)

_PRODUCTS = (
    _always("clientId", pa.string()),
    _always("id", pa.string()),
    _always("name", pa.string()),
    pa.field("sku", pa.string()),
    _always("isActive", pa.bool_()),
    _always("attributes", pa.string()),
    _always("createdAt", _TIME),
    _always("updatedAt", _TIME),
)

_MEDIA = (
    _always("clientId", pa.string()),
    _always("id", pa.string()),
    _always("productId", pa.string()),
    _always("kind", pa.string()),
    _always("status", pa.string()),
    _always("s3Key", pa.string()),
    pa.field("thumbnailKey", pa.string()),
    pa.field("contentType", pa.string()),
    pa.field("bytes", pa.int64()),
    pa.field("width", pa.int32()),
    pa.field("height", pa.int32()),
    pa.field("contentDigest", _DIGEST),
    _always("createdAt", _TIME),
)

_PICTURES = (
    _always("key", pa.string()),
    _always("thumbnail", pa.bool_()),
    _always("digest", _DIGEST),
    _always("bytes", pa.int64()),
    _always("file", pa.string()),
)


def _vectors(dimensions: int) -> tuple[pa.Field, ...]:
    return (
        _always("clientId", pa.string()),
        _always("mediaId", pa.string()),
        pa.field("contentDigest", _DIGEST),
        _always("embedding", pa.list_(pa.float16(), dimensions)),
        _always("blank", pa.bool_()),
        _always("reading", pa.int16()),
    )


EMBEDDING = "embedding"


def schema_of(table: Table, *, dump: str, space: str | None = None, dimensions: int = 0, model: str = "") -> pa.Schema:
    """The columns of a table in their order, with what a file says of itself in its metadata.

    `dump`: the dump's id. `space`, `dimensions`, `model`: of vectors.
    """
    tables = {"attributes": _ATTRIBUTES, "products": _PRODUCTS, "media": _MEDIA, "pictures": _PICTURES}
    fields = tables.get(table) or _vectors(dimensions)
    says = {"twinlens.format": str(FORMAT), "twinlens.dump": dump, "twinlens.table": table}
    if space is not None:
        says |= {"twinlens.space": space, "twinlens.dimensions": str(dimensions), "twinlens.model": model}
    return pa.schema(fields, metadata=says)


def batch_of(schema: pa.Schema, rows: Sequence[Sequence[Any]]) -> pa.RecordBatch:
    """Rows as a batch, their values in the order of the columns.

    Times are microseconds since 1970, and a vector is a halfvec as PostgreSQL sends it.
    """
    columns = zip(*rows, strict=True) if rows else ((),) * len(schema)
    return pa.record_batch(
        [_array(field, column) for field, column in zip(schema, columns, strict=True)], schema=schema
    )


def _array(field: pa.Field, column: Sequence[Any]) -> pa.Array:
    if field.name == EMBEDDING:
        halves = np.frombuffer(b"".join([one[_HEAD:] for one in column]), dtype=">f2").astype("<f2")
        return pa.FixedSizeListArray.from_arrays(pa.array(halves), field.type.list_size)
    if field.type == _TIME:
        return pa.array(column, pa.int64()).view(_TIME)
    return pa.array(column, field.type)


def columns_of(batch: pa.RecordBatch) -> dict[str, list[Any]]:
    """The columns of a batch by their names, as `batch_of` takes them, but for vectors: those are HalfVector.

    Raises DumpRefused where a vector is missing.
    """
    return {field.name: _values(field, column) for field, column in zip(batch.schema, batch.columns, strict=True)}


def _values(field: pa.Field, column: pa.Array) -> list[Any]:
    if field.name == EMBEDDING:
        if column.null_count:
            raise DumpRefused("The dump has a row of a vector without the vector.")
        halves: NDArray[np.float16] = column.flatten().to_numpy(zero_copy_only=False)
        return [HalfVector(one) for one in halves.reshape(len(column), field.type.list_size)]
    if field.type == _TIME:
        return list(column.view(pa.int64()).to_pylist())
    return list(column.to_pylist())
