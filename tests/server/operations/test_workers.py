"""Workers that share the port: numbers, cores, and one server of two."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from server.errors import StartRefused
from server.operations.workers import Place, belong_to_parent, cores_of, take_place, wanted
from server.settings import Settings
from tests import ROOT
from tests.support.process import KEYBOARD, Process, Serve, until


def test_one_process_serves_on_a_cpu_unless_a_setting_says_otherwise() -> None:
    assert wanted(Settings(device="cpu")) == 1
    assert wanted(Settings(device="cpu", workers=3)) == 3


_PARENT = """
import multiprocessing, sys
from tests.server.operations.test_workers import late

if __name__ == "__main__":
    multiprocessing.get_context("spawn").Process(target=late).start()
    sys.stdin.read()
"""


def late() -> None:
    """A worker that is slow to start: its parent has died when it gets to asking for a signal."""
    parent = os.getppid()
    print("started", flush=True)
    until(lambda: os.getppid() != parent)
    belong_to_parent()
    print("goes on", flush=True)


def test_a_worker_whose_parent_died_while_it_was_starting_ends() -> None:
    """An orphan would keep the port, and no server could start on it again."""
    command = [sys.executable, "-c", _PARENT]
    with subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "started\n"
        parent.kill()
        assert parent.stdout.read() == ""  # until the worker, which has the pipe as well, has ended


@pytest.mark.parametrize("cores", [1, 2, 5, 16])
@pytest.mark.parametrize("of", [1, 2, 3, 16])
def test_all_cores_are_divided_and_each_belongs_to_one_worker(cores: int, of: int) -> None:
    dealt = [cores_of(Place(number, of), range(cores)) for number in range(of)]
    if of <= cores:
        assert sorted(core for part in dealt for core in part) == list(range(cores))
        assert max(map(len, dealt)) - min(map(len, dealt)) <= 1
    else:
        assert dealt == [list(range(cores))] * of


def test_a_number_belongs_to_one_process_until_it_dies(tmp_path: Path) -> None:
    take = "from pathlib import Path; from server.operations.workers import take_place; import sys;"
    take += f"print(take_place(Path({str(tmp_path)!r}), 2).number, flush=True); sys.stdin.read()"

    def start() -> tuple[subprocess.Popen[str], int]:
        worker = subprocess.Popen(
            [sys.executable, "-c", take], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert worker.stdout is not None
        return worker, int(worker.stdout.readline())

    (first, zero), (second, one) = start(), start()
    try:
        assert (zero, one) == (0, 1)
        with pytest.raises(StartRefused, match="2 workers already"):
            take_place(tmp_path, 2)
        first.kill()
        first.communicate()
        third, number = start()
        third.communicate()
        assert number == 0
    finally:
        second.communicate()


def test_two_workers_answer_on_one_port_with_figures_of_both_and_a_dead_one_is_replaced(serve: Serve) -> None:
    server = serve("--workers", "2", "--threads", "1").ready()
    server.wait_for(r"worker [12] of 2", times=2)
    workers = [one for one in psutil.Process(server.process.pid).children() if "spawn_main" in " ".join(one.cmdline())]
    assert len(workers) == 2
    if len(os.sched_getaffinity(0)) >= 2:
        first, second = (set(one.cpu_affinity()) for one in workers)
        assert not first & second
    with ThreadPoolExecutor(8) as threads:
        # A connection each: the kernel deals them out.
        answers = [
            answer.status_code
            for answer in threads.map(
                lambda _: httpx.post(f"{server.url}/embed-image", files={"file": KEYBOARD}, timeout=60), range(24)
            )
        ]
    assert Counter(answers) == {200: 24}
    counted = r'twinlens_requests_total\{.*route="/embed-image",status="200"\} ([0-9.]+)'
    assert [float(one) for one in re.findall(counted, httpx.get(f"{server.url}/metrics").text)] == [24]
    assert figures(server, "twinlens_build_info") == [1]  # what both run, once
    assert sum(figures(server, "twinlens_pool_connections")) >= 2 * 3  # of both workers: two to start with, and one
    assert set(figures(server, "twinlens_restarts_total")) == {0}
    until(lambda: figures(server, 'twinlens_catalogue_size{what="media"}') == [0])
    workers[0].send_signal(signal.SIGKILL)
    server.wait_for(r"worker [12] of 2", times=3)
    assert figures(server, 'twinlens_restarts_total{child="worker"}') == [1]
    assert figures(server, 'twinlens_restarts_total{child="postgres"}') == [0]
    assert httpx.post(f"{server.url}/embed-image", files={"file": KEYBOARD}, timeout=60).status_code == 200


def figures(server: Process, name: str) -> list[float]:
    """Of all series whose names and labels begin so."""
    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    return [float(line.rpartition(" ")[2]) for line in lines if line.startswith(name)]
