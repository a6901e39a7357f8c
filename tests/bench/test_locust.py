"""The measuring tools: that they run, check what comes back, and refuse in a sentence."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from bench import machine, near_duplicates
from tests import DEMO_PICTURES, ROOT
from tests.support.process import Process
from tests.support.serving import Shop


def locust(host: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """As bench/README.md has it, for three seconds; locust patches sockets when imported, so never in this process."""
    command = [
        sys.executable,
        "-m",
        "locust",
        "-f",
        "bench/locustfile.py",
        "--headless",
        "-u",
        "4",
        "-r",
        "4",
        "-t",
        "3s",
    ]
    return subprocess.run(
        [*command, "--only-summary", "--host", host, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120
    )


def test_the_load_test_finds_every_answer_right_and_prints_its_figures(
    serve: Callable[..., Process], shop: Shop
) -> None:
    server = serve("--demo", "on", "--database-url", shop.database_url, data=shop.data).ready()
    done = locust(server.url)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert machine.sentence() in lines
    assert any(line.startswith("twinlens/starter (fp32) on ") for line in lines)
    (head,) = [
        line
        for line in lines
        if line.split() == ["answered", "refused", "failed", "per", "s", "p50", "ms", "p95", "ms", "p99", "ms"]
    ]
    figures = {}
    for line in lines[lines.index(head) + 1 :]:
        # A percentile of too few answers is a dash.
        if row := re.fullmatch(r"(\S.*?)" + r" +(\d+)" * 3 + r" +([\d.]+)" + r" +(\d+|-)" * 3, line):
            figures[row[1]] = [float(value.replace("-", "nan")) for value in row.groups()[1:]]
    assert set(figures) == {"search, demo picture", "search, other picture", "words", "embed", "all"}
    for answered, refused, failed, rate, p50, p95, p99 in figures.values():
        assert answered > 0
        assert refused == failed == 0
        assert rate > 0
        assert p50 > 0
        assert not p50 > p95
        assert not p95 > p99
    for stage in ("decode", "queue", "encode", "search"):
        times = rf"search, demo picture: {stage} +[\d-]+ +[\d-]+ +[\d-]+ +mean [\d.]+"
        assert any(re.fullmatch(times, line) for line in lines)


@contextmanager
def answering(body: bytes) -> Iterator[str]:
    """A server that is not ours, and answers everything with this; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("body", [b"<html>It works!</html>", b'{"status": "up"}', b"[]"], ids=repr)
def test_a_server_that_is_not_ours_is_not_loaded(body: bytes) -> None:
    with answering(body) as host:
        done = locust(host)
    assert done.returncode != 0
    assert f"bench: what answers at {host} is no Twinlens" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_server_that_is_not_there_is_said() -> None:
    done = locust("http://127.0.0.1:9")
    assert done.returncode != 0
    assert "bench: no server is ready at http://127.0.0.1:9" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_server_elsewhere_is_not_loaded_without_being_asked_to() -> None:
    done = locust("http://twinlens.example")
    assert done.returncode != 0
    assert "bench: twinlens.example is not this machine; --allow-remote" in done.stderr


def test_near_duplicates_prints_the_machine_and_a_row_for_each_alteration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for picture in sorted(DEMO_PICTURES.glob("*.webp"))[:3]:
        shutil.copy(picture, tmp_path)
    assert near_duplicates.main(["--pictures", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [machine.sentence(), "twinlens/starter, fp32, 3 pictures"]
    rows = [line for line in lines if line.startswith(tuple(near_duplicates.ALTERATIONS))]
    assert len(rows) == len(near_duplicates.ALTERATIONS)
    assert all("100.0%" in row for row in rows)
    assert "all: 100.00% found first" in lines


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "nowhere"], "There is no model artifact in nowhere"),
        (["--precision", "int8"], "has no int8 graph"),
        (["--pictures", "nowhere"], "nowhere holds 0 pictures; at least two are needed"),
        (["--pictures", "models/starter/manifest.json"], "manifest.json holds 0 pictures"),
    ],
)
def test_near_duplicates_refuses_in_a_sentence(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert near_duplicates.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("bench: ")
    assert words in error
