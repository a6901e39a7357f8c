#!/usr/bin/env bash
# obstore: deleting an object that is not there raises in a folder, and is silent in an S3 store and in memory.
#
# Versions: obstore 0.12.1; moto 5.2.5 stands in for S3, on loopback.
#
# A good guess: one interface for all stores means one behaviour. Getting, creating and deleting go alike in a folder
# and in a bucket, so tests that use a folder or a MemoryStore hold for production.
#
# What happens: getting what is missing raises FileNotFoundError everywhere, and creating what exists raises
# AlreadyExistsError everywhere. Deleting what is missing raises FileNotFoundError in a folder only. Where several
# paths are deleted in one call and one is missing, the folder raises, though the other object is gone.
#
# Why it matters: "delete it, and answer 404 if that raises" works on a developer's folder and never answers 404 on
# S3; the other way round, cleaning up that was tested on S3 or in memory breaks on a folder. Treat a missing object
# as deleted, everywhere, and ask elsewhere whether it existed.
#
# Seen:
#   obstore 0.12.1 moto 5.2.5
#   get a missing                  folder: FileNotFoundError; memory: FileNotFoundError; S3: FileNotFoundError
#   create an existing             folder: AlreadyExistsError; memory: AlreadyExistsError; S3: AlreadyExistsError
#   delete a missing               folder: FileNotFoundError; memory: no error; S3: no error
#   delete one there, one missing  folder: FileNotFoundError; memory: no error; S3: no error
#   what is left                   folder: []; memory: []; S3: []
#   As stated.

set -euo pipefail
folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || { kill "$server" || true; wait "$server" || true; }; rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check obstore==0.12.1 "moto[s3,server]==5.2.5"
cd "$folder"

port=$(venv/bin/python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
venv/bin/python -m moto.server -H 127.0.0.1 -p "$port" >moto.log 2>&1 &
server=$!

PORT=$port venv/bin/python - <<'PYTHON'
import os
import time
import urllib.request
from importlib.metadata import version

from obstore.store import LocalStore, MemoryStore, S3Store

print("obstore", version("obstore"), "moto", version("moto"))
url = f"http://127.0.0.1:{os.environ['PORT']}"
for attempt in range(200):
    try:
        urllib.request.urlopen(urllib.request.Request(f"{url}/shelf", method="PUT")).close()
        break
    except OSError:
        time.sleep(0.1)
else:
    raise SystemExit("moto did not start.")

stores = {
    "folder": LocalStore("shelf", mkdir=True),
    "memory": MemoryStore(),
    "S3": S3Store(
        "shelf", endpoint=url, region="us-east-1", access_key_id="any", secret_access_key="any",
        client_options={"allow_http": True},
    ),
}  # fmt: skip


def outcome(call, *arguments, **options):
    try:
        call(*arguments, **options)
    except Exception as exc:
        return type(exc).__name__
    return "no error"


outcomes = {}
for name, store in stores.items():
    store.put("there", b"1")
    outcomes[name] = {
        "get a missing": outcome(store.get, "missing"),
        "create an existing": outcome(store.put, "there", b"2", mode="create"),
        "delete a missing": outcome(store.delete, "missing"),
        "delete one there, one missing": outcome(store.delete, ["there", "missing"]),
        "what is left": str([entry["path"] for entry in store.list().collect()]),
    }
for what in outcomes["S3"]:
    print(f"{what:30}", "; ".join(f"{name}: {found[what]}" for name, found in outcomes.items()))

expected = ["FileNotFoundError", "AlreadyExistsError", "no error", "no error", "[]"]
in_folder = ["FileNotFoundError", "AlreadyExistsError", "FileNotFoundError", "FileNotFoundError", "[]"]
if [list(outcomes[name].values()) for name in ("folder", "memory", "S3")] != [in_folder, expected, expected]:
    raise SystemExit("No longer as stated.")
print("As stated.")
PYTHON
