"""Workers that die, and die again: they are started again, and only a first start ends with them."""

from __future__ import annotations

import os
import signal
from functools import partial

import psutil
import pytest

from tests.support.process import Process, Serve, until


def workers(process: Process) -> list[psutil.Process]:
    children = psutil.Process(process.process.pid).children()
    return [one for one in children if one.is_running() and "spawn_main" in " ".join(_command(one))]


def others(process: Process, before: list[psutil.Process], count: int) -> bool:
    """Whether so many workers run that did not before."""
    return len(set(workers(process)) - set(before)) == count


def _command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return []


@pytest.mark.parametrize("count", [1, 2])
def test_workers_that_are_killed_twice_at_once_come_back_and_the_end_is_clean(serve: Serve, count: int) -> None:
    process = serve("--workers", str(count), "--threads", "1").ready(times=count)
    for _ in range(2):
        before = workers(process)
        assert len(before) == count
        for one in before:
            one.kill()
        until(partial(others, process, before, count))
    process.ready(times=2 * count)
    with process.client() as client:
        assert client.get("/health/ready").status_code == 200
    assert len([line for line in process.log if "ended (signal 9)" in line]) == 2 * count
    assert "Traceback" not in "".join(process.log)
    assert process.stop() == 0


def test_a_pause_before_a_worker_is_started_again_does_not_hold_up_the_end(serve: Serve) -> None:
    process = serve().ready()
    for deaths in range(1, 5):
        until(lambda: workers(process))
        workers(process)[0].kill()
        process.wait_for(r"ended \(signal 9\)", times=deaths)
    assert process.stop() == 0


def test_a_worker_that_ends_before_it_was_ever_ready_ends_the_start_with_a_sentence(serve: Serve) -> None:
    process = serve()
    until(lambda: workers(process))
    workers(process)[0].kill()
    assert process.end() == 2
    said = "".join(process.log)
    assert "twinlens: A worker ended before it was ready (signal 9)" in said
    assert "Traceback" not in said


def test_a_start_that_a_worker_refuses_ends_with_its_sentence_and_without_secrets(serve: Serve) -> None:
    process = serve("--media-url", "nowhere://key:hushhush@bucket/prefix")
    assert process.end() == 2
    said = "".join(process.log)
    assert "cannot be used as a store of media" in said
    assert "hush" not in said
    assert "Traceback" not in said


def test_a_terminal_that_is_closed_ends_the_server_cleanly(serve: Serve) -> None:
    process = serve().ready()
    os.kill(process.process.pid, signal.SIGHUP)
    assert process.end() == 0
