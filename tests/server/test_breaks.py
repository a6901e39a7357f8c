"""What callers see of a server whose database breaks: it answers in time all the while, and is whole again after."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import psutil
import pytest

from server.postgres.server import EmbeddedPostgres
from tests.support.databases import discard, run_sql
from tests.support.process import KEYBOARD, Process, Serve, until

DEADLINE = 2.0
SLACK = 8.0
"""Seconds beyond a bound after which an answer counts as late; the machine may be busy, and a hang lasts longer."""

PRODUCT = "/v1/products/teapot"

Ask = Callable[[httpx.Client], httpx.Response]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL of these tests' own, which no server starts."""
    postgres = EmbeddedPostgres(tmp_path_factory.mktemp("database"), extra_settings=["fsync=off"])
    try:
        postgres.start()
        yield postgres
    finally:
        discard(postgres)


@pytest.fixture(scope="module")
def server(database: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A server with a product and a picture."""
    started = Process(tmp_path_factory.mktemp("server"), *flags(database))
    try:
        with started.ready().client() as client:
            until(lambda: put(client).is_success)
            until(lambda: client.post(f"{PRODUCT}/media", files={"file": KEYBOARD}).is_success)
        yield started
    finally:
        started.stop()


def flags(database: EmbeddedPostgres) -> tuple[str, ...]:
    """Its servers share a store as well, which only one database may have."""
    store = database.data / "media"
    return ("--database-url", database.url, "--media-url", str(store), "--deadline", str(DEADLINE))


@contextlib.contextmanager
def hanging(postmaster: psutil.Process) -> Iterator[None]:
    """No process of PostgreSQL runs in this block; none has ended, and every connection stands."""
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


def search(client: httpx.Client) -> httpx.Response:
    return client.post("/v1/search", files={"file": KEYBOARD})


def get(client: httpx.Client) -> httpx.Response:
    return client.get(PRODUCT)


def put(client: httpx.Client) -> httpx.Response:
    return client.put(PRODUCT, json={"name": "Teapot"})


def remove(client: httpx.Client) -> httpx.Response:
    return client.delete("/v1/products/none")


def upload(client: httpx.Client) -> httpx.Response:
    return client.post(f"{PRODUCT}/media", files={"file": KEYBOARD + b" "})


def ready(client: httpx.Client) -> httpx.Response:
    return client.get("/health/ready")


def timed(ask: Ask, client: httpx.Client) -> tuple[httpx.Response, float]:
    began = time.monotonic()
    return ask(client), time.monotonic() - began


def all_served(server: Process) -> None:
    """More callers at once than there are connections are served, without one that is refused."""
    with server.client() as client, ThreadPoolExecutor(32) as threads:
        answers = list(threads.map(lambda _: get(client), range(64)))
        assert {answer.status_code for answer in answers} == {200}
        until(lambda: search(client).status_code == 200)
        until(lambda: put(client).status_code == 200)


def pid_of(database: EmbeddedPostgres) -> psutil.Process:
    assert database.pid is not None
    return psutil.Process(database.pid)


def test_all_calls_are_answered_in_time_while_the_database_hangs(server: Process, database: EmbeddedPostgres) -> None:
    calls: list[Ask] = [*[search] * 12, *[put, remove, get, upload, ready] * 3]
    with server.client() as client, ThreadPoolExecutor(32) as threads:
        for rest in (0.0, 1.5):  # connections that were just used, and connections that have rested
            until(lambda: ready(client).status_code == 200)
            until(lambda: search(client).status_code == 200)
            time.sleep(rest)
            with hanging(pid_of(database)):
                asked = [threads.submit(timed, call, client) for call in calls]
                live, seconds = timed(lambda client: client.get("/health/live"), client)
                assert (live.status_code, seconds < SLACK) == (200, True)
                answered = [one.result() for one in asked]
            late = [round(seconds, 1) for _, seconds in answered if seconds > DEADLINE + SLACK]
            assert not late
            assert {answer.status_code for answer, _ in answered} == {503}
            assert all("Retry-After" in answer.headers for answer, _ in answered)
            codes = {answer.json()["code"] for answer, _ in answered}
            assert codes <= {"database_unavailable", "deadline_missed", "outcome_unknown"}
            until(lambda: ready(client).status_code == 200)
            all_served(server)
    assert not [line for line in server.log if "Traceback" in line or "never retrieved" in line]


def test_a_server_ends_in_time_while_its_database_hangs(serve: Serve, database: EmbeddedPostgres) -> None:
    server = serve(*flags(database)).ready()
    with server.client() as client, ThreadPoolExecutor(8) as threads, hanging(pid_of(database)):
        asked = [threads.submit(call, client) for call in (search, put, remove, upload)]
        time.sleep(0.5)  # so that they have begun
        assert server.stop() == 0
        assert {one.result().status_code for one in asked} == {503}
    assert not [line for line in server.log if "Killing" in line or "Traceback" in line or "never retrieved" in line]


def restarted(database: EmbeddedPostgres) -> None:
    database.close()
    database.start()


def crashed(database: EmbeddedPostgres) -> None:
    """One of its processes is killed: PostgreSQL then ends all of them, and recovers."""
    (pid,) = run_sql(database.url, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' LIMIT 1")[0]
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(pid).kill()
    until(lambda: _answers(database))


def _answers(database: EmbeddedPostgres) -> bool:
    with contextlib.suppress(Exception):
        return bool(run_sql(database.url, "SELECT 1"))
    return False


def disconnected(database: EmbeddedPostgres) -> None:
    others = "FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    run_sql(database.url, f"SELECT pg_terminate_backend(pid, 60000) {others}")


def closed_for_being_idle(database: EmbeddedPostgres) -> None:
    run_sql(database.url, "ALTER SYSTEM SET idle_session_timeout = 200")
    run_sql(database.url, "SELECT pg_reload_conf()")
    time.sleep(1.0)
    run_sql(database.url, "ALTER SYSTEM RESET idle_session_timeout")
    run_sql(database.url, "SELECT pg_reload_conf()")


@pytest.mark.parametrize("breaks", [restarted, crashed, disconnected, closed_for_being_idle])
def test_once_the_database_is_back_nobody_is_refused(
    server: Process, database: EmbeddedPostgres, breaks: Callable[[EmbeddedPostgres], Any]
) -> None:
    all_served(server)
    breaks(database)
    all_served(server)
    assert not [line for line in server.log if "Traceback" in line or "never retrieved" in line]
