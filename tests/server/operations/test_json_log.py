"""The log of a server in JSON: every line of all its processes, from the first to the last, whatever happens."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from psycopg import conninfo

from tests.support import faulty
from tests.support.databases import fresh_database
from tests.support.keys import new_key
from tests.support.process import KEYBOARD, Process, Serve, until

PASSWORD = 'hush"hush/secret'
Events = list[dict[str, Any]]


def read(log: list[str]) -> Events:
    """Each line as JSON. Raises ValueError for one that is none."""
    events = [json.loads(line) for line in log]
    for event in events:
        assert {"time", "level", "logger", "message", "pid"} <= set(event)
        assert event["level"] in ("debug", "info", "warning", "error", "critical")
    return events


class Life:
    """What a server wrote in a life in which everything happened to it, and what it must not have written."""

    def __init__(self, url: str, data: Path) -> None:
        made = new_key(url, "admin", None)
        self.key, self.key_id = made.key, made.stored.id
        with_password = conninfo.make_conninfo(url, password=PASSWORD)
        process = Process(
            data, "--database-url", with_password, "--log", "json", "--workers", "2", module=faulty.__name__
        )
        try:
            self._live(process)
            assert process.stop() == 0
        finally:
            if process.process.poll() is None:
                process.stop(signal.SIGKILL)
        self.lines = process.log
        self.events = read(process.log)

    def _live(self, process: Process) -> None:
        process.ready(times=2)
        with process.client() as client:
            client.headers["Authorization"] = f"Bearer {self.key}"
            about = {"clientId": "acme"}
            put = client.put("/v1/products/shoe", json={"name": "Shoe", **about}, headers={"X-Request-Id": "written"})
            assert put.status_code == 201
            found = client.post(
                "/v1/search", files={"file": KEYBOARD}, params=about, headers={"X-Request-Id": "searched"}
            )
            assert found.status_code == 200
            self.stages = found.headers["Server-Timing"]
            assert client.get("/v1/products/none", params=about).status_code == 404
            refused = client.get("/v1/products/x", headers={"Authorization": f"Bearer {self.key[:-4]}AAAA"})
            assert refused.status_code == 401
            assert client.get("/fails", params=about, headers={"X-Request-Id": "failed"}).status_code == 500
            client.get("/breaks")
            for forged in ("a%0d%0a" + faulty.FORGED, "%E2%80%A8%0b" + faulty.FORGED):
                client.get(f"/v1/products/{forged}", params={"clientId": f"x\r\n{faulty.FORGED}"})
        with process.connect() as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: a\r\n " + faulty.FORGED.encode())
        os.kill(process.worker.pid, signal.SIGKILL)
        process.wait_for('"message": "Ready after', times=3)


@pytest.fixture(scope="module")
def life(postgres_url: str, template_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    with fresh_database(postgres_url, template_database) as url:
        yield Life(url, tmp_path_factory.mktemp("json-log"))


def of(events: Events, **wanted: Any) -> Events:
    return [event for event in events if wanted.items() <= event.items()]


def test_the_log_begins_with_the_start_and_the_settings_and_ends_with_the_stop(life: Life) -> None:
    names = [event["event"] for event in life.events if event.get("process") == "serve" and "event" in event]
    assert names[:2] == ["start", "settings"]
    assert names[-2:] == ["stopping", "stopped"]
    (settings,) = of(life.events, event="settings")
    assert settings["settings"]["TWINLENS_LOG"] == "json"
    assert settings["settings"]["TWINLENS_WORKERS"] == "2"
    assert "password=" in settings["settings"]["TWINLENS_DATABASE_URL"]
    assert of(life.events, event="stopping")[0]["signal"] == "SIGTERM"


def test_each_start_and_each_end_of_a_worker_is_an_event(life: Life) -> None:
    started = of(life.events, event="worker_started")
    (ended,) = of(life.events, event="worker_ended")
    assert len(started) == 3
    assert (ended["level"], ended["how"]) == ("error", "signal 9")
    assert ended["workerPid"] in {event["workerPid"] for event in started[:2]}
    assert started[2]["worker"] == ended["worker"]
    ready = of(life.events, event="ready")
    assert {event["process"] for event in ready} == {"worker 1", "worker 2"}
    assert {event["pid"] for event in ready} == {event["workerPid"] for event in started}


def test_a_request_is_an_event_with_where_its_time_went(life: Life) -> None:
    (event,) = of(life.events, event="request", requestId="searched")
    assert (event["client"], event["route"], event["status"]) == ("acme", "/v1/search", 200)
    assert event["key"] == life.key_id
    assert {"read", "decode", "queue", "encode", "search", "total"} <= set(event["timings"])
    for stage in ("decode", "encode", "search"):
        assert f"{stage};dur={event['timings'][stage]}" in life.stages


def test_refusals_say_why(life: Life) -> None:
    requests = of(life.events, event="request")
    assert of(requests, status=404, code="product_not_found")
    assert of(requests, status=401, code="key_invalid")


def test_the_audit_is_an_event_with_its_fields(life: Life) -> None:
    (event,) = of(life.events, event="audit", requestId="written")
    assert (event["action"], event["object"], event["status"]) == ("PUT /v1/products/{product_id}", "shoe", 201)
    assert (event["client"], event["key"]) == ("acme", life.key_id)


def test_a_request_that_fails_is_one_event_with_its_traceback(life: Life) -> None:
    (event,) = of(life.events, event="request_failed", requestId="failed")
    assert (event["level"], event["exception"], event["status"]) == ("error", "RuntimeError", 500)
    assert event["traceback"].startswith("Traceback (most recent call last):\n")
    assert event["traceback"].endswith(f"RuntimeError: of several lines\n{faulty.FORGED}")


def test_what_fails_beside_a_request_is_an_event_too(life: Life) -> None:
    (warning,) = of(life.events, logger="py.warnings")
    assert "a warning\nof two lines" in warning["message"]
    assert warning["requestId"] == "failed"
    assert "of a thread" in "".join(event.get("traceback", "") for event in life.events)
    assert "that nobody can be told of" in "".join(event.get("traceback", "") for event in life.events)


def test_what_granian_logs_is_an_event_with_its_traceback(life: Life) -> None:
    said = [event["message"] for event in life.events if event["logger"].startswith("_granian")]
    # On a busy machine it may also say that it kills a worker that has just ended.
    (message,) = [one for one in said if not one.startswith("Killing worker")]
    assert message.startswith("Application callable raised an exception\n")
    assert "outside of all that answers" in message


def test_what_libraries_write_past_the_log_is_an_event(life: Life) -> None:
    bare = [event["message"] for event in of(life.events, event="bare_output")]
    assert bare == ["[E:library.cc:7] a bare line", "a printed line"]


def test_no_line_is_a_callers(life: Life) -> None:
    assert not [event for event in life.events if event["message"] == "forged"]
    assert all(line.isascii() and line.rstrip("\n").isprintable() for line in life.lines)


def test_no_secret_is_in_any_line(life: Life) -> None:
    whole = "".join(life.lines)
    assert "hush" not in whole
    assert life.key not in whole
    assert life.key[len("twinlens_") + len(life.key_id) :] not in whole
    assert life.key_id in whole


def test_a_refused_start_is_an_event_without_secrets(serve: Serve) -> None:
    process = serve("--log", "json", "--media-url", "nowhere://key:hushhush@bucket/prefix?signature=hushtoo")
    assert process.end() == 2
    events = read(process.log)
    assert events[-1]["event"] == "command_refused"
    assert events[-1]["level"] == "critical"
    assert "cannot be used as a store of media" in events[-1]["message"]
    assert not any("hush" in line for line in process.log)


@pytest.mark.parametrize("flags", [("--port", "high"), ("--model", "/nowhere")])
def test_a_start_that_settings_refuse_is_an_event(serve: Serve, flags: tuple[str, ...]) -> None:
    process = serve("--log", "json", *flags)
    assert process.end() == 2
    assert read(process.log)[-1]["event"] == "command_refused"


def test_a_killed_database_is_an_event_and_so_is_its_return(serve: Serve) -> None:
    process = serve("--log", "json").ready()
    process.postmaster.kill()
    process.wait_for("postgres_started")
    with process.client() as client:
        until(lambda: client.get("/health/ready").status_code == 200)
    assert process.stop() == 0
    events = read(process.log)
    (ended,) = of(events, event="postgres_ended")
    (started,) = of(events, event="postgres_started")
    assert (ended["level"], started["level"]) == ("error", "info")
    assert started["postgresPid"] > 0
