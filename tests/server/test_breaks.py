"""What callers see of a server whose database breaks: it answers in time all the while, and is whole again after."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest

from tests.support.process import KEYBOARD, Process, Serve, until

DEADLINE = 2.0
SLACK = 8.0
"""Seconds beyond a bound after which an answer counts as late; the machine may be busy, and a hang lasts longer."""


@pytest.fixture
def server(serve: Serve) -> Process:
    """A server with an embedded PostgreSQL of its own, a product and a picture."""
    started = serve("--deadline", str(DEADLINE)).ready()
    with started.client() as client:
        client.put("/v1/products/teapot", json={"name": "Teapot"}).raise_for_status()
        client.post("/v1/products/teapot/media", files={"file": KEYBOARD}).raise_for_status()
    return started


@contextlib.contextmanager
def hanging(server: Process) -> Iterator[None]:
    """No process of PostgreSQL runs in this block; none has ended, and every connection stands."""
    postmaster = server.postmaster
    stopped = [postmaster, *postmaster.children(recursive=True)]
    for one in stopped:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.suspend()
    try:
        yield
    finally:
        for one in stopped:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.resume()


def codes(answers: list[httpx.Response]) -> set[tuple[int, str]]:
    return {(one.status_code, one.json().get("code", "")) for one in answers}


def test_all_calls_are_answered_in_time_while_the_database_hangs(server: Process) -> None:
    product = "/v1/products/teapot"
    with server.client() as client, ThreadPoolExecutor(32) as pool:
        client.get("/health/ready").raise_for_status()

        def timed(method: str, path: str, **what: object) -> tuple[httpx.Response, float]:
            began = time.monotonic()
            answer = client.request(method, path, **what)  # type: ignore[arg-type]
            return answer, time.monotonic() - began

        with hanging(server):
            calls = [pool.submit(timed, "POST", "/v1/search", files={"file": KEYBOARD}) for _ in range(12)]
            calls += [pool.submit(timed, "PUT", product, json={"name": "Teapot"}) for _ in range(4)]
            calls += [pool.submit(timed, "DELETE", "/v1/products/none") for _ in range(4)]
            calls += [pool.submit(timed, "GET", product) for _ in range(4)]
            calls += [pool.submit(timed, "GET", "/health/ready") for _ in range(2)]
            live, seconds = timed("GET", "/health/live")
            assert (live.status_code, seconds < SLACK) == (200, True)
            done = [call.result() for call in calls]
        assert {answer.status_code for answer, _ in done} == {503}
        assert {answer.json()["code"] for answer, _ in done} <= {
            "database_unavailable",
            "deadline_missed",
            "outcome_unknown",
        }
        assert all("Retry-After" in answer.headers for answer, _ in done)
        assert max(seconds for _, seconds in done) < DEADLINE + SLACK, [round(seconds, 2) for _, seconds in done]
        until(lambda: client.get("/health/ready").status_code == 200)
        again = [pool.submit(client.post, "/v1/search", files={"file": KEYBOARD}) for _ in range(32)]
        assert {one.result().status_code for one in again} == {200}
        assert client.put(product, json={"name": "Teapot"}).status_code == 200
    assert not [line for line in server.log if "Traceback" in line or "never retrieved" in line]
