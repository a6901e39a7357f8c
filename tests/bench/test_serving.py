"""Servers to measure, the closed loop that asks them, and what the kernel says of their cores."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

import pytest

from bench import cpu, pictures
from bench.closed_loop import Answer, request, run_http
from bench.serving import UNCACHED, serving
from tests import STARTER
from tests.bench.listening import listening


@contextmanager
def echoing(version: str, status: int = 200) -> Iterator[int]:
    """A server that answers with what it was sent: HTTP/1.0 closes after each answer, HTTP/1.1 sends chunks."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = version

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            if version == "HTTP/1.1":
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                for chunk in (body[:3], body[3:]):
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
                self.wfile.write(b"0\r\n\r\n")
            else:
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with listening(Handler) as port:
        yield port


@pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/1.1"])
def test_the_closed_loop_reads_answers_that_close_and_answers_in_chunks(version: str) -> None:
    seen: list[Answer] = []
    with echoing(version) as port:
        requests = [request(port, "/", body) for body in (b"first one", b"second one")]
        done, answers = asyncio.run(
            run_http(port, requests, 0.2, 2, settle=0.0, on_answer=lambda answer, _: seen.append(answer))
        )
    assert answers == {0: b"first one", 1: b"second one"}
    assert done.pictures_per_second > 0
    assert {answer.body for answer in seen} == {b"first one", b"second one"}


def test_the_closed_loop_stops_at_an_answer_that_is_no_200() -> None:
    with echoing("HTTP/1.0", 503) as port, pytest.raises(RuntimeError, match=r"503 Service Unavailable: sent"):
        asyncio.run(run_http(port, [request(port, "/", b"sent")], 0.2, 2, settle=0.0))


def test_core_seconds_count_children_that_live_and_children_that_have_ended() -> None:
    # Half a second of a core in a child that ends, and half in one that goes on until it gets a line.
    burn = "import time\nwhile time.process_time() < 0.5: pass\n"
    script = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {burn!r}])
command = [sys.executable, "-c", {burn + "print(1, flush=True); input()"!r}]
child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
input()
child.communicate(b"\\n")
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert cpu.tree(parent.pid) == [parent.pid, child]
    assert cpu.tree_seconds(parent.pid) >= 0.95
    assert 0.45 <= cpu.process_seconds(child) < cpu.tree_seconds(parent.pid)
    parent.communicate("\n")
    assert cpu.tree(parent.pid) == []
    assert cpu.tree_seconds(parent.pid) == 0


def test_a_server_to_measure_has_its_database_in_its_tree_and_leaves_nothing_behind() -> None:
    with serving(STARTER, arguments=[*UNCACHED, "--threads", "1", "--batch", "1"]) as server:
        body = pictures.form(pictures.demo()[0].data)
        asked = request(server.port, "/embed-image", body, headers={"Content-Type": pictures.FORM_TYPE})
        before = server.cpu_seconds()
        asyncio.run(run_http(server.port, [asked], 0.5, 2, settle=0.0))
        assert server.cpu_seconds() > before
        assert "Ready after" in server.log()
        running = cpu.tree(server.pid)
        assert "postgres" in {cpu.name(pid) for pid in running}
        assert server.data.exists()
    assert not server.data.exists()
    assert not any(map(cpu.title, running))


def test_a_server_that_does_not_start_is_reported_with_the_end_of_its_log() -> None:
    with pytest.raises(RuntimeError, match="--precision must be one of"), serving(STARTER, "fp99"):
        pass
