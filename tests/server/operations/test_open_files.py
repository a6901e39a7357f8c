"""As many connections as a worker may have: idle ones keep nobody out."""

from __future__ import annotations

import contextlib
import resource
import subprocess
import sys

import pytest

from server.operations.open_files import MOST_CONNECTIONS
from tests import ROOT
from tests.support.process import Serve

IDLE = 2_500


@pytest.fixture
def many_files() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < IDLE + 500:
        pytest.skip(f"this user may have {most} files open")
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@pytest.mark.usefixtures("many_files")
def test_idle_connections_keep_nobody_out_and_do_not_hold_up_the_end(serve: Serve) -> None:
    process = serve().ready()
    with contextlib.ExitStack() as open_ones:
        for number in range(IDLE):
            one = open_ones.enter_context(process.connect())
            if number % 2:
                one.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert one.recv(4096).startswith(b"HTTP/1.1 200")
        with process.client() as client:
            assert client.get("/health/ready").status_code == 200
        assert process.stop() == 0


@pytest.mark.parametrize(
    ("soft", "hard", "connections", "warned"),
    [(64, 1_200, 688, True), (1_024, 6_000, 5_488, False), (300, 300, 150, True)],
)
def test_the_limit_of_open_files_is_raised_and_a_low_one_is_said(
    soft: int, hard: int, connections: int, warned: bool
) -> None:
    code = (
        "import logging, resource; logging.basicConfig(format='%(message)s')\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))\n"
        "from server.operations.open_files import most_connections\n"
        "print(most_connections(), *resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(connections), str(hard), str(hard)]
    assert (f"serves {connections:,} connections at a time" in done.stderr) == warned


def test_workers_have_the_raised_limit(serve: Serve) -> None:
    process = serve().ready()
    limit, most = resource.prlimit(process.worker.pid, resource.RLIMIT_NOFILE)
    assert limit == most
    assert MOST_CONNECTIONS > 5_000
