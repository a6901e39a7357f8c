"""Keys in servers that are processes of their own: when they count, and what is refused before a body is read."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil

from server.access.keyring import EFFECTIVE_SECONDS
from server.http.authorising import SLOW_SECONDS
from tests import ROOT
from tests.support.process import KEYBOARD, PATIENCE, Process, Serve, until

BODY = 3_000_000


def command(data: Path, *words: str) -> str:
    """`python -m server keys` as an operator gives it; what it prints."""
    whole = [sys.executable, "-m", "server", "keys", *words, "--data", str(data)]
    return subprocess.run(whole, cwd=ROOT, text=True, capture_output=True, check=True, timeout=PATIENCE).stdout


def new_key(data: Path, *words: str) -> tuple[str, dict[str, str]]:
    """The id of a new key, and the headers that bring it."""
    made: dict[str, Any] = json.loads(command(data, "create", *words, "--json").splitlines()[-1])
    return made["id"], {"Authorization": f"Bearer {made['key']}"}


def status(process: Process, headers: dict[str, str], path: str = "/v1/products/none") -> int:
    """On a connection of its own, so that any worker may answer."""
    return CLIENT.get(f"{process.url}{path}", headers=headers).status_code


CLIENT = httpx.Client(timeout=PATIENCE, limits=httpx.Limits(max_keepalive_connections=0))


def seconds_until(condition: Callable[[], bool]) -> float:
    """How long it took until the condition was last seen not to hold, once it has held twenty times in a row: for each
    worker, that is."""
    began = failed = time.monotonic()
    held = 0
    while held < 20:
        asked = time.monotonic()
        if condition():
            held += 1
        else:
            held, failed = 0, asked
        assert asked - began < PATIENCE
    return failed - began


def test_keys_count_within_seconds_in_each_worker_without_a_restart(serve: Serve, tmp_path: Path) -> None:
    data = tmp_path / "data"
    process = serve("--workers", "2", data=data).ready(2)
    process.wait_for("Callers need no key")
    assert status(process, {}) == 404

    id_, headers = new_key(data, "--client", "acme", "--scope", "write")
    assert seconds_until(lambda: status(process, {}) == 401) < EFFECTIVE_SECONDS
    assert status(process, headers) == 404
    assert status(process, {}, "/health/ready") == 200
    assert status(process, {**headers, "Host": "shop.example"}) == 404

    # Writes that were begun with the key, of which one is ended after it was revoked.
    begun = [process.connect() for _ in range(2)]
    body = b'{"name": "Shoe"}'
    for number, connection in enumerate(begun):
        head = [f"PUT /v1/products/shoe-{number} HTTP/1.1", "Host: x", "Content-Type: application/json"]
        head += [f"Content-Length: {len(body)}", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        connection.sendall("\r\n".join(head).encode() + body[:5])
    time.sleep(SLOW_SECONDS)
    begun[0].sendall(body[5:])
    assert begun[0].recv(100).startswith(b"HTTP/1.1 201")

    command(data, "revoke", id_)
    assert seconds_until(lambda: status(process, headers) == 401) < EFFECTIVE_SECONDS
    assert status(process, {}) == 401, "the last key has ended, and keys stay on"
    begun[1].sendall(body[5:])
    assert begun[1].recv(100).startswith(b"HTTP/1.1 401")
    for connection in begun:
        connection.close()

    command(data, "off")
    assert seconds_until(lambda: status(process, {}) == 404) < EFFECTIVE_SECONDS
    assert process.stop() == 0
    assert "Traceback" not in "".join(process.log)


def test_a_key_is_made_before_the_first_start_and_opens_the_server_to_others(serve: Serve, tmp_path: Path) -> None:
    data = tmp_path / "data"
    refused = serve("--host", "0.0.0.0", data=data)
    assert refused.end() == 2
    said = "".join(refused.log)
    assert re.search(r"python -m server --data \S+ .*keys create --client CLIENT --scope search,read,write", said)
    assert "Traceback" not in said

    _, headers = new_key(data, "--client", "acme", "--scope", "search", "--host", "0.0.0.0")
    process = serve("--host", "0.0.0.0", data=data).ready()
    process.wait_for("Callers need a key")
    assert (status(process, {}), status(process, headers)) == (401, 403)

    # Before a body is read: who sends it first has the answer at its end; who waits for leave is not asked for it.
    with process.client() as client:
        big = client.post("/v1/products/p/media", headers=headers, files={"file": KEYBOARD + bytes(BODY)})
        assert (big.status_code, big.json()["code"]) == (403, "scope_missing")
        other = client.post("/v1/search?clientId=other", headers=headers, files={"file": bytes(BODY)})
        assert (other.status_code, other.json()["code"]) == (403, "client_mismatch")
        found = client.post("/v1/search", headers=headers, files={"file": KEYBOARD})
        assert (found.status_code, found.json()["results"]) == (200, [])
    with process.connect() as waiting:
        head = f"POST /v1/search HTTP/1.1\r\nHost: x\r\nContent-Length: {BODY}\r\nExpect: 100-continue\r\n\r\n"
        waiting.sendall(head.encode())
        assert waiting.recv(100).startswith(b"HTTP/1.1 401")

    # Turned off while it runs, it goes on asking.
    command(data, "off")
    time.sleep(EFFECTIVE_SECONDS)
    assert status(process, {}) == 401
    assert process.stop() == 0


def test_without_a_database_a_server_says_that_it_does_not_know_the_keys(serve: Serve, tmp_path: Path) -> None:
    """The postmaster is stopped in its tracks; the time for which keys are trusted is tested with a clock elsewhere."""
    data = tmp_path / "data"
    process = serve(data=data).ready()
    _, headers = new_key(data, "--client", "acme", "--scope", "search")
    seconds_until(lambda: status(process, {}) == 401)
    stopped = [process.postmaster, *process.postmaster.children(recursive=True)]
    for one in stopped:
        one.send_signal(signal.SIGSTOP)
    try:
        # What is known counts: a caller without a key is refused at once, and one with a key is let in.
        assert status(process, {}) == 401
        with process.client() as client:
            assert client.post("/embed-image", headers=headers, files={"file": KEYBOARD}).status_code == 200
    finally:
        for one in stopped:
            _resume(one)
    until(lambda: status(process, {}, "/health/ready") == 200)
    assert "Traceback" not in "".join(process.log)


def _resume(process: psutil.Process) -> None:
    if process.is_running():
        process.send_signal(signal.SIGCONT)
