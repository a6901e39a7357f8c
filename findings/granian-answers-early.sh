#!/usr/bin/env bash
# granian: an answer that is sent before the request's body is read may never reach the client.
#
# Versions: granian 2.8.7, beside uvicorn 0.54.0 with h11 0.16.0; Python 3.11's http.client as the client.
#
# A good guess: a handler that refuses by the headers alone (401, 413, 429) may answer at once and leave the body
# unread. The client gets the status; at worst it has sent a few megabytes in vain.
#
# What happens: granian closes the connection once the app has answered. A client that is still writing a large body
# gets a broken pipe or a reset connection in place of the status. With small bodies, which fit into the system's
# buffers, the status always arrives, so tests do not see it. uvicorn delivers the status of both sizes here, and so
# does granian when the app reads the body to its end, before it answers or after it has answered: `receive` still gives
# the body then.
#
# Why it matters: users with large pictures see "network error" where they should see "too large" or "try again",
# and clients repeat what can never succeed. Read and drop what is left of the body, up to some bound. To answer first
# and read on is better than to read first: nobody waits, and a client that asks for leave with `Expect: 100-continue`
# need not send. Clients that read while they write may still see the status; the client here writes first, as many do.
#
# Seen:
#   granian 2.8.7 uvicorn 0.54.0 h11 0.16.0
#   granian /answers-at-once      1,000 bytes: 10 x 401
#   granian /answers-at-once 32,000,000 bytes: 10 x broken connection
#   granian /reads-first          1,000 bytes: 10 x 401
#   granian /reads-first     32,000,000 bytes: 10 x 401
#   granian /reads-on             1,000 bytes: 10 x 401
#   granian /reads-on        32,000,000 bytes: 10 x 401
#   uvicorn /answers-at-once      1,000 bytes: 10 x 401
#   uvicorn /answers-at-once 32,000,000 bytes: 10 x 401
#   uvicorn /reads-first          1,000 bytes: 10 x 401
#   uvicorn /reads-first     32,000,000 bytes: 10 x 401
#   uvicorn /reads-on             1,000 bytes: 10 x 401
#   uvicorn /reads-on        32,000,000 bytes: 10 x 401
#   As stated.

set -euo pipefail
folder=$(mktemp -d)
servers=()
trap 'for pid in "${servers[@]}"; do kill "$pid" || true; wait "$pid" || true; done; rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check granian==2.8.7 uvicorn==0.54.0 h11==0.16.0
cd "$folder"

cat >app.py <<'PYTHON'
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        for done in ("lifespan.startup.complete", "lifespan.shutdown.complete"):
            await receive()
            await send({"type": done})
        return
    if scope["path"] == "/reads-first":
        while (await receive()).get("more_body"):
            pass
    await send({"type": "http.response.start", "status": 401, "headers": [(b"content-length", b"7")]})
    await send({"type": "http.response.body", "body": b"refused"})
    if scope["path"] == "/reads-on":
        while (await receive()).get("more_body"):
            pass
PYTHON

read -r granian_port uvicorn_port < <(venv/bin/python -c '
import socket
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(one.getsockname()[1] for one in sockets))')
venv/bin/granian --interface asgi --host 127.0.0.1 --port "$granian_port" app:app >granian.log 2>&1 &
servers+=($!)
venv/bin/uvicorn --http h11 --host 127.0.0.1 --port "$uvicorn_port" app:app >uvicorn.log 2>&1 &
servers+=($!)

venv/bin/python - "$granian_port" "$uvicorn_port" <<'PYTHON'
import http.client
import socket
import sys
import time
from collections import Counter
from importlib.metadata import version

print("granian", version("granian"), "uvicorn", version("uvicorn"), "h11", version("h11"))
ports = dict(zip(("granian", "uvicorn"), map(int, sys.argv[1:])))
for port in ports.values():
    for attempt in range(100):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except OSError:
            time.sleep(0.2)


def post(port, path, size):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("POST", path, bytes(size))
        return str(connection.getresponse().status)
    except ConnectionError:
        return "broken connection"
    finally:
        connection.close()


answered = {}
for server, port in ports.items():
    for path in ("/answers-at-once", "/reads-first", "/reads-on"):
        for size in (1_000, 32_000_000):
            got = Counter(post(port, path, size) for _ in range(10))
            answered[server, path, size] = got["401"]
            print(f"{server} {path:16} {size:10,} bytes: " + ", ".join(f"{n} x {what}" for what, n in got.items()))

lost = [key for key, number in answered.items() if number < 10]
if lost != [("granian", "/answers-at-once", 32_000_000)]:
    raise SystemExit("No longer as stated.")
print("As stated.")
PYTHON
