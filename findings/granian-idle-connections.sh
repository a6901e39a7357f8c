#!/usr/bin/env bash
# granian: open connections that ask for nothing use up `backpressure`, and then nobody is served.
#
# Versions: granian 2.8.9; Python 3.11's sockets as the clients.
#
# A good guess: `backpressure` bounds the requests that a worker has in hand at a time, as its documentation says, so
# connections that are idle between two requests, or that have sent nothing yet, cost nothing of it.
#
# What happens: each open connection counts, idle ones included. With as many of them as `backpressure` (by default the
# backlog divided by the workers: 1,024 for one), no further connection is accepted until one of them closes; health
# checks wait as well. Idle connections are closed after `header_read_timeout`, 30 s by default, which is counted from
# the end of the answer before: it is the keep-alive timeout, too.
#
# Why it matters: the idle connections of a few hundred browsers, or of a proxy's pool, keep everybody else out. Choose
# `backlog` and `backpressure` by connections, not by requests, and bound the work in hand inside the app.
#
# Seen:
#   granian 2.8.9
#   backpressure 16, idle connections 15: a request is answered
#   backpressure 16, idle connections 16: a request waits
#   backpressure 16, idle connections 16 after one answer each: a request waits
#   an idle connection is closed after header_read_timeout (3 s): True
#   As stated.

set -euo pipefail
folder=$(mktemp -d)
servers=()
trap 'for pid in "${servers[@]}"; do kill "$pid" || true; wait "$pid" || true; done; rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check granian==2.8.9
cd "$folder"

cat >app.py <<'PYTHON'
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        for done in ("lifespan.startup.complete", "lifespan.shutdown.complete"):
            await receive()
            await send({"type": done})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
PYTHON

read -r patient brief < <(venv/bin/python -c '
import socket
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(one.getsockname()[1] for one in sockets))')
venv/bin/granian --interface asgi --host 127.0.0.1 --port "$patient" --backpressure 16 \
    --http1-header-read-timeout 60000 app:app >patient.log 2>&1 &
servers+=($!)
venv/bin/granian --interface asgi --host 127.0.0.1 --port "$brief" --backpressure 16 \
    --http1-header-read-timeout 3000 app:app >brief.log 2>&1 &
servers+=($!)

venv/bin/python - "$patient" "$brief" <<'PYTHON'
import socket
import sys
import time
from contextlib import ExitStack
from importlib.metadata import version

print("granian", version("granian"))
patient, brief = map(int, sys.argv[1:])
REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


def connect(port):
    return socket.create_connection(("127.0.0.1", port), 5)


for port in (patient, brief):
    for attempt in range(100):
        try:
            connect(port).close()
            break
        except OSError:
            time.sleep(0.2)


def is_answered(idle, *, first_one_answer=False):
    with ExitStack() as open_ones:
        for _ in range(idle):
            one = open_ones.enter_context(connect(patient))
            if first_one_answer:
                one.sendall(REQUEST)
                one.recv(4096)
        time.sleep(1)
        caller = open_ones.enter_context(connect(patient))
        caller.sendall(REQUEST)
        try:
            answered = bool(caller.recv(4096))
        except TimeoutError:
            answered = False
    time.sleep(1)
    after = " after one answer each" if first_one_answer else ""
    print(f"backpressure 16, idle connections {idle}{after}: a request {'is answered' if answered else 'waits'}")
    return answered


seen = [is_answered(15), is_answered(16), is_answered(16, first_one_answer=True)]
with connect(brief) as idle:
    idle.sendall(REQUEST)
    idle.recv(4096)
    began = time.monotonic()
    idle.settimeout(20)
    closed = idle.recv(4096) == b"" and time.monotonic() - began > 2
    print(f"an idle connection is closed after header_read_timeout (3 s): {closed}")

if seen != [True, False, False] or not closed:
    raise SystemExit("No longer as stated.")
print("As stated.")
PYTHON
