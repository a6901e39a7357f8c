#!/usr/bin/env bash
# DuckDB: a Parquet column of halves that is encoded as BYTE_STREAM_SPLIT is described, and cannot be read.
#
# Versions: duckdb 2.0.1; pyarrow 26.0.1, polars 2.1.0 and numpy 2.4.6 beside it.
#
# A good guess: DuckDB reads Parquet's Float16, and reads BYTE_STREAM_SPLIT, the encoding that is made for floating
# point. Parquet allows that encoding for Float16 since its format 2.11 (2024), and pyarrow writes it where asked. So
# vectors of float16 may have it: they become smaller, and every reader that knows both reads them.
#
# What happens: DESCRIBE names the column, as FLOAT, or FLOAT[] for lists. Reading a row of it raises: the encoding "is
# only supported for FLOAT, DOUBLE, INT32 or INT64 data". Other columns of the same file are read. With PLAIN, or with a
# dictionary, the same values are read bit for bit. pyarrow and polars read all three.
#
# Why it matters: a check that looks at the schema, or counts rows, passes. Write halves with PLAIN where others are to
# read them; the price is small, as the sizes of 2,000 unit vectors below show.
#
# Seen:
#   duckdb 2.0.1 pyarrow 26.0.1 polars 2.1.0
#   PLAIN              1,883,859 bytes; pyarrow: same; polars: same; DuckDB describes FLOAT[], counts 2000: same
#   dictionary         1,972,391 bytes; pyarrow: same; polars: same; DuckDB describes FLOAT[], counts 2000: same
#   BYTE_STREAM_SPLIT  1,738,821 bytes; pyarrow: same; polars: same; DuckDB describes FLOAT[], counts 2000: Error:
#                      BYTE_STREAM_SPLIT encoding is only supported for FLOAT, DOUB
#   As stated.

set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check duckdb==2.0.1 pyarrow==26.0.1 polars==2.1.0 \
    numpy==2.4.6
cd "$folder"

venv/bin/python - <<'PYTHON'
from pathlib import Path

import duckdb
import numpy as np
import polars
import pyarrow as pa
import pyarrow.parquet as pq

print("duckdb", duckdb.__version__, "pyarrow", pa.__version__, "polars", polars.__version__)
ROWS, D = 2000, 512
vectors = np.random.default_rng(0).standard_normal((ROWS, D))
vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
table = pa.table({"id": range(ROWS), "v": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), D)})


def same(rows):
    return "same" if np.array_equal(np.array(rows, dtype=np.float16), vectors) else "OTHERS"


seen = {}
for name, how in {
    "PLAIN": {"use_dictionary": False},
    "dictionary": {"use_dictionary": True},
    "BYTE_STREAM_SPLIT": {"use_dictionary": ["id"], "column_encoding": {"v.list.element": "BYTE_STREAM_SPLIT"}},
}.items():
    pq.write_table(table, "v.parquet", compression="zstd", **how)
    size = Path("v.parquet").stat().st_size
    arrow = same(pq.read_table("v.parquet")["v"].to_pylist())
    others = same(polars.read_parquet("v.parquet")["v"].to_list())
    kind = duckdb.sql("DESCRIBE SELECT v FROM 'v.parquet'").fetchall()[0][1]
    ((count,),) = duckdb.sql("SELECT count(id) FROM 'v.parquet'").fetchall()
    try:
        read = same([row[0] for row in duckdb.sql("SELECT v FROM 'v.parquet' ORDER BY id").fetchall()])
    except duckdb.Error as error:
        read = f"{type(error).__name__}: {str(error)[:60]}"
    print(f"{name:18} {size:,} bytes; pyarrow: {arrow}; polars: {others}; DuckDB describes {kind}, counts {count}: {read}")
    seen[name] = (arrow, others, kind, count, read)

fine = ("same", "same", "FLOAT[]", ROWS, "same")
assert seen["PLAIN"] == seen["dictionary"] == fine, seen
assert seen["BYTE_STREAM_SPLIT"][:4] == fine[:4], seen
assert "BYTE_STREAM_SPLIT" in seen["BYTE_STREAM_SPLIT"][4], seen
print("As stated.")
PYTHON
