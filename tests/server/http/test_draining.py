"""Answers that come before the body's end reach their caller, whatever the size of the body."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping

import pytest

from tests.support.databases import fresh_database
from tests.support.process import KEYBOARD, Process

MB = 1_000_000
MOST = 32 * MB
SIZES = (1, 5, 8, 20, 32)
FORM = "multipart/form-data; boundary=b"

EARLY: Mapping[str, tuple[int, str, Mapping[str, str]]] = {
    "no such address": (404, "/nothing", {}),
    "no such method": (405, "/health/live", {}),
    "too large": (413, "/v1/search", {"Content-Type": "application/json"}),
    "not a body that is read": (415, "/v1/search", {"Content-Type": "text/plain"}),
    "compressed in another way": (415, "/v1/search", {"Content-Type": FORM, "Content-Encoding": "br"}),
    "no boundary": (400, "/embed-image", {"Content-Type": "multipart/form-data"}),
    "a deadline that is none": (422, "/embed-image", {"Content-Type": FORM, "Twinlens-Deadline": "soon"}),
}
"""Refusals that need nothing of the body: the status, the address and the headers."""


@pytest.fixture(scope="module")
def server(postgres_url: str, template_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """One for all of these tests: they change nothing."""
    with fresh_database(postgres_url, template_database) as url:
        process = Process(tmp_path_factory.mktemp("draining"), "--database-url", url)
        try:
            yield process.ready()
        finally:
            process.stop()


def status(server: Process, path: str, headers: Mapping[str, str], body: bytes | Iterator[bytes]) -> int | str:
    """Of the answer to a client that sends everything before it looks."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    try:
        connection.request("POST", path, body, dict(headers))
        answer = connection.getresponse()
        assert set(json.loads(answer.read())) == {"error", "code", "requestId"}
        return answer.status
    except OSError as exc:
        return type(exc).__name__
    finally:
        connection.close()


@pytest.mark.parametrize("case", EARLY)
def test_a_client_that_sends_everything_before_it_reads_has_its_answer(server: Process, case: str) -> None:
    expected, path, headers = EARLY[case]
    for size in SIZES:
        body = bytes(size * MB + 1)
        assert [status(server, path, headers, body) for _ in range(8)] == [expected] * 8, size


def test_a_body_in_chunks_and_one_over_the_limit_are_no_exceptions(server: Process) -> None:
    block = bytes(MB)
    for _ in range(8):
        assert status(server, "/nothing", {}, iter([block] * 20)) == 404
        assert status(server, "/embed-image", {"Content-Type": FORM}, bytes(MOST + 8 * MB)) == 413
        assert status(server, "/embed-image", {"Content-Type": FORM}, iter([block] * 40)) in (400, 413)


NODE = """
const [base, cases] = [process.argv[2], JSON.parse(process.argv[3])];
const seen = [];
for (const [path, headers, size] of cases)
  for (let i = 0; i < 8; i++)
    try {
      const answer = await fetch(base + path, {method: "POST", headers, body: new Uint8Array(size)});
      await answer.json();
      seen.push(answer.status);
    } catch (error) {
      seen.push(error.cause?.code ?? String(error));
    }
console.log(JSON.stringify(seen));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="Node is missing")
def test_nodes_fetch_has_its_answer(server: Process) -> None:
    early = [EARLY[name] for name in list(EARLY)[:4]]
    cases = [(path, headers, size * MB + 1) for _, path, headers in early for size in SIZES]
    expected = [status for status, _, _ in early for _ in SIZES for _ in range(8)]
    done = subprocess.run(
        ["node", "--input-type=module", "-", server.url, json.dumps(cases)],
        input=NODE,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert json.loads(done.stdout) == expected


def test_the_connection_can_be_used_again_after_an_early_answer(server: Process) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("POST", "/nothing", bytes(8 * MB))
    first = connection.getresponse()
    first.read()
    local = connection.sock.getsockname()
    connection.request("GET", "/health/live")
    assert (first.status, connection.getresponse().status) == (404, 200)
    assert connection.sock.getsockname() == local
    connection.close()


def exchange(server: Process, request: bytes) -> tuple[str, dict[str, object]]:
    """The status line and the JSON of the first answer on a bare connection, which then stays open for a moment."""
    with server.connect() as connection:
        connection.sendall(request)
        with connection.makefile("rb") as answer:
            line = answer.readline().decode().strip()
            head = b"".join(iter(answer.readline, b"\r\n")).decode().lower()
            length = re.search(r"content-length: (\d+)", head)
            return line, json.loads(answer.read(int(length[1]))) if length else {}


@pytest.mark.parametrize(
    ("path", "length", "expected"),
    [("/embed-image", 100 * MB, 413), ("/nothing", 100, 404), ("/health/live", 100, 405)],
)
def test_a_body_that_waits_for_leave_is_not_asked_for_in_vain(
    server: Process, path: str, length: int, expected: int
) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {FORM}\r\nContent-Length: {length}\r\n"
    line, problem = exchange(server, f"{head}Expect: 100-continue\r\n\r\n".encode())
    assert line.startswith(f"HTTP/1.1 {expected} ")  # and not 100
    assert problem["code"]


def test_a_body_that_is_wanted_is_given_leave(server: Process) -> None:
    head = f"POST /embed-image HTTP/1.1\r\nHost: localhost\r\nContent-Type: {FORM}\r\nContent-Length: 9\r\n"
    line, _ = exchange(server, f"{head}Expect: 100-continue\r\n\r\n".encode())
    assert line == "HTTP/1.1 100 Continue"


def test_a_chunk_that_cannot_be_read_is_a_malformed_request(server: Process) -> None:
    head = (
        f"POST /embed-image HTTP/1.1\r\nHost: localhost\r\nContent-Type: {FORM}\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    line, problem = exchange(server, head.encode() + b"5\r\n--b\r\n\r\nno number\r\n")
    assert line.startswith("HTTP/1.1 400 ")
    assert problem["code"] == "malformed_request"


def test_nothing_of_this_is_a_line_of_the_log(server: Process) -> None:
    with server.client() as client:
        assert client.post("/embed-image", files={"file": KEYBOARD}).status_code == 200
    assert not [line for line in server.log if "WARNING" in line or "ERROR" in line or "Traceback" in line]
